"""What `experiments.worlds` shows: every method over worlds, and ours against each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.comparisons import (
    Comparison,
    Numbers,
    cell_of,
    claims_table,
    comparisons,
    numbers_of,
    sentence,
)
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Results
from experiments.harness.report import Page
from experiments.harness.results import Table
from experiments.harness.tables import BASELINE, TITLES, place, table, task_notes

if TYPE_CHECKING:
    from experiments.worlds import Options


def page(run: RunConfig, results: Results) -> Page:
    """The table, and every comparison with what it allows to say."""
    o: Options = run.experiment
    numbers = {task: numbers_of(results.records, run.task(task)) for task in o.tasks}
    compared = comparisons(numbers, o.ours)
    kinds: list[labels.Kind] = [labels.kind_of(run, task, [run.model.name]) for task in o.tasks]
    main = _main(run, results.records, numbers, compared, kinds)
    return Page(
        title=main.title,
        subtitle="Every method over worlds, generations and training seeds.",
        tables=[main, claims_table(run, compared, f"{TITLES[o.ours]} against every other row", kinds)],
        facts=[(f"{c.task}: {TITLES[o.ours]} and {TITLES[c.other]}", sentence(c)) for c in compared],
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
    names = {
        task: f"{run.task(task).title} {run.task(task).metric_title}, {run.tasks[task].protocol}" for task in o.tasks
    }
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
            *(f"{c.task}, against {TITLES[c.other]}: {sentence(c)}." for c in compared),
        ],
        kinds,
        aid=f"Mean ± sample standard deviation over the means of {place(run, o.tasks)}s {worlds}; in brackets its "
        "95 % interval, Student's t with the world as the unit.",
    )
