"""fac.features.pooling against brute force: the dense activations of each row, and its first maximum."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import TopKSAE, TopKSAEConfig

from fac.features.batches import Content
from fac.features.pooling import entries, packed, pooled, unpacked
from fac.sae.load import Sae

D, WIDTH, K = 6, 80, 4
ROWS = st.lists(st.integers(1, 7), min_size=1, max_size=6)  # tokens of each


@pytest.fixture(scope="module")
def saes():
    torch.manual_seed(0)
    module = TopKSAE(TopKSAEConfig(d_in=D, d_sae=WIDTH, k=K))
    torch.nn.init.normal_(module.W_enc)
    wide = TopKSAE(TopKSAEConfig(d_in=D, d_sae=WIDTH, k=K))
    wide.load_state_dict(module.state_dict())
    return {"paper": Sae(module, {}), "official": Sae(wide, {}, "official")}


@settings(deadline=None, max_examples=40)
@given(
    rows=ROWS, seed=st.integers(0, 1000), elements=st.sampled_from([1, 3 * WIDTH, 1 << 20]),
    rule=st.sampled_from(["paper", "official"]),
)  # fmt: skip
def test_maxima_and_their_first_places_are_those_of_each_row(saes, rows, seed, elements, rule):
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(3, D, generator=generator)  # tokens are drawn of three, so that maxima come several times
    residual = few[torch.randint(0, 3, (sum(rows),), generator=generator)]
    row = torch.repeat_interleave(torch.tensor(rows))
    position = torch.cat([torch.randperm(90, generator=generator)[:n].sort().values for n in rows])
    best = pooled(saes[rule], Content(residual, row, position), len(rows), elements)
    values, places = unpacked(best)
    dense = saes[rule].encode(residual)
    for one in range(len(rows)):
        own, where = dense[row == one], position[row == one]
        torch.testing.assert_close(values[one], own.amax(dim=0), rtol=1e-5, atol=1e-5)
        for feature in values[one].nonzero()[:, 0]:
            first = next(
                p for p, v in zip(where, own[:, feature], strict=True) if abs(v - own[:, feature].max()) < 1e-6
            )
            assert places[one, feature] == first
    found = entries(best)
    assert found.row.tolist() == (values > 0).nonzero()[:, 0].tolist()
    assert found.feature.tolist() == (values > 0).nonzero()[:, 1].tolist()
    assert torch.equal(unpacked(found.pack)[0], values[values > 0])


@given(
    values=st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=9),
    below=st.integers(0, (1 << 32) - 1),
)
def test_what_is_packed_comes_back_and_is_ordered_by_value(values, below):
    held = torch.tensor(values)
    pack = packed(held, torch.tensor(below))
    back, place = unpacked(pack)
    assert torch.equal(back, torch.where(held > 0, held, 0.0))
    assert (place[held > 0] == below).all()
    assert (pack >= 0).all()
    assert torch.equal(pack.argsort(stable=True), back.argsort(stable=True))
    if below:
        assert (packed(held, torch.tensor(below - 1))[held > 0] > pack[held > 0]).all()
