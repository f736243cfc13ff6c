"""fac.norms: a model's norms give what they gave, and those that are no plain RMS norms are left alone."""

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

from fac.norms import fuse_norms


class PlainRMSNorm(nn.Module):
    """A norm whose epsilon has the other name."""

    def __init__(self, size: int, power: int = 2) -> None:
        super().__init__()
        self.weight, self.eps, self.power = nn.Parameter(torch.ones(size)), 1e-3, power

    def forward(self, hidden_states):
        return self.weight * hidden_states / (hidden_states.pow(self.power).mean(-1, keepdim=True) + self.eps).sqrt()


@pytest.mark.parametrize("make", [LlamaRMSNorm, PlainRMSNorm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plain_norm_gives_what_it_gave(make, dtype):
    norm, model = make(48).to(dtype), nn.ModuleList()
    nn.init.normal_(norm.weight)
    model.append(norm)
    x = torch.randn(3, 5, 48).to(dtype)
    with torch.inference_mode():
        before = norm(x)
        assert fuse_norms(model) == 1
        after = norm(x)
    assert after.dtype == dtype
    torch.testing.assert_close(after, before, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)
    assert fuse_norms(model) == 1  # and again


@pytest.mark.parametrize(
    "norm",
    [GemmaRMSNorm(48), MambaRMSNormGated(48), PlainRMSNorm(48, power=4), nn.LayerNorm(48)],
    ids=lambda n: type(n).__name__,
)
def test_another_norm_is_left_alone(norm):
    forward = norm.forward
    assert fuse_norms(nn.ModuleList([norm])) == 0
    assert norm.forward == forward


def test_random_numbers_are_not_drawn():
    state = torch.get_rng_state()
    fuse_norms(nn.ModuleList([LlamaRMSNorm(48)]))
    assert torch.equal(torch.get_rng_state(), state)
