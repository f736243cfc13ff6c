"""What `experiments.main_results` shows: the table, every metric behind it, and what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.report import Page
from experiments.harness.tables import (
    every_metric,
    found_missing,
    of_task,
    paper_column,
    place,
    table,
    task_columns,
    task_notes,
    task_title,
    written,
)
from experiments.harness.views import bars, names_of, pivot
from experiments.tasks import TASKS

if TYPE_CHECKING:
    from experiments.main_results import Options


def page(run: RunConfig, results: Results) -> Page:
    """The table, every metric behind it, and what was written."""
    options: Options = run.experiment
    records = results.records
    kinds: dict[str, labels.Kind] = {name: labels.kind_of(run, name, [run.model.name]) for name in options.tasks}
    columns = []
    for name in options.tasks:
        paper = paper_column(run, TASKS[name], options.test, kinds[name])
        columns += task_columns(run.task(name), of_task(name), task_title(run, name), paper, name)
    main = table(
        run,
        "main_results",
        f"Main results, {run.model.name}, {place(run, options.tasks)} {run.seeds.data}",
        options.methods,
        [column.name for column in columns],
        pivot(records, options.methods, columns),
        names_of(columns),
        [
            *task_notes(run, records, options.tasks),
            f"Scored on the {options.test} set of the {place(run, options.tasks).removesuffix(' seed')}.",
        ],
        kinds.values(),
    )
    return Page(
        title=main.title,
        subtitle="Table 1 of the paper: what each method's data teach, task by task.",
        tables=[main, every_metric(run, records, options.methods, kinds.values())],
        facts=[*found_missing(records), *written(records)],
        figures=[bars(main, options.methods, options.tasks, "Each task by method")],
    )
