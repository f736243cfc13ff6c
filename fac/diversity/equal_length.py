"""FAC at equal length: what is covered by a part of a set that has no more tokens than the parts of others.

More text activates more features, whatever it says, so that coverage of whole sets favours the wordy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fac.coverage import Bools, Floats
from fac.pooled import Pooled


def covered_at_length(
    pooled: Pooled, lengths: NDArray[np.integer], cut: Floats, missing: Bools, tokens: int, draws: int
) -> NDArray[np.float64]:
    """Share of the missing features that a random part of `tokens` tokens activates, in each draw; shape [draws].

    Texts are drawn without replacement while they fit; the next one, of which a part would fit, belongs to it with a
    chance of that part, so that it is `tokens` tokens on average. `lengths` [texts] are the tokens that were measured
    of each text; `cut` and `missing` are [n_features]. Raises ValueError for a set that has fewer tokens.
    """
    if lengths.sum() < tokens:
        raise ValueError(f"the set has {int(lengths.sum())} tokens, fewer than {tokens}")
    active = _active(pooled, cut, np.flatnonzero(missing))
    shares = np.zeros(draws)
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        order = rng.permutation(len(lengths))
        ends = np.cumsum(lengths[order])
        whole = int(np.searchsorted(ends, tokens, side="right"))
        if whole < len(order):
            left = tokens - (ends[whole - 1] if whole else 0)
            whole += bool(rng.random() < left / lengths[order[whole]])
        shares[draw] = active[order[:whole]].any(axis=0).mean()
    return shares


def _active(pooled: Pooled, cut: Floats, features: NDArray[np.intp]) -> Bools:
    """Which texts activate which of the features; shape [texts, features]."""
    column = np.full(pooled.n_features, -1)
    column[features] = np.arange(len(features))
    found = np.zeros((pooled.n_texts, len(features)), np.bool_)
    for rows in pooled.chunks():
        wanted = (column[rows.indices] >= 0) & (rows.values > cut[rows.indices])
        found[rows.row_of_entry()[wanted], column[rows.indices[wanted]]] = True
    return found
