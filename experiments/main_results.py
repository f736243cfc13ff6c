"""Table 1: every task's column for every method, on one model.

fac experiment=main_results model=lab_qwen experiment.tasks=[toxicity,reward]
fac -m experiment=main_results model=lab_llama,lab_mistral,lab_qwen
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Results, grid, possible
from experiments.harness.graph import Graph
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


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")
    methods: tuple[str, ...] = ("base", "baseline", "full", "random_features", "fac")
    test: Literal["test", "validation"] = "test"  # choices are made on validation, with another seeds.data


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method on every task, one training per seed."""
    options: Options = run.experiment
    trials = grid(run, task=options.tasks, method=options.methods, test=options.test)
    return Plan(possible(run, trials), partial(page, run))


def page(run: RunConfig, results: Results) -> Page:
    """The table, every metric behind it, and what was written."""
    options: Options = run.experiment
    records = results.records
    kinds: dict[str, labels.Kind] = {name: labels.kind_of(run, name, [run.model.name]) for name in options.tasks}
    columns = []
    for name in options.tasks:
        paper = paper_column(run, TASKS[name], options.test, kinds[name])
        columns += task_columns(TASKS[name], of_task(name), task_title(run, name), paper, name)
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


EXPERIMENT = Experiment("main_results", "Table 1: every task's column for every method", plan, Options, paper="table1")
