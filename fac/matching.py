"""Which features of one SAE are which features of another: matched by correlation over a shared corpus.

Two models share no basis, and often no tokens, but they can read the same texts. That features of different
dictionaries correspond if they fire on the same inputs is how universality is measured in Bricken et al. 2023 ("Towards
Monosemanticity") and Lan et al. 2024 (arXiv 2410.06981). They correlate token by token; here the unit is the text,
since the tokenizers differ, and the value its pooled activation g_i(x). The paper has no such table: it carries texts,
not features, from one model to another (its Table 3).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fac.errors import FacError
from fac.pooled import Pooled
from fac.store import Step

if TYPE_CHECKING:
    from scipy.sparse import csc_array

Bools = NDArray[np.bool_]
MATCH = "match.npz"
_DECIMALS = 9  # far above the rounding errors of r, about 1e-16 x texts


class Match(NamedTuple):
    """Each feature's best match in the other SAE; -1, with r nan, for a feature that has none (see `correlations`)."""

    best_ab: NDArray[np.int64]  # [features of a], ids in b
    r_ab: NDArray[np.float64]  # [features of a]
    best_ba: NDArray[np.int64]  # [features of b], ids in a
    r_ba: NDArray[np.float64]  # [features of b]

    def turned(self) -> Match:
        """The same seen from `b`."""
        return Match(self.best_ba, self.r_ba, self.best_ab, self.r_ab)


def matching(a: Step, b: Step, *, min_active: int, shuffle: int | None = None) -> Step:
    """Match the features of two encoders on one corpus (steps of `FeatureEncoder.features`); `load_match` reads it.

    With `shuffle`, the texts of `b` are put in an order drawn by that seed: what chance gives.
    """
    return Step(
        "matching", partial(_match, min_active, shuffle), {"min_active": min_active, "shuffle": shuffle}, (a, b)
    )


def load_match(folder: Path) -> Match:
    """What `matching` found."""
    with np.load(folder / MATCH) as held:
        return Match(**held)


def _match(min_active: int, shuffle: int | None, folder: Path, a: Path, b: Path) -> None:
    first, second = Pooled.load(a), Pooled.load(b)
    if shuffle is not None:
        second = second.take(np.random.default_rng(shuffle).permutation(second.n_texts))
    np.savez(folder / MATCH, **correlations(first, second, min_active=min_active)._asdict())


def correlations(a: Pooled, b: Pooled, *, min_active: int = 1, block: int = 256) -> Match:
    """Match every feature of `a` with the feature of `b` that it correlates with most, and the other way round.

    r is Pearson's correlation of g_i(x) and g_j(x) over all texts, those where neither fires included, rounded to nine
    decimals; among equally good matches the lowest id counts. A feature that is the same on every text (silent ones
    above all) has no correlation and no match. Nor have features that fire in fewer than `min_active` texts: two
    features that fire in one text each, and happen to share it, correlate perfectly.

    Memory: the entries of both matrices in double precision, and `block` x (features of `b`) correlations at a time;
    never texts x features.

    Raises FacError if `a` and `b` are not of the same number of texts, or of fewer than two.
    """
    if a.n_texts != b.n_texts:
        raise FacError(
            f"Features can be matched over one corpus only, but one model read {a.n_texts} texts and the other "
            f"{b.n_texts}: measure both on the same texts."
        )
    if a.n_texts < 2:
        raise FacError(f"{a.n_texts} texts give no correlation: measure both models on more texts.")
    from scipy.sparse import csr_array

    from_a, to_b = _unit_columns(a, min_active), _unit_columns(b, min_active)
    match = Match(*_unmatched(a.n_features), *_unmatched(b.n_features))
    if not len(from_a.ids) or not len(to_b.ids):
        return match
    entries_b = csr_array(to_b.entries)
    r_b = np.full(len(to_b.ids), -np.inf)
    best_b = np.zeros(len(to_b.ids), np.int64)
    for start in range(0, len(from_a.ids), block):
        part = slice(start, start + block)
        r = (from_a.entries[:, part].T @ entries_b).toarray()
        r -= a.n_texts * np.outer(from_a.means[part], to_b.means)
        np.round(np.clip(r, -1, 1, out=r), _DECIMALS, out=r)
        match.best_ab[from_a.ids[part]] = to_b.ids[r.argmax(axis=1)]
        match.r_ab[from_a.ids[part]] = r.max(axis=1)
        better = r.max(axis=0) > r_b
        best_b[better] = from_a.ids[part][r.argmax(axis=0)[better]]
        r_b[better] = r.max(axis=0)[better]
    match.best_ba[to_b.ids], match.r_ba[to_b.ids] = best_b, r_b
    return match


def mutual(match: Match, at_least: float) -> NDArray[np.int64]:
    """Pairs (feature of `a`, feature of `b`) that are each other's best match with r >= `at_least`; shape [pairs, 2].

    In order of the first; no feature is in two pairs.
    """
    first = np.flatnonzero(match.r_ab >= at_least)
    second = match.best_ab[first]
    back = match.best_ba[second] == first
    return np.stack([first[back], second[back]], axis=1)


def carry(features: Bools, match: Match, at_least: float) -> Bools:
    """A set of features of `a`, as the set of features of `b` that correspond to them (`mutual`).

    `features` is [features of a], the result [features of b]; features without a counterpart are lost.
    """
    pairs = mutual(match, at_least)
    carried = np.zeros(len(match.best_ba), np.bool_)
    carried[pairs[features[pairs[:, 0]], 1]] = True
    return carried


class _Columns(NamedTuple):
    """Columns scaled so that r of two is their dot product minus n x (product of their means)."""

    ids: NDArray[np.int64]  # [columns], features that can be matched
    entries: csc_array  # [texts, columns]; not centred, so that zeros stay zeros
    means: NDArray[np.float64]  # [columns]


def _unit_columns(pooled: Pooled, min_active: int) -> _Columns:
    from scipy.sparse import csc_array, csr_array

    n = pooled.n_texts
    values, indices = np.asarray(pooled.values[:], np.float64), np.asarray(pooled.indices[:])
    x = csc_array(csr_array((values, indices, np.asarray(pooled.indptr)), shape=(n, pooled.n_features)))
    often = np.diff(x.indptr) >= min_active
    # A feature that fires on every text is shifted to a minimum of 0. Then a constant one has no entry left, and any
    # other has a zero, hence mean² <= (n − 1) · variance: nothing is lost to cancellation here or in `correlations`.
    x.data -= np.repeat(x.min(axis=0).toarray().ravel(), np.diff(x.indptr))
    x.eliminate_zeros()
    ids = np.flatnonzero(often & (np.diff(x.indptr) > 0))
    x = x[:, ids]
    means = x.sum(axis=0) / n
    scale = 1 / np.sqrt(x.power(2).sum(axis=0) - n * means**2)
    x.data *= np.repeat(scale, np.diff(x.indptr))
    return _Columns(ids, x, means * scale)


def _unmatched(width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return np.full(width, -1, np.int64), np.full(width, np.nan)
