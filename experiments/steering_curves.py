"""Figs. 13 and 14: how each method's steering vectors move answers, by multiplier; robust against standard accuracy.

    fac experiment=steering_curves [experiment.methods=[baseline,fac]]

The trials are those of main_results; what they do not keep, accuracy in the data set's own order, is asked once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, grid, possible
from experiments.harness.graph import Graph, model_of
from experiments.pages.rows import in_paper
from experiments.pages.steering_curves import page
from experiments.steps.steering_curves import curve_step
from fac.errors import FacError


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("sycophancy", "survival")
    methods: tuple[str, ...] = in_paper("table1", "random_features")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method on both behaviours, and the answers of every vector."""
    o: Options = run.experiment
    trials = possible(run, grid(run, task=o.tasks, method=o.methods, **o.axes))
    curves = {}
    for trial in trials:
        task, steps = run.task(trial.task), graph.steps(trial)
        if task.stage != "vector" or steps.trained is None:
            raise FacError(f"experiment.tasks of steering_curves cannot be {trial.task}: name sycophancy or survival.")
        settings = graph.config_of(trial).tasks[trial.task].train
        curves[trial] = curve_step(model_of(run, trial, task), settings.positions, steps.trained, steps.data.test)
    return Plan(trials, partial(page, run, curves), list(curves.values()))


EXPERIMENT = Experiment(
    "steering_curves",
    "Figs. 13 and 14: answers by multiplier for every method's vectors, robust and standard accuracy",
    plan,
    Options,
    paper=("figure13", "figure14"),
)
