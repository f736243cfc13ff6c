"""Points of a correlation: what a method came to in one world and generation, from the records of its trials.

A point's score is the mean over training seeds. Methods that no seed of writing changes (such as the seed data alone)
come to the same in every generation: that is one point. Coefficients and intervals: `eval.correlation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from eval.correlation import Coefficient, Correlated, Points, pearson, spearman
from experiments.harness.experiment import Record
from experiments.harness.paper_numbers import PaperNumber
from experiments.harness.report import Figure, Series
from experiments.harness.results import Cell
from experiments.harness.tables import TITLES, number
from experiments.tasks.base import Task
from fac.synthesis.methods import METHODS

# Of `Record.coverage`: both readings of FAC, and the ways to weigh features.
READINGS = {
    "any": "FAC: missing features covered",
    "own": "FAC: missing features covered by samples written for them",
    "ratio": "FAC ratio, |F(Q)| / |F(P)|",
}
COEFFICIENTS: Mapping[str, tuple[str, Coefficient]] = {
    "pearson": ("Pearson r", pearson),
    "spearman": ("Spearman ρ", spearman),
}
UNCERTAIN = (
    "In brackets: 95 % percentile interval of a bootstrap that draws {worlds}methods with all their points; with so "
    "few methods such intervals are too narrow, and hold the truth in about nine of ten cases."
)


@dataclass(frozen=True)
class Point:
    """One method in one world and generation."""

    world: int
    method: str
    generation: int
    score: float  # the task's number, mean over training seeds, in its unit
    numbers: Mapping[str, float] = field(default_factory=dict)  # what may go with it, by name

    @property
    def content(self) -> tuple[object, ...]:
        """What is the same for points of one method and world that are one."""
        return self.world, self.method, self.score, tuple(sorted(self.numbers.items()))


def points_of(
    records: Iterable[Record], task: Task, numbers: Callable[[Record], Mapping[str, float]] | None = None
) -> list[Point]:
    """The points of a task's records; `numbers` of a record are its coverage where nothing else is said."""
    value, held = number(task), dict[tuple[int, str, int], list[tuple[Record, float]]]()
    for record in records:
        trial, score = record.trial, value.of(record)
        if trial.task == task.name and score is not None:
            held.setdefault((trial.data_seed, trial.method, trial.generation), []).append((record, score))
    found = [
        Point(world, method, generation, fmean(score for _, score in of), dict((numbers or coverage_of)(of[0][0])))
        for (world, method, generation), of in held.items()
    ]
    return list({point.content: point for point in reversed(found)}.values())[::-1]


def coverage_of(record: Record) -> dict[str, float]:
    """FAC of a record in all readings and weights, in percent, at the threshold that synthesis used."""
    return {name: 100 * share for name, share in record.coverage.get("chosen", {}).items()}


def of_adding(points: Iterable[Point]) -> list[Point]:
    """The points of methods that add something: without the seed data alone, which covers nothing by definition."""
    return [point for point in points if METHODS[point.method].adds]


def pairs(points: Iterable[Point], name: str, given: str | None = None) -> Points:
    """The points that have a number of this name, as x, beside their scores; `given` is held constant."""
    held = [point for point in points if name in point.numbers and (given is None or given in point.numbers)]
    return Points(
        np.array([point.numbers[name] for point in held], np.float64),
        np.array([point.score for point in held], np.float64),
        np.array([point.world for point in held]),
        np.array([point.method for point in held]),
        None if given is None else np.array([point.numbers[given] for point in held], np.float64),
    )


def cell(row: str, column: str, found: Correlated, paper: PaperNumber | None = None) -> Cell | None:
    """A coefficient with its interval; None where there is none."""
    if not math.isfinite(found.value):
        return None
    made = Cell(row, column, found.value, None, found.points, (), (found.value,), "correlation", paper)
    return replace(made, interval=found.interval)


def told(r: Correlated, rho: Correlated) -> str:
    """Both coefficients with their intervals in one line."""

    def one(name: str, found: Correlated) -> str:
        ends = f" [{found.interval.low:.2f}, {found.interval.high:.2f}]" if found.interval else ""
        return f"{name} {found.value:.2f}{ends}"

    if not math.isfinite(r.value):
        return f"no correlation over {r.points} points: too few, or one of the two does not vary"
    return f"{one('r', r)}, {one('ρ', rho)}, over {r.points} points of {r.rows} methods"


def scatter(points: Sequence[Point], name: str, title: str, x_label: str, y_label: str, caption: str = "") -> Figure:
    """Each method's mean, with its name, and its points behind it."""
    held = [point for point in points if name in point.numbers]
    means = {
        method: (fmean(p.numbers[name] for p in of), fmean(p.score for p in of))
        for method in dict.fromkeys(point.method for point in held)
        for of in [[point for point in held if point.method == method]]
    }
    labels = [TITLES[method] for method in means]
    xs, ys = ([place[axis] for place in means.values()] for axis in (0, 1))
    each = Series(
        "by world and generation", [p.numbers[name] for p in held], [p.score for p in held], line=False, dashed=True
    )
    return Figure(
        title, x_label, y_label, [Series("a method's mean", xs, ys, labels=labels, line=False), each], caption
    )
