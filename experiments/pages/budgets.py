"""What `experiments.budgets` shows: a row for each method and budget, what was written, and how rows differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results, Trial
from experiments.harness.report import Figure, Page
from experiments.harness.tables import TITLES, found_missing, number, written
from experiments.harness.views import Column, sweep_figure
from experiments.pages import rows

if TYPE_CHECKING:
    from experiments.budgets import Options

COMPARED = ("select_fac", "fac")  # with every other row of their budget, and with what has none


def budget_of(trial: Trial) -> int | None:
    """None of what has no budget."""
    return trial.setting(f"tasks.{trial.task}.budget")


def row_of(trial: Trial) -> str:
    budget = budget_of(trial)
    return trial.method if budget is None else f"{trial.method}/{budget}"


def page(run: RunConfig, results: Results) -> Page:
    """The table by method and budget, the comparisons, and the number by budget."""
    o: Options = run.experiment
    trials = [record.trial for record in results.records]
    names = {row_of(t): TITLES[t.method] + (f", {budget_of(t)} rows" if budget_of(t) else "") for t in trials}
    budgets = {row_of(trial): budget_of(trial) for trial in trials}
    pairs = [
        (ours, other)
        for ours in names
        if ours.partition("/")[0] in COMPARED
        for other in names
        if other != ours and budgets[other] in (None, budgets[ours]) and not _told(other, ours, list(names))
    ]
    task = run.task(o.task)

    def figures(_: object) -> list[Figure]:
        budgeted = [record for record in results.records if budget_of(record.trial) is not None]
        methods = dict.fromkeys(record.trial.method for record in budgeted)
        columns = [Column(m, TITLES[m], number(task), lambda t, m=m: t.method == m) for m in methods]
        title = f"{task.title}: {task.metric_title} by budget"
        return [
            sweep_figure(budgeted, lambda t: float(budget_of(t) or 0), columns, title, "rows added", task.metric_title)
        ]

    shown = rows.Shown(
        "Methods by budget",
        "The same numbers of rows, chosen from a pool of what people wrote or written by the model.",
        figures=figures,
        facts=[*found_missing(results.records), *written(results.records)],
    )
    made = rows.Rows(names=names, of=row_of, pairs=pairs)
    return rows.page(run, results, "budgets", [o.task], made, shown, budgets=False)


def _told(one: str, other: str, names: list[str]) -> bool:
    """Whether two rows, both of which are compared with all, are compared the other way round: the first leads."""
    return one.partition("/")[0] in COMPARED and names.index(one) < names.index(other)
