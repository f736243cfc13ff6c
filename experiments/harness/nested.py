"""Numbers that were had again: in several worlds, of several generations, with several training seeds.

The unit of replication is the highest of these levels that has more than one: what lies below it is averaged within it.
An interval over training seeds alone says nothing of other worlds, and is told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from eval.statistics import Estimate, nested_mean
from experiments.harness.experiment import Trial
from experiments.harness.results import Cell

Place = tuple[int, int, int]  # world, generation, training seed
LEVELS = ("world", "generation", "seed")
UNITS = {"world": "world", "generation": "generation", "seed": "training seed"}
REACH = {  # what an interval over a level does not reach
    "world": "",
    "generation": "of one world",
    "seed": "of one world and one generation",
}


@dataclass(frozen=True)
class Replicates:
    """Numbers by the unit that they are replicated over."""

    level: str  # of LEVELS
    values: Mapping[Place, float]

    @property
    def units(self) -> tuple[int, ...]:
        """The worlds, generations or training seeds."""
        at = LEVELS.index(self.level)
        return tuple(sorted({place[at] for place in self.values}))

    @property
    def means(self) -> tuple[float, ...]:
        """Of each unit."""
        at = LEVELS.index(self.level)
        return tuple(fmean(v for place, v in self.values.items() if place[at] == unit) for unit in self.units)

    def estimate(self) -> Estimate | None:
        """The mean over the units with its interval; None of a single one. Raises FacError if some unit lacks a number.

        `spread` has the levels that lie within a unit, and the unit's.
        """
        if len(self.units) < 2:
            return None
        at = LEVELS.index(self.level)
        found = nested_mean({(*place[at:], *(0,) * at): value for place, value in self.values.items()})  # type: ignore[misc]
        spread = dict(zip(LEVELS[at:], found.spread.values(), strict=False))
        return replace(found, spread=spread)


def replicated(values: Mapping[Place, float]) -> Replicates:
    """The values by their highest level that has several."""
    for at, level in enumerate(LEVELS):
        if len({place[at] for place in values}) > 1:
            return Replicates(level, values)
    return Replicates(LEVELS[-1], values)


def cell_of(row: str, column: str, values: Mapping[Place, float], unit: str = "percent", **more: Any) -> Cell:
    """The mean over the units with its interval; the values are the units' means."""
    found = replicated(values)
    estimate, means = found.estimate(), found.means
    std = stdev(means) if len(means) > 1 else None
    bounds = None if estimate is None else estimate.interval
    return Cell(row, column, fmean(means), std, len(means), found.units, means, unit, interval=bounds, **more)


def is_nested(trials: Iterable[Trial]) -> bool:
    """Whether numbers of these trials are of several worlds or generations."""
    return len({(trial.data_seed, trial.generation) for trial in trials}) > 1


def reading_aid(trials: Iterable[Trial], place: str = "world") -> str | None:
    """What `±` and brackets are in a table of such trials; None where the table's own says it, of training seeds."""
    trials = list(trials)
    if not is_nested(trials):
        return None
    worlds, generations, seeds = (
        sorted({getattr(trial, part) for trial in trials if getattr(trial, part) is not None})
        for part in ("data_seed", "generation", "seed")
    )
    told = {f"{place}s": worlds, "generations": generations, "training seeds": seeds}
    of = ", ".join(f"{name} {' '.join(map(str, held))}" for name, held in told.items() if held)
    unit = place if len(worlds) > 1 else "generation"
    return (
        f"Over {of}. Mean ± sample standard deviation over the means of {unit}s; in brackets its 95 % interval, "
        f"Student's t with the {unit} as the unit."
    )
