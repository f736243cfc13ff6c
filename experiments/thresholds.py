"""Fig. 6: the activation threshold δ, which decides what is missing and which samples are kept.

    fac experiment=thresholds [experiment.thresholds=[0.0,1.0,2.0]]

Absolute ones, as the paper's, or relative to each feature's maximum on the anchor (0.3max), as thresholds.default is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, Results, Trial, grid, sweep
from experiments.harness.graph import Graph
from experiments.harness.report import Figure, Page
from experiments.harness.tables import BASELINE, TITLES, number, of_task
from experiments.harness.views import Column, count, sweep_figure
from experiments.pages import rows
from fac.coverage import Threshold

DELTA = "thresholds.default"


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)
    thresholds: tuple[str, ...] = ()  # none: those of thresholds.absolute or .relative, as the default is


def swept(run: RunConfig) -> list[str]:
    """The thresholds as they are told, in order."""
    o: Options = run.experiment
    if o.thresholds:
        return [str(Threshold.parse(text)) for text in o.thresholds]
    relative = Threshold.parse(run.thresholds.default).relative
    values = run.thresholds.relative if relative else run.thresholds.absolute
    return [str(Threshold(value, relative)) for value in values]


def row_of(trial: Trial) -> str:
    return BASELINE if trial.method == BASELINE else trial.setting(DELTA)


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline, and FAC at every threshold."""
    o: Options = run.experiment
    written = grid(run, task=o.tasks, method="fac", settings=sweep(DELTA, swept(run)), **o.axes)
    return Plan([*grid(run, task=o.tasks, method=BASELINE, **o.axes), *written], partial(page, run))


def page(run: RunConfig, results: Results) -> Page:
    """How many features are missing at each threshold, and what writing for them comes to."""
    o: Options = run.experiment
    found = swept(run)
    default = str(Threshold.parse(run.thresholds.default))

    def missing(task: str) -> list[Column]:
        held = of_task(task)
        return [
            Column(f"{task}_missing", "missing features", count("missing"), lambda t: held(t) and t.method == "fac")
        ]

    def figures(name: str) -> list[Figure]:
        task, records = run.task(name), [r for r in results.records if r.trial.method == "fac" and r.trial.task == name]
        return [
            sweep_figure(records, _delta, [Column("y", of, value)], f"{task.title}: {of} by δ (Fig. 6)", "δ", of)
            for of, value in ((task.metric_title, number(task)), ("missing features", count("missing")))
        ]

    names = {BASELINE: TITLES[BASELINE], **{delta: f"δ = {delta}" for delta in found}}
    pairs = [(default, delta) for delta in found if delta != default] if default in found else []
    shown = rows.Shown(
        "Activation threshold",
        "Fig. 6 of the paper: what counts as active decides what is missing, and which samples are kept.",
        columns=missing,
        notes=["FAC is at each row's own threshold. The paper prints no number of this figure."],
        figures=lambda _: [figure for name in o.tasks for figure in figures(name)],
    )
    made = rows.Rows(names=names, of=row_of, pairs=pairs, mode="head")
    return rows.page(run, results, "thresholds", o.tasks, made, shown, budgets=False)


def _delta(trial: Trial) -> float:
    return Threshold.parse(trial.setting(DELTA)).value


EXPERIMENT = Experiment(
    "thresholds",
    "Fig. 6: missing features and score by the activation threshold",
    plan,
    Options,
    paper="figure6",
    defaults=({"override /tasks": "${scale}_heads"},),
)
