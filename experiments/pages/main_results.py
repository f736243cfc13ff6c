"""What `experiments.main_results` shows: the table of all methods, and instruction following by seed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Results, matching
from experiments.harness.paper_numbers import PaperNumber
from experiments.harness.report import Figure, Page
from experiments.harness.results import Table
from experiments.harness.tables import TITLES, number
from experiments.harness.views import Column, bars, sweep_figure
from experiments.pages import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.main_results import Options


def page(run: RunConfig, results: Results) -> Page:
    """The table, every metric behind it, and what was written."""
    o: Options = run.experiment

    def figures(main: Table) -> list[Figure]:
        by_seed = [by_training_seed(run, results.records, o.methods)] if "instruction" in o.tasks else []
        return [bars(main, o.methods, o.tasks, "Each task by method"), *by_seed]

    shown = rows.Shown(
        "Main results", "Table 1 of the paper: what each method's data teach, task by task.", figures=figures
    )
    return rows.page(
        run, results, "main_results", o.tasks, rows.of_methods(o.methods, paper=partial(printed, run)), shown
    )


def printed(run: RunConfig, task: str, row: str) -> PaperNumber | None:
    """Table 1's number or, where heads are trained, Table 13's."""
    return labels.table_1(run.task(task), row, run.tasks[task].train)


def by_training_seed(run: RunConfig, records: Sequence[Record], methods: Sequence[str]) -> Figure:
    """Fig. 10: how far instruction following hangs on the training seed."""
    task = run.task("instruction")
    columns = [Column(name, TITLES[name], number(task), partial(_is, name)) for name in methods]
    held = [record for record in matching(records, task=task.name) if record.trial.seed is not None]
    title = f"{task.title} by training seed (Fig. 10)"
    return sweep_figure(held, lambda trial: float(trial.seed or 0), columns, title, "training seed", task.metric_title)


def _is(method: str, trial: object) -> bool:
    return getattr(trial, "method", None) == method
