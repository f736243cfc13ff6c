"""What holds beyond one world: methods over worlds x generations x training seeds, with intervals and corrected p.

    fac experiment=worlds [experiment.worlds=[0,1,2]] [experiment.generations=[42,43]]

The unit of replication is the world (or draw of the data): its own texts, test set, generations and training seeds.
Intervals are Student's t over the worlds' means (`eval.statistics.nested_mean`), claims are worded after Holm's
correction over all comparisons of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, stdev
from typing import Literal

from eval.statistics import Estimate, holm, nested_mean, verdict
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Record, Results, grid, possible
from experiments.harness.graph import Graph
from experiments.harness.report import Page
from experiments.harness.results import Cell, Table
from experiments.harness.tables import BASELINE, TITLES, number, place, table, task_notes
from experiments.tasks import TASKS
from fac.errors import FacError

Place = tuple[int, int, int]  # world, generation, training seed
Numbers = dict[str, dict[Place, float]]  # by method, in percent
LEVELS = ("world", "generation", "seed")
VERDICTS = {"more": "{ours} more than {other}", "less": "{ours} less than {other}", "not told apart": "not told apart"}


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)
    methods: tuple[str, ...] = (BASELINE, "full", "random_features", "fac_one_step", "fac")
    ours: str = "fac"  # every other method is compared with this one
    test: Literal["test", "validation"] = "test"
    worlds: tuple[int, ...] = (0, 1, 2)  # the lab's worlds; of data sets: draws
    generations: tuple[int, ...] = (42, 43)  # seeds of writing

    def __post_init__(self) -> None:
        if self.ours not in self.methods or len(set(self.methods)) < max(len(self.methods), 2):
            raise FacError(f"methods needs {self.ours} (experiment.ours) and at least one other, each only once.")
        if len(set(self.worlds)) < max(len(self.worlds), 2):
            raise FacError("worlds needs at least two for an interval over them, each only once.")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method on every task in every world and generation, one training per seed."""
    o: Options = run.experiment
    trials = grid(run, task=o.tasks, method=o.methods, data_seed=o.worlds, generation=o.generations, test=o.test)
    return Plan(possible(run, trials), partial(page, run))


@dataclass(frozen=True)
class Comparison:
    """Our method less another one, on one task, in points."""

    task: str
    other: str
    differences: Mapping[Place, float] = field(repr=False)
    estimate: Estimate
    corrected: float  # p after Holm's correction over all comparisons


def numbers_of(records: Iterable[Record], task: str) -> Numbers:
    """The task's number by method, world, generation and training seed."""
    value, found = number(TASKS[task]), Numbers()
    for record in records:
        trial, held = record.trial, value.of(record)
        if trial.task == task and held is not None:
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


def page(run: RunConfig, results: Results) -> Page:
    """The table, and every comparison with what it allows to say."""
    o: Options = run.experiment
    numbers = {task: numbers_of(results.records, task) for task in o.tasks}
    compared = comparisons(numbers, o.ours)
    kinds: list[labels.Kind] = [labels.kind_of(run, task, [run.model.name]) for task in o.tasks]
    main = _main(run, results.records, numbers, compared, kinds)
    return Page(
        title=main.title,
        subtitle="Every method over worlds, generations and training seeds.",
        tables=[main, _claims(run, compared, kinds)],
        facts=[(f"{c.task}: {TITLES[o.ours]} and {TITLES[c.other]}", sentence(c, o.ours)) for c in compared],
    )


def _main(
    run: RunConfig,
    records: Sequence[Record],
    numbers: Mapping[str, Numbers],
    compared: Sequence[Comparison],
    kinds: Sequence[labels.Kind],
) -> Table:
    o: Options = run.experiment
    cells = [cell_of(row, task, values) for task, methods in numbers.items() for row, values in methods.items()]
    for task, methods in numbers.items():
        for row in (row for row in methods if BASELINE in methods and row != BASELINE):
            gain = {place: value - methods[BASELINE][place] for place, value in methods[row].items()}
            cells.append(cell_of(row, f"{task}_gain", gain, "points"))
    cells += [cell_of(c.other, f"{c.task}_minus", c.differences, "points") for c in compared]
    worlds, generations = (", ".join(map(str, values)) for values in (o.worlds, o.generations))
    names = {task: f"{TASKS[task].title} {TASKS[task].metric_title}, {run.tasks[task].protocol}" for task in o.tasks}
    names |= {f"{task}_gain": "minus Baseline" for task in o.tasks}
    names |= {f"{task}_minus": f"{TITLES[o.ours]} minus this row" for task in o.tasks}
    seeds = ", ".join(map(str, run.seeds.training))
    return table(
        run,
        "worlds",
        f"Main results over {len(o.worlds)} {place(run, o.tasks)}s, {run.model.name}",
        o.methods,
        [f"{task}{kind}" for task in o.tasks for kind in ("", "_gain", "_minus")],
        cells,
        names,
        [
            f"A world's mean is over generations {generations} and training seeds {seeds}.",
            f"Scored on the {o.test} set of each.",
            *task_notes(run, records, o.tasks),
            *(f"{c.task}, against {TITLES[c.other]}: {sentence(c, o.ours)}." for c in compared),
        ],
        kinds,
        aid=f"Mean ± sample standard deviation over the means of {place(run, o.tasks)}s {worlds}; in brackets its "
        "95 % interval, Student's t with the world as the unit.",
    )


def _claims(run: RunConfig, compared: Sequence[Comparison], kinds: Sequence[labels.Kind]) -> Table:
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
    ours: str = run.experiment.ours
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


EXPERIMENT = Experiment("worlds", "What holds over worlds, generations and training seeds", plan, Options)
