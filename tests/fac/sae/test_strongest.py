"""fac.sae.strongest: Top-K by blocks against torch.topk, and its product against sae-lens' own encoder."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import TopKSAE, TopKSAEConfig

from fac.sae.load import Sae
from fac.sae.strongest import Product, block_size, strongest


@settings(deadline=None, max_examples=60)
@given(
    width=st.sampled_from([16, 64, 96, 256, 1000, 1024, 4096]),
    k=st.integers(1, 16),
    levels=st.sampled_from([2, 30, 1 << 24]),  # few levels: many equal entries
    seed=st.integers(0, 1 << 16),
)
def test_the_k_largest_are_those_of_a_plain_top_k(width, k, levels, seed):
    """Their values always; which of the entries equal to the K-th largest are taken is open."""
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randint(-levels, levels, (5, width), generator=generator).float() / 7
    values, columns = strongest(pre, k)
    assert torch.equal(values.sort(dim=1).values, pre.topk(k).values.sort(dim=1).values)
    assert torch.equal(pre.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())
    larger = pre > values.amin(dim=1, keepdim=True)  # than the K-th: taken in any case
    assert larger.sum(dim=1).tolist() == larger.gather(1, columns).sum(dim=1).tolist()


@pytest.mark.parametrize(
    ("width", "k", "largest", "size"),
    [(65536, 20, 256, 256), (65536, 20, 64, 64), (16384, 32, 256, 128), (2048, 8, 64, 64), (96, 6, 64, None),
     (65536, 2000, 256, None), (1040, 8, 64, 16)],
)  # fmt: skip
def test_blocks_divide_the_width_and_those_of_k_are_a_quarter_of_it(width, k, largest, size):
    assert block_size(width, k, largest) == size


def kept(sae: Sae, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = sae.strongest(residual)
    assert found is not None
    return found


@pytest.mark.parametrize("normalised", ["none", "layer_norm"])
@pytest.mark.parametrize(("rescaled", "centred"), [(False, True), (True, False)])
def test_what_is_kept_is_what_sae_lens_keeps(normalised, rescaled, centred):
    torch.manual_seed(0)
    module = TopKSAE(
        TopKSAEConfig(
            d_in=32, d_sae=512, k=5, rescale_acts_by_decoder_norm=rescaled, apply_b_dec_to_input=centred,
            normalize_activations=normalised,
        )
    )  # fmt: skip
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_()
    residual = torch.randn(40, 32)
    plain = module.encode(residual).detach()
    values, features = kept(Sae(module, {}), residual)
    found = torch.zeros_like(plain).scatter_(1, features, values.relu())
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    half_values, half_features = kept(Sae(module, {}, product="bfloat16"), residual)
    half = torch.zeros_like(plain).scatter_(1, half_features, half_values.relu())
    assert half.dtype == torch.float32
    assert not torch.equal(half, found)
    assert (half - plain).norm() < 0.2 * plain.norm()
    wide = Sae(module, {}, "official")
    assert wide.strongest(residual) is None
    torch.testing.assert_close(wide.activations(residual), wide.encode(residual), rtol=1e-5, atol=1e-5)


def test_a_product_rounds_no_more_than_the_model_unless_it_is_told_to():
    """On a CPU, which gives out bfloat16 for bfloat16, "auto" multiplies in float32 whatever comes in."""
    module = TopKSAE(TopKSAEConfig(d_in=32, d_sae=512, k=5))
    torch.nn.init.normal_(module.W_enc)
    residual = torch.randn(40, 32).bfloat16()
    expected = residual.float() @ module.W_enc.detach()

    def product(how: Product) -> torch.Tensor:
        multiply = Sae(module, {}, product=how).preactivations
        assert multiply is not None
        return multiply(residual)

    exact = product("auto")
    torch.testing.assert_close(exact, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(product("float32"), exact)
    assert not torch.allclose(product("bfloat16"), exact, rtol=1e-5)
