"""Fig. 7: one to five samples per missing feature, and what the data are worth for their number.

    fac experiment=samples [experiment.samples=[1,2,3]]

All rows choose from the same samples. DES, data efficiency: the score over log10 of the samples added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log10

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Record, Repeated, Results, Trial, grid
from experiments.harness.graph import Graph
from experiments.harness.report import Figure, Page
from experiments.harness.tables import BASELINE, TITLES, number, of_task
from experiments.harness.views import Column, Value, sweep_figure
from experiments.pages import rows
from experiments.tasks.base import Task
from fac.errors import FacError

EACH = "synthesis.per_feature"


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)
    samples: tuple[int, ...] = (1, 2, 3, 4, 5)  # of each missing feature
    pool: int = (
        2000  # samples that are written to choose from, if all rounds of requests (synthesis.top_up) give as many
    )

    def __post_init__(self) -> None:
        if min(self.samples) < 1 or self.pool < 1:
            raise FacError("samples and pool are 1 or more.")


def row_of(trial: Trial) -> str:
    return BASELINE if trial.method == BASELINE else str(trial.setting(EACH))


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline, and FAC with each number of samples."""
    o: Options = run.experiment
    trials = grid(run, task=o.tasks, method=BASELINE, **o.axes)
    for task in o.tasks:
        changes = [{EACH: samples, f"tasks.{task}.budget": o.pool} for samples in o.samples]
        trials += grid(run, task=task, method="fac", settings=changes, **o.axes)
    return Plan(trials, partial(page, run))


def des(task: Task) -> Value:
    """The score over log10 of the samples added; none of fewer than two."""

    def of(record: Record) -> float | None:
        score, added = number(task).of(record), record.counts.get("added", 0)
        return None if score is None or added < 2 else score / log10(added)

    return Value(of, "score")


def page(run: RunConfig, results: Results) -> Page:
    """A row for each number of samples; one is compared with the others."""
    o: Options = run.experiment
    names = {str(n): f"{n} per feature" for n in o.samples}
    first, *more = names

    def columns(name: str) -> list[Column]:
        held = of_task(name)
        return [Column(f"{name}_des", "DES", des(run.task(name)), lambda t: held(t) and t.method == "fac")]

    def figures(name: str) -> list[Figure]:
        task, records = run.task(name), [r for r in results.records if r.trial.method == "fac" and r.trial.task == name]
        return [
            sweep_figure(records, lambda t: t.setting(EACH), [Column("y", of, value)], f"{task.title}: {of} (Fig. 7)",
                         "samples per feature", of)
            for of, value in ((task.metric_title, number(task)), ("DES", des(task)))
        ]  # fmt: skip

    shown = rows.Shown(
        "Samples per feature",
        "Fig. 7 of the paper: more samples for each missing feature, and what they are worth for their number.",
        columns=columns,
        notes=[
            "DES: score / log10(samples added). Rows add up to so many samples of each missing feature, its strongest "
            "first, whatever the budget. The paper prints no number of this figure."
        ],
        figures=lambda _: [figure for name in o.tasks for figure in figures(name)],
    )
    made = rows.Rows(
        names={BASELINE: TITLES[BASELINE], **names}, of=row_of, pairs=[(n, first) for n in more], mode="head"
    )
    return rows.page(run, results, "samples", o.tasks, made, shown, budgets=False)


EXPERIMENT = Experiment(
    "samples",
    "Fig. 7: one to five samples per missing feature",
    plan,
    Options,
    paper="figure7",
    defaults=({"override /tasks": "${scale}_heads"},),
)
