"""How sure a number is: bootstrap over test items, intervals over worlds, Holm's correction.

Two kinds of uncertainty stand in a table. The items of a test are a sample: `resampled` draws them again, in the same
way for every row and seed, so that two rows can be compared draw by draw. And a whole experiment is one of many that
could have been run: another world (or draw of the data), another generation, another training seed. These are nested,
and `Nested` says what follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fac.errors import FacError

DRAWS = 1000  # resamplings of a test set
LEVEL = 0.95
CHUNK = 100  # draws worked on at once

Replicates = dict[str, NDArray[np.float64]]  # a metric in each resampling of the test items, [draws], by its name


class Interval(NamedTuple):
    """A 95 % interval, in the unit of what it is about."""

    low: float
    high: float


def resampled(strata: ArrayLike, draws: int = DRAWS, seed: int = 0) -> NDArray[np.uint16]:
    """How often each test item is drawn in each of `draws` bootstrap samples: shape [draws, items].

    `strata` [items] names the class, section or subset of each item: items are drawn among those of their own stratum,
    whose sizes thus stay what they are. Equal arguments give equal draws.
    """
    names = np.asarray(strata)
    counts = np.zeros((draws, len(names)), np.uint16)
    rng = np.random.default_rng(seed)
    for name in np.unique(names):
        (items,) = np.nonzero(names == name)
        counts[:, items] = rng.multinomial(len(items), np.full(len(items), 1 / len(items)), size=draws)
    return counts


def resampled_means(values: ArrayLike, counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean of `values` [items] in each bootstrap sample of `counts` [draws, items]; shape [draws]."""
    return counts @ np.asarray(values, np.float64) / counts.sum(axis=1)


def resampled_auprc(labels: ArrayLike, scores: ArrayLike, counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Average precision in each bootstrap sample; shape [draws].

    Equals sklearn's `average_precision_score(labels, scores, sample_weight=counts[i])`, ties included, from one sort
    for all draws. `labels` [items] are 0 or 1.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked = np.asarray(scores, np.float64)[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last of each run of equal scores
    positive = np.asarray(labels, np.float64)[order]
    parts = []
    for start in range(0, len(counts), CHUNK):
        drawn = counts[start : start + CHUNK, order].astype(np.float64)
        named = drawn.cumsum(axis=1)[:, ends]
        right = (drawn * positive).cumsum(axis=1)[:, ends]
        gained = np.diff(right, axis=1, prepend=0)  # recall, but for its denominator
        precision = np.divide(right, named, out=np.zeros_like(right), where=named > 0)
        parts.append((gained * precision).sum(axis=1) / right[:, -1])
    return np.concatenate(parts)


def interval(replicates: ArrayLike, level: float = LEVEL) -> Interval:
    """Percentile interval of bootstrap `replicates` [draws]."""
    low, high = np.quantile(np.asarray(replicates, np.float64), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class Estimate:
    """A mean over worlds with its interval; `p` is two-sided, against a mean of nothing (0)."""

    mean: float
    interval: Interval
    p: float
    worlds: int
    spread: Mapping[str, float]  # standard deviation that each level adds by itself: "world", "generation", "seed"


def nested_mean(values: Mapping[tuple[int, int, int], float], level: float = LEVEL) -> Estimate:
    """The mean of a balanced nested design, with the world as the unit of replication.

    `values` holds one number per (world, generation, training seed). Every world has its own data, test set,
    generations and seeds, so whatever varies below the world varies between the worlds' means too: Student's t over
    those means holds its level whatever the shares of the levels are (Searle, Casella and McCulloch, Variance
    Components, 1992, ch. 3.6). Resampling three worlds would not: a bootstrap of so few units is too narrow by a third
    and more. `spread` splits the variance by levels (expected mean squares, negative estimates as 0).

    Raises FacError for fewer than two worlds, or if a world lacks a generation or seed that another has.
    """
    worlds, generations = ({key[i] for key in values} for i in (0, 1))
    seeds = {key[2] for key in values}
    if len(worlds) < 2:
        raise FacError("An interval over worlds needs at least two of them: name more.")
    if len(values) != len(worlds) * len(generations) * len(seeds):
        raise FacError("Some world lacks a generation or a seed that another has: run them all.")
    table = np.array(
        [[[values[w, g, s] for s in sorted(seeds)] for g in sorted(generations)] for w in sorted(worlds)], np.float64
    )
    means = table.mean(axis=(1, 2))
    mean, error = float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))
    from scipy import stats

    half = float(stats.t.ppf((1 + level) / 2, len(means) - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, len(means) - 1)) if error > 0 else float(mean == 0)
    return Estimate(mean, Interval(mean - half, mean + half), p, len(means), _spread(table))


def _spread(table: NDArray[np.float64]) -> dict[str, float]:
    """Standard deviation of each level by itself, of [worlds, generations, seeds]; a level of one has none."""
    _, generations, seeds = table.shape
    within = table.var(axis=2, ddof=1).mean() if seeds > 1 else 0.0
    cells = table.mean(axis=2)
    between = (cells.var(axis=1, ddof=1).mean() - within / seeds) if generations > 1 else 0.0
    above = cells.mean(axis=1).var(ddof=1) - max(between, 0.0) / generations - within / (seeds * generations)
    found = {"world": above, "generation": between, "seed": within}
    return {name: float(np.sqrt(max(variance, 0.0))) for name, variance in found.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for as many comparisons as there are (Holm, 1979), in the given order."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in np.asarray(multipletests(list(p_values), method="holm")[1])] if p_values else []


def verdict(estimate: Estimate, corrected_p: float, level: float = LEVEL) -> str:
    """ "more", "less" or "not told apart": what a corrected comparison allows to say."""
    if corrected_p > 1 - level:
        return "not told apart"
    return "more" if estimate.mean > 0 else "less"
