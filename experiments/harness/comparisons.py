"""One method against every other over worlds x generations x training seeds, with intervals and corrected p.

The unit of replication is the world (or draw of the data): its own texts, test set, generations and training seeds.
Intervals are Student's t over the worlds' means (`eval.statistics.nested_mean`), claims are worded after Holm's
correction over all comparisons of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from eval.statistics import Estimate, holm, nested_mean, verdict
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record
from experiments.harness.results import Cell, Table
from experiments.harness.tables import TITLES, number, table
from experiments.tasks import TASKS
from experiments.tasks.base import Task

Place = tuple[int, int, int]  # world, generation, training seed
Numbers = dict[str, dict[Place, float]]  # by method, in percent
LEVELS = ("world", "generation", "seed")
VERDICTS = {"more": "{ours} more than {other}", "less": "{ours} less than {other}", "not told apart": "not told apart"}


@dataclass(frozen=True)
class Comparison:
    """Our method less another one, on one task, in points."""

    task: str
    other: str
    differences: Mapping[Place, float] = field(repr=False)
    estimate: Estimate
    corrected: float  # p after Holm's correction over all comparisons


def numbers_of(records: Iterable[Record], task: Task) -> Numbers:
    """The task's number by method, world, generation and training seed."""
    value, found = number(task), Numbers()
    for record in records:
        trial, held = record.trial, value.of(record)
        if trial.task == task.name and held is not None:
            found.setdefault(trial.method, {})[trial.data_seed, trial.generation, trial.seed or 0] = held
    return found


def comparisons(numbers: Mapping[str, Numbers], ours: str) -> list[Comparison]:
    """`ours` less every other method of each task, with Holm's correction over all of them."""
    differences = {
        (task, other): {place: methods[ours][place] - held for place, held in values.items()}
        for task, methods in numbers.items()
        for other, values in methods.items()
        if other != ours
    }
    estimates = {key: nested_mean(found) for key, found in differences.items()}
    corrected = holm([estimate.p for estimate in estimates.values()])
    return [
        Comparison(task, other, differences[task, other], estimate, p)
        for ((task, other), estimate), p in zip(estimates.items(), corrected, strict=True)
    ]


def sentence(compared: Comparison, ours: str) -> str:
    """What a comparison allows to say."""
    found, (low, high) = compared.estimate, compared.estimate.interval
    said = VERDICTS[verdict(found, compared.corrected)].format(ours=TITLES[ours], other=TITLES[compared.other])
    spread = ", ".join(f"{level} {found.spread[level]:.1f}" for level in LEVELS)
    return (
        f"{said}: {found.mean:+.1f} [{low:+.1f}, {high:+.1f}], p {found.p:.3f}, after Holm {compared.corrected:.3f}; "
        f"spread by {spread}"
    )


def cell_of(row: str, column: str, values: Mapping[Place, float], unit: str = "percent") -> Cell:
    """The mean over worlds with its interval; the values are the worlds' means."""
    found = nested_mean(values)
    worlds = tuple(sorted({world for world, _, _ in values}))
    means = tuple(fmean(v for (at, _, _), v in values.items() if at == world) for world in worlds)
    return Cell(row, column, found.mean, stdev(means), len(worlds), worlds, means, unit, interval=found.interval)


def claims_table(run: RunConfig, compared: Sequence[Comparison], ours: str, kinds: Sequence[labels.Kind]) -> Table:
    """Every comparison as a row: difference, p, p after Holm, and what each level adds to the spread."""
    cells: list[Cell] = []
    for c in compared:
        row, found = f"{c.task}/{c.other}", c.estimate
        told = {"p": (found.p, "p"), "holm": (c.corrected, "p")}
        told |= {level: (found.spread[level], "points") for level in LEVELS}
        cells.append(
            Cell(
                row, "difference", found.mean, None, found.worlds, (), (found.mean,), "points", interval=found.interval
            )
        )
        cells += [Cell(row, column, value, None, 1, (), (value,), unit) for column, (value, unit) in told.items()]
    names = {f"{c.task}/{c.other}": f"{TASKS[c.task].title}: minus {TITLES[c.other]}" for c in compared}
    names |= {"holm": "p after Holm", **{level: f"spread by {level}" for level in LEVELS}}
    return table(
        run,
        "claims",
        f"{TITLES[ours]} against every other row",
        [f"{c.task}/{c.other}" for c in compared],
        ["difference", "p", "holm", *LEVELS],
        cells,
        names,
        kinds=kinds,
        aid="In brackets the 95 % interval over worlds. Spread: standard deviation that a level adds by itself.",
    )
