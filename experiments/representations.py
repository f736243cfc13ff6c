"""Table 12: what is missing by SAE features, by dense clusters, or at random; toxicity at an equal budget.

fac experiment=representations
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, Results, grid, possible
from experiments.harness.graph import Graph
from experiments.harness.report import Page
from experiments.harness.views import bars
from experiments.pages import rows


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)
    methods: tuple[str, ...] = rows.in_paper("table12")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method, one training per seed."""
    o: Options = run.experiment
    return Plan(possible(run, grid(run, task=o.tasks, method=o.methods, **o.axes)), partial(page, run))


def page(run: RunConfig, results: Results) -> Page:
    """Each row beside the paper's, and FAC against the others."""
    o: Options = run.experiment

    printed = partial(rows.of_toxicity, "table12")

    made = rows.of_methods(o.methods, paper=printed("auprc"), gain=printed("gap"), mode="lora")
    shown = rows.Shown(
        "Representation and selection",
        "Table 12 of the paper: the same budget spent on missing features, on dense clusters and at random.",
        figures=lambda main: [bars(main, o.methods, o.tasks, "By what the data are chosen")],
    )
    return rows.page(run, results, "representations", o.tasks, made, shown)


EXPERIMENT = Experiment(
    "representations",
    "Table 12: SAE features against dense clusters and random features",
    plan,
    Options,
    paper="table12",
)
