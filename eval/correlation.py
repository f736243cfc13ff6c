"""How two numbers of the same points go together, and how sure that is: r, ρ, partial correlation, bootstrap intervals.

A point is what one method came to in one world and generation. Points of one method and world are alike, and so are
those of one world; the bootstrap therefore draws worlds, and within each the methods (`resampled_points`), not points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.statistics import DRAWS, LEVEL, Interval, interval

FEWEST = 3  # points of a correlation, and rows of its interval
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """Numbers of the same points; all arrays are [points]."""

    x: Floats
    y: Floats
    worlds: NDArray[Any]  # the world of each point
    rows: NDArray[Any]  # its method
    given: Floats | None = None  # what a partial correlation holds constant

    def take(self, index: NDArray[np.intp], worlds: NDArray[np.intp]) -> Points:
        """The points of these indices, told to be of these worlds."""
        given = None if self.given is None else self.given[index]
        return Points(self.x[index], self.y[index], worlds, self.rows[index], given)

    def within_worlds(self) -> Points:
        """Each number less its mean over the world: what is left of a correlation when worlds differ in level."""
        given = None if self.given is None else centred(self.given, self.worlds)
        return Points(centred(self.x, self.worlds), centred(self.y, self.worlds), self.worlds, self.rows, given)


Coefficient = Callable[[Points], float]


class Correlated(NamedTuple):
    """A coefficient with its interval."""

    value: float  # NaN where there is none: fewer than three points, or one of the numbers does not vary
    interval: Interval | None  # None below three rows, or where most draws have no coefficient
    points: int
    rows: int  # methods


def pearson(points: Points) -> float:
    """Pearson's r of x and y; NaN where there is none."""
    return _r(points.x, points.y)


def spearman(points: Points) -> float:
    """Spearman's ρ: Pearson's r of the ranks, equal numbers sharing the mean of theirs. NaN where there is none."""
    from scipy.stats import rankdata

    return _r(rankdata(points.x), rankdata(points.y))


def partial(points: Points) -> float:
    """Pearson's r of what is left of x and y once `given` is accounted for linearly. NaN where there is none.

    (r_xy − r_xg r_yg) / √((1 − r_xg²)(1 − r_yg²)). Raises ValueError where nothing is given.
    """
    if points.given is None:
        raise ValueError("a partial correlation needs what is held constant")
    xy, xg, yg = _r(points.x, points.y), _r(points.x, points.given), _r(points.y, points.given)
    left = (1 - xg**2) * (1 - yg**2)
    return float((xy - xg * yg) / np.sqrt(left)) if left > 1e-12 else np.nan


def correlated(points: Points, coefficient: Coefficient, draws: int = DRAWS, seed: int = 0) -> Correlated:
    """A coefficient with its 95 % percentile interval over worlds and, within them, methods.

    Draws without a coefficient (one method only, say) are left out. Few rows make such intervals too narrow: simulated
    with one world and a true r of 0.8, they held it in 86 % of cases of 5 rows, 89 % of 8, 92 % of 15 and 93 % of 30;
    with three worlds of 5 rows each, whose levels differ, in 89 %, and in 92 % of what is left within worlds.
    """
    value, rows = coefficient(points), len(set(points.rows.tolist()))
    found = None
    if np.isfinite(value) and rows >= FEWEST:
        drawn = np.array([coefficient(one) for one in resampled_points(points, draws, seed)])
        held = drawn[np.isfinite(drawn)]
        found = interval(held, LEVEL) if 2 * len(held) > draws else None
    return Correlated(value, found, len(points.x), rows)


def resampled_points(points: Points, draws: int = DRAWS, seed: int = 0) -> Iterator[Points]:
    """Hierarchical bootstrap: as many worlds as there are, with replacement, and in each as many of its methods.

    A method comes with all its points of that world. A world that is drawn twice counts as two.
    """
    rng = np.random.default_rng(seed)
    held = [
        [np.flatnonzero((points.worlds == world) & (points.rows == row)) for row in np.unique(points.rows[at])]
        for world in np.unique(points.worlds)
        for at in [points.worlds == world]
    ]
    for _ in range(draws):
        copies = [_drawn(held[world], rng) for world in rng.integers(len(held), size=len(held))]
        names = np.repeat(np.arange(len(copies)), [len(copy) for copy in copies])
        yield points.take(np.concatenate(copies), names)


def centred(values: ArrayLike, groups: NDArray[Any]) -> Floats:
    """Values [points] less the mean of their group."""
    values = np.asarray(values, np.float64)
    _, group = np.unique(groups, return_inverse=True)
    return values - (np.bincount(group, values) / np.bincount(group))[group]


def _drawn(rows: Sequence[NDArray[np.intp]], rng: np.random.Generator) -> NDArray[np.intp]:
    """The points of as many rows as there are, drawn with replacement."""
    return np.concatenate([rows[row] for row in rng.integers(len(rows), size=len(rows))])


def _r(x: Floats, y: Floats) -> float:
    if len(x) < FEWEST:
        return np.nan
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    # of numbers that do not vary, rounding alone is left
    return float(np.clip(x @ y / size, -1, 1)) if min(np.abs(x).max(), np.abs(y).max()) > 1e-12 else np.nan
