"""fac.train.adapters: LoRA in one piece has peft's values and gradients."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from fac.train.adapters import in_one_piece


def adapted(dropout: float, bias: bool = True, **changes: Any) -> Any:
    """Two linear layers in float64, the first with a frozen bias; nothing of their adapters is zero."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 10, bias=bias), nn.SiLU(), nn.Linear(10, 4, bias=False)).double()
    lora = LoraConfig(r=3, lora_alpha=5, lora_dropout=dropout, **{"target_modules": ["0", "2"], **changes})
    model = get_peft_model(net, lora)  # type: ignore[arg-type]
    for held in model.double().parameters():
        if held.requires_grad:
            nn.init.normal_(held)
    return model.train()


def told(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients of adapters and input."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # of the dropout
    out = model(x)
    model.zero_grad()
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    grads = [held.grad for held in model.parameters() if held.requires_grad]
    assert all(grad is not None for grad in [*grads, x.grad])
    return [out.detach(), x.grad, *grads]  # type: ignore[list-item]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_peft_s(dropout: float, bias: bool):
    model, x = adapted(dropout, bias), torch.randn(2, 5, 6, dtype=torch.float64)
    expected = told(model, x)
    with in_one_piece(model):
        assert "forward" in vars(model.base_model.model[0])
        found = told(model, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert "forward" not in vars(model.base_model.model[0])


def test_nothing_is_dropped_in_evaluation():
    model, x = adapted(0.4).eval(), torch.randn(2, 6, dtype=torch.float64)
    with in_one_piece(model):
        torch.testing.assert_close(model(x), model(x))


def test_other_kinds_of_adapters_compute_as_peft_does():
    for model in (adapted(0.0, use_dora=True), adapted(0.0, lora_bias=True, target_modules=["0"])):
        with in_one_piece(model):
            assert "forward" not in vars(model.base_model.model[0])


def test_adapters_in_float32_work_beside_weights_in_bfloat16():
    """As on a GPU: products are in bfloat16, gradients reach the adapters in float32."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 4, bias=False)).bfloat16()
    model: Any = get_peft_model(net, LoraConfig(r=4, target_modules=["0", "1"], init_lora_weights=False))  # type: ignore[arg-type]
    x = torch.randn(8, 64, dtype=torch.bfloat16)
    expected = told(model, x)
    with in_one_piece(model):
        found = told(model, x)
    assert {held.dtype for held in model.parameters() if held.requires_grad} == {torch.float32}
    assert [one.dtype for one in found] == [other.dtype for other in expected]
    for one, other in zip(found, expected, strict=True):
        assert float((one.float() - other.float()).norm() / other.float().norm()) < 0.01
