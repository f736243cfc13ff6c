"""Rows of a table against each other over worlds x generations x training seeds, with intervals and corrected p.

The unit of replication is the world (or draw of the data): its own texts, test set, generations and training seeds.
Where there is one world only it is the generation, or the training seed, and the claim says that it is of one world.
Intervals are Student's t over the units' means (`eval.statistics.nested_mean`), claims are worded after Holm's
correction over all comparisons of the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from eval.statistics import Estimate, holm, verdict
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Trial
from experiments.harness.nested import LEVELS, REACH, UNITS, Place, cell_of, replicated
from experiments.harness.results import Cell, Table
from experiments.harness.tables import TITLES, number, table
from experiments.harness.views import Value, by_method
from experiments.tasks import TASKS
from experiments.tasks.base import Task

__all__ = ["Comparison", "Numbers", "Place", "cell_of", "claims_table", "compare", "comparisons", "sentence"]

Numbers = dict[str, dict[Place, float]]  # by row, in the unit of the table
VERDICTS = {
    "more": "{ours} more than {other}",
    "less": "{ours} less than {other}",
    "not told apart": "{ours} and {other} not told apart",
}


@dataclass(frozen=True)
class Comparison:
    """One row less another one, on one task, in points."""

    task: str
    ours: str
    other: str
    differences: Mapping[Place, float] = field(repr=False)
    level: str  # of the units that the interval is over
    estimate: Estimate | None  # None of a single number, of which nothing follows
    corrected: float  # p after Holm's correction over all comparisons; nan of a single number

    @property
    def mean(self) -> float:
        return fmean(replicated(self.differences).means)


def numbers_of(records: Iterable[Record], task: Task, row: Callable[[Trial], str] = by_method) -> Numbers:
    """The task's number by row, world, generation and training seed."""
    return values_of((record for record in records if record.trial.task == task.name), number(task), row)


def values_of(records: Iterable[Record], value: Value, row: Callable[[Trial], str] = by_method) -> Numbers:
    """A number of the records by row, world, generation and training seed."""
    found = Numbers()
    for record in records:
        trial, held = record.trial, value.of(record)
        if held is not None:
            found.setdefault(row(trial), {})[trial.data_seed, trial.generation, trial.seed or 0] = held
    return found


def comparisons(numbers: Mapping[str, Numbers], ours: str) -> list[Comparison]:
    """`ours` less every other row of each task, with Holm's correction over all of them."""
    return compare(numbers, [(task, ours, other) for task, rows in numbers.items() for other in rows if other != ours])


def compare(numbers: Mapping[str, Numbers], pairs: Iterable[tuple[str, str, str]]) -> list[Comparison]:
    """(task, row, other row): the differences at the places that both have, with Holm's correction over all pairs.

    Pairs of which a row is not there are left out.
    """
    found: list[tuple[str, str, str, Mapping[Place, float], str, Estimate | None]] = []
    for task, ours, other in pairs:
        mine, theirs = numbers[task].get(ours, {}), numbers[task].get(other, {})
        if differences := {place: mine[place] - theirs[place] for place in theirs if place in mine}:
            held = replicated(differences)
            found.append((task, ours, other, differences, held.level, held.estimate()))
    corrected = iter(holm([estimate.p for *_, estimate in found if estimate is not None]))
    return [Comparison(*entry, math.nan if entry[-1] is None else next(corrected)) for entry in found]


def sentence(compared: Comparison, names: Mapping[str, str] = TITLES) -> str:
    """What a comparison allows to say; `names` are what rows are called."""
    ours, other = (names.get(row, row) for row in (compared.ours, compared.other))
    found = compared.estimate
    if found is None:
        return f"{ours} less {other}: {compared.mean:+.1f} of a single run, of which nothing follows"
    low, high = found.interval
    said = VERDICTS[verdict(found, compared.corrected)].format(ours=ours, other=other)
    spread = ", ".join(f"{level} {value:.1f}" for level, value in found.spread.items())
    reach = REACH[compared.level]
    over = f" over {found.worlds} {UNITS[compared.level]}s {reach}".rstrip() if reach else ""
    return (
        f"{said}: {found.mean:+.1f} [{low:+.1f}, {high:+.1f}]{over}, p {found.p:.3f}, after Holm "
        f"{compared.corrected:.3f}; spread by {spread}"
    )


def claims_table(
    run: RunConfig,
    compared: Sequence[Comparison],
    title: str,
    kinds: Sequence[labels.Kind],
    names: Mapping[str, str] = TITLES,
    tasks: Mapping[str, str] | None = None,
) -> Table:
    """Every comparison as a row: difference, p, p after Holm, and what each level adds to the spread.

    `names` are what rows are called, `tasks` what the columns compared are; None: by their titles.
    """
    called = {name: task.title for name, task in TASKS.items()} if tasks is None else tasks
    cells: list[Cell] = []
    rows: dict[str, str] = {}
    for c in compared:
        row, found = f"{c.task}/{c.ours}/{c.other}", c.estimate
        rows[row] = f"{called[c.task]}: {names.get(c.ours, c.ours)} minus {names.get(c.other, c.other)}"
        bounds = None if found is None else found.interval
        cells.append(Cell(row, "difference", c.mean, None, 1, (), (c.mean,), "points", interval=bounds))
        if found is not None:
            told = {"p": (found.p, "p"), "holm": (c.corrected, "p")}
            told |= {level: (value, "points") for level, value in found.spread.items()}
            cells += [Cell(row, column, value, None, 1, (), (value,), unit) for column, (value, unit) in told.items()]
    units = " and ".join(dict.fromkeys(f"{UNITS[c.level]}s {REACH[c.level]}".rstrip() for c in compared if c.estimate))
    spread = {level: f"spread by {UNITS[level]}" for level in LEVELS}
    aid = f"In brackets the 95 % interval over {units}. Spread: standard deviation that a level adds by itself."
    return table(
        run, "claims", title, list(rows), ["difference", "p", "holm", *LEVELS], cells,
        {**rows, "holm": "p after Holm", **spread},
        kinds=kinds, aid=aid if units else "Of single runs, of which nothing follows.",
    )  # fmt: skip
