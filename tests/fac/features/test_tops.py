"""fac.features.tops against brute force: all entries sorted, whatever the order that batches come in."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fac.corpus_features import Tops
from fac.features.pooling import packed
from fac.features.tops import TopKeeper

WIDTH = 5
# (text, feature): value and token; few values, so that many are equal
ENTRIES = st.dictionaries(
    st.tuples(st.integers(0, 9), st.integers(0, WIDTH - 1)),
    st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 99)),
)


@settings(deadline=None)
@given(entries=ENTRIES, n=st.integers(1, 4), data=st.data())
def test_the_strongest_texts_of_each_feature_are_kept_and_earlier_ones_win_ties(tmp_path_factory, entries, n, data):
    keeper = TopKeeper(WIDTH, n, torch.device("cpu"))
    texts = data.draw(st.permutations(range(10)))
    size = data.draw(st.integers(1, 10))
    for start in range(0, 10, size):
        batch = [(t, f, *entries[t, f]) for t in texts[start : start + size] for f in range(WIDTH) if (t, f) in entries]
        if batch:
            text, feature, value, token = map(torch.tensor, zip(*batch, strict=True))
            keeper.update(text, feature, packed(value, token))
        else:
            nothing = torch.zeros(0, dtype=torch.int64)
            keeper.update(nothing, nothing, nothing)
    path = tmp_path_factory.mktemp("tops")
    keeper.save(path / "tops.npz")
    tops = Tops.load(path)
    assert (tops.values.dtype, tops.texts.dtype, tops.tokens.dtype) == (np.float32, np.int64, np.int32)
    for feature in range(WIDTH):
        own = sorted((-value, text, token) for (text, of), (value, token) in entries.items() if of == feature)[:n]
        left = n - len(own)
        assert tops.values[feature].tolist() == [-value for value, _, _ in own] + [0] * left
        assert tops.texts[feature].tolist() == [text for _, text, _ in own] + [-1] * left
        assert tops.tokens[feature].tolist() == [token for _, _, token in own] + [0] * left
