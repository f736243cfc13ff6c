"""Which features a corpus activates, which are missing, and how much of them a generated set covers.

Sets and counts over `fac.pooled.Pooled` matrices, which are read in chunks, so that memory does not grow with the
number of texts.

Everything starts from counts, `counts[t, i]` = number of texts with g_i(x) > cut of threshold t. A corpus is read once
for all thresholds; the functions after that take one threshold's row [n_features] (those written with `...` also
take all rows at once).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fac.errors import FacError
from fac.pooled import Pooled

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]
Floats = NDArray[np.float32]

BLOCK = 1 << 16  # entries that are binned together: as many as caches hold


@dataclass(frozen=True)
class Threshold:
    """The activation threshold delta of eq. 4: absolute (paper), or a fraction of each feature's anchor maximum."""

    value: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise FacError(f"A threshold cannot be {self.value}: give a number >= 0.")
        if self.relative and self.value >= 1:
            raise FacError(f"No activation exceeds {self} of its feature: give a relative threshold below 1.")

    def __str__(self) -> str:
        return f"{float(self.value)}×max" if self.relative else str(float(self.value))

    @classmethod
    def parse(cls, text: str | float) -> Threshold:
        """Read "0.5" (absolute), or "0.5max" or "0.5×max" (relative); `parse(str(t)) == t`. Raises FacError."""
        found = re.fullmatch(r"\s*(.+?)\s*(×?\s*max)?\s*", str(text))
        try:
            value = float(found[1]) if found else math.nan
        except ValueError:
            value = math.nan
        if found is None or math.isnan(value):
            raise FacError(
                f"'{text}' is not a threshold: write 0.5 (absolute) or 0.5max (share of the anchor maximum)."
            )
        return cls(value, relative=found[2] is not None)

    def cut(self, anchor_max: Floats) -> Floats:
        """Per-feature cut; shape [n_features]. Feature i is active in x iff g_i(x) > cut[i].

        The relative cut of a feature that never fires on the anchor is 0.
        """
        anchor_max = np.asarray(anchor_max, dtype=np.float32)
        return anchor_max * np.float32(self.value) if self.relative else np.full_like(anchor_max, self.value)


class Grid(NamedTuple):
    """Thresholds and their cuts, row by row."""

    thresholds: list[Threshold]
    cuts: Floats  # [n_thresholds, n_features]


def threshold_grid(absolute: Sequence[float], relative: Sequence[float], anchor_max: Floats) -> Grid:
    """Absolute thresholds, then relative ones. `anchor_max` [n_features] = `Pooled.maxima()` of the anchor."""
    thresholds = [Threshold(v) for v in absolute] + [Threshold(v, relative=True) for v in relative]
    cuts = [threshold.cut(anchor_max) for threshold in thresholds]
    return Grid(thresholds, np.array(cuts, dtype=np.float32).reshape(len(cuts), len(anchor_max)))


def counts(pooled: Pooled, cuts: Floats) -> Counts:
    """Number of texts that activate each feature, for all thresholds in one pass.

    `cuts` and the result are [n_thresholds, n_features]. Raises FacError if `cuts` are for another SAE width.
    """
    _check_width(pooled, cuts)
    tally = _Tally(cuts)
    for rows in pooled.chunks(tally.entries):
        tally.add(rows.indices, rows.values)
    return tally.counts()


def own_counts(pooled: Pooled, written_for: NDArray[np.integer], cuts: Floats) -> Counts:
    """Number of texts WRITTEN FOR each feature that activate it, for all thresholds in one pass.

    `written_for` [n_texts] is the feature id each text was written for (-1: for none). The result is shaped like that
    of `counts`, so `covered_missing` of either tells coverage by a feature's own samples from coverage by any sample.
    """
    _check_width(pooled, cuts)
    if len(written_for) != pooled.n_texts:
        raise ValueError(f"written_for has {len(written_for)} entries for {pooled.n_texts} texts")
    tally = _Tally(cuts)
    for rows in pooled.chunks(tally.entries):
        own = rows.indices == written_for[rows.row_of_entry()]
        tally.add(rows.indices[own], rows.values[own])
    return tally.counts()


def mean_activation(pooled: Pooled) -> NDArray[np.float64]:
    """Mean of g_i over all texts, zeros included; shape [n_features]. Raises FacError if there is no text."""
    if not pooled.n_texts:
        raise FacError("The corpus has no text, so it has no mean activation: give it at least one.")
    total = np.zeros(pooled.n_features)
    for rows in pooled.chunks():
        total += np.bincount(rows.indices, weights=rows.values, minlength=pooled.n_features)
    return total / pooled.n_texts


def active_features(counts: Counts, relevant: Bools) -> Bools:
    """F(P) of eq. 5: relevant features that at least one text activates. Shapes [..., n_features]."""
    return relevant & (counts > 0)


def missing_features(anchor_counts: Counts, seed_counts: Counts, relevant: Bools) -> Bools:
    """F_miss of eq. 6: relevant features active on the anchor and not in the seed data. Shapes [..., n_features]."""
    return active_features(anchor_counts, relevant) & (seed_counts == 0)


class Fac(NamedTuple):
    """Feature Activation Coverage, as fractions (the paper prints percent), with features weighted three ways.

    The paper's Table 11 names the weights ("share of samples activating", "mean activation") but gives no formula.
    Ours: each feature's weight is taken from the ANCHOR, and the score is weight covered / weight to cover, so that
    a feature which is frequent (or strong) on the anchor counts more.
    """

    covered: int  # number of features in the numerator
    total: int  # number of features in the denominator
    binary: float  # every feature weighs 1 (default of the paper): covered / total
    frequency: float  # weight = share of anchor texts that activate the feature
    magnitude: float  # weight = mean activation over all anchor texts


def fac_ratio(
    anchor_counts: Counts, generated_counts: Counts, relevant: Bools, anchor_mean: NDArray[np.float64]
) -> Fac:
    """FAC as defined: |F(Q)| / |F(P)| (eq. 5), F(Q) being all relevant features active in the generated set.

    It exceeds 1 when the generated set activates more relevant features than the anchor; features that the anchor
    does not activate weigh 0 in `frequency`, and in `magnitude` only their activation below the threshold.
    All arguments are [n_features]; `anchor_mean` is `mean_activation` of the anchor. Raises FacError if F(P) is empty.
    """
    anchor = active_features(anchor_counts, relevant)
    if not anchor.any():
        raise FacError("No relevant feature passes the threshold on the anchor corpus: lower the threshold.")
    return _share(active_features(generated_counts, relevant), anchor, anchor_counts, anchor_mean)


def covered_missing(
    missing: Bools, generated_counts: Counts, anchor_counts: Counts, anchor_mean: NDArray[np.float64]
) -> Fac:
    """FAC as the paper's tables print it (Tables 6, 10, 11): the share of F_miss that the generated set activates.

    All arguments are [n_features]. Pass `counts` of the generated set for coverage by any sample, `own_counts` for
    coverage by the samples written for the feature. Raises FacError if nothing is missing.
    """
    if not missing.any():
        raise FacError(
            "No feature is missing from the seed data at this threshold, so there is nothing to cover: "
            "choose another threshold or a larger anchor corpus."
        )
    return _share(missing & (generated_counts > 0), missing, anchor_counts, anchor_mean)


class Overlap(NamedTuple):
    """How two feature sets agree."""

    both: int
    only_first: int
    only_second: int
    jaccard: float  # |A ∩ B| / |A ∪ B|; 1 for two empty sets (Table 6 prints it for F_miss)


def overlap(first: Bools, second: Bools) -> Overlap:
    """Compare two sets of features, both [n_features]."""
    both, union = int((first & second).sum()), int((first | second).sum())
    return Overlap(both, int(first.sum()) - both, int(second.sum()) - both, both / union if union else 1.0)


class Interval(NamedTuple):
    """A score with its bootstrap interval; `bias` = mean of the replicates − point (<= 0, see `bootstrap`)."""

    point: float
    low: float
    high: float
    bias: float


class Bootstrap(NamedTuple):
    """Intervals of both readings of the binary FAC."""

    ratio: Interval
    covered_missing: Interval


def bootstrap(
    generated: Pooled,
    cut: Floats,
    *,
    anchor: Bools,
    missing: Bools,
    relevant: Bools,
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Percentile intervals over the generated texts, given anchor and seed data, for one threshold, in one pass.

    Poisson bootstrap: text t is in replicate b iff Poisson(1) > 0, whether a feature is covered depending on nothing
    else; the draws depend on (seed, t, b) alone. A replicate holds about 63 % of the distinct texts, so it covers
    less than the whole set does (most for features that a single text covers): the raw percentiles lie below the
    point, often all of them. So the replicates are shifted by their bias before the percentiles are read.
    (Simulated with 100 independent texts and mostly rare features, the 95 % interval held the expected coverage in 91 %
    of 400 worlds, the raw percentiles in under 1 %.)

    `cut`, `anchor` = F(P), `missing` = F_miss and `relevant` are [n_features]. Memory: n_features · replicates bits.
    Raises FacError if F(P) or F_miss is empty or the SAE widths differ.
    """
    _check_width(generated, cut)
    if not anchor.any() or not missing.any():
        raise FacError("F(P) or F_miss is empty at this threshold, so FAC has no interval: choose another threshold.")
    wanted = relevant | missing
    seen = np.zeros(generated.n_features, dtype=np.bool_)
    covers = np.zeros((generated.n_features, -(-replicates // 8)), dtype=np.uint8)  # bit b of row i: b covers i
    open_features = wanted.copy()  # those that some replicate does not cover yet
    for rows in generated.chunks(1 << 18):
        active = np.flatnonzero(open_features[rows.indices] & (rows.values > cut[rows.indices]))
        if not len(active):
            continue
        active = active[np.argsort(rows.indices[active], kind="stable")]
        features, starts = np.unique(rows.indices[active], return_index=True)
        present = _presence(seed, rows.first, len(rows.indptr) - 1, covers.shape[1])
        texts = rows.row_of_entry()[active] - rows.first
        covers[features] |= np.bitwise_or.reduceat(present[texts], starts, axis=0)
        seen[features] = True
        open_features[features] = (covers[features] != 0xFF).any(axis=1)

    def interval(among: Bools, total: int) -> Interval:
        point = int((seen & among).sum())
        drawn = np.unpackbits(covers[among], axis=1, count=replicates).sum(axis=0, dtype=np.int64)
        bias = float(drawn.mean()) - point
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.clip(np.quantile(drawn - bias, tails), 0, among.sum()) / total
        return Interval(point / total, float(low), float(high), bias / total)

    return Bootstrap(interval(relevant, int(anchor.sum())), interval(missing, int(missing.sum())))


def rarefaction(counts: Counts, n_texts: int, sizes: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Expected number of features that m texts, drawn without replacement from the corpus, activate; per m in `sizes`.

    Ecology's rarefaction curve (Hurlbert 1971): the sum over features of 1 − C(n − c_i, m) / C(n, m). `counts`
    [n_selected] holds the number of texts c_i of each feature to be counted, e.g. `counts(...)[t][missing]`.
    """
    m = np.asarray(sizes, dtype=np.float64)[:, None]
    if m.size and not 0 <= m.min() <= m.max() <= n_texts:
        raise ValueError(f"sizes must lie between 0 and the number of texts, {n_texts}")
    c, features_with_c = np.unique(counts, return_counts=True)
    rest = np.maximum(n_texts - c - m, 0)  # where n − c < m, every draw activates the feature
    from scipy.special import gammaln

    log_unseen = gammaln(n_texts - c + 1) - gammaln(rest + 1) - gammaln(n_texts + 1) + gammaln(n_texts - m + 1)
    unseen = np.where(n_texts - c >= m, np.exp(log_unseen), 0.0)
    return ((1 - unseen) * features_with_c).sum(axis=1)


def _check_width(pooled: Pooled, cuts: Floats) -> None:
    if cuts.shape[-1] != pooled.n_features:
        raise FacError(
            f"The thresholds are for {cuts.shape[-1]} features but the texts were measured with {pooled.n_features}: "
            f"measure all corpora with the same SAE."
        )


class _Tally:
    """Entries by feature and by how many of the feature's cuts they exceed: each is binned once for all thresholds."""

    def __init__(self, cuts: Floats) -> None:
        self._cuts = cuts  # [n_thresholds, n_features]
        self._bins = np.zeros(cuts.shape[1] * (len(cuts) + 1), dtype=np.int64)
        self.entries = max(
            1 << 20, 4 * len(self._bins)
        )  # of a chunk, so that adding up the bins costs little beside it

    def add(self, indices: NDArray[np.int32], values: Floats) -> None:
        cuts = [row[0] if (row == row[:1]).all() else row for row in self._cuts if len(row)]  # a number: for all alike
        exceeded = np.empty(BLOCK, np.min_scalar_type(len(cuts)))
        keys = np.empty(len(indices), np.int64)
        for start in range(0, len(indices), BLOCK):
            i, g, key = (array[start : start + BLOCK] for array in (indices, values, keys))
            above = exceeded[: len(i)]
            above[:] = 0
            for cut in cuts:
                above += (g > (cut.take(i, mode="clip") if cut.ndim else cut)).view(np.uint8)
            np.multiply(i, len(self._cuts) + 1, out=key, casting="unsafe")
            key += above
        self._bins += np.bincount(keys, minlength=len(self._bins))

    def counts(self) -> Counts:
        """Entries above each cut; shape [n_thresholds, n_features]."""
        bins = self._bins.reshape(-1, len(self._cuts) + 1)
        above = bins[:, ::-1].cumsum(axis=1)[:, -2::-1].T  # [n, n_features]: entries that exceed more than n cuts
        rank = np.argsort(np.argsort(self._cuts, axis=0, kind="stable"), axis=0)
        return np.take_along_axis(above, rank, axis=0)


def _share(part: Bools, whole: Bools, anchor_counts: Counts, anchor_mean: NDArray[np.float64]) -> Fac:
    """Three weightings of part / whole. (Dividing the frequencies by the number of texts would cancel out.)"""
    shares = (float(w[part].sum() / w[whole].sum()) for w in (anchor_counts, anchor_mean))
    covered, total = int(part.sum()), int(whole.sum())
    return Fac(covered, total, covered / total, *shares)


def _presence(seed: int, first: int, texts: int, width: int, block: int = 4096) -> NDArray[np.uint8]:
    """Bits [texts, width]: is text `first + r` in bootstrap replicate b? Each is 1 with probability 1 − 1/e.

    One 256-bit Philox block gives the eight 32-bit draws of one byte, so text t owns blocks t·width ... (t+1)·width
    of the stream, however the corpus is cut into chunks.
    """
    stream = np.random.Philox(seed)
    stream.advance(first * width)
    limit = np.uint32((1 - math.exp(-1)) * 2**32)
    out = np.empty((texts, width), dtype=np.uint8)
    for start in range(0, texts, block):
        size = min(block, texts - start)
        draws = stream.random_raw(size * width * 4).view(np.uint32).reshape(size, width * 8)
        out[start : start + size] = np.packbits(draws < limit, axis=1)
    return out
