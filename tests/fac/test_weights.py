"""fac.weights: every way in which a file of weights is none is said, with the tensor's name."""

import pytest
import torch
from safetensors.torch import save_file

from fac.errors import FacError
from fac.weights import check_safetensors, check_tensor


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_finite_numbers_pass(tmp_path, dtype, shape):
    save_file({"w": torch.ones(shape, dtype=dtype)}, tmp_path / "w.safetensors")
    assert check_safetensors(tmp_path / "w.safetensors", "The file") == {"w": shape}


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.tensor([1.0, float("nan")]), "w holds values that are NaN"),
        (torch.tensor([1.0, float("-inf")]), "w holds values that are infinite"),
        (torch.ones(2, dtype=torch.complex64), "w is of the type complex64"),
        (torch.ones(2, dtype=torch.bool), "w is of the type bool"),
        (torch.ones(2, dtype=torch.int64), "w is of the type int64"),
        (torch.ones(2).to(torch.float8_e4m3fn), "w is of the type float8_e4m3fn"),
        (torch.eye(2).to_sparse(), "w is sparse coo"),
        (torch.ones(2, device="meta"), "w is without values"),
    ],
)
def test_what_cannot_be_weights_is_refused(tensor, said):
    with pytest.raises(FacError, match=said):
        check_tensor(tensor, "w")


def test_a_file_that_is_gone_is_said(tmp_path):
    with pytest.raises(FacError, match=r"The file .*w.safetensors cannot be read \(No such file"):
        check_safetensors(tmp_path / "w.safetensors", "The file")
