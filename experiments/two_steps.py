"""Table 10 and Fig. 5: what one step and two steps of writing cover of the missing features, by threshold.

    fac experiment=two_steps [experiment.tasks=[toxicity]] [experiment.generations=[42,43,44]]

Nothing is trained. One step has as many requests as two have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, grid
from experiments.harness.graph import Graph
from experiments.pages.two_steps import STEPS, page


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Both ways of writing for every task, without training."""
    o: Options = run.experiment
    trials = grid(run, task=o.tasks, method=tuple(STEPS), seed=None, **o.axes)
    return Plan(trials, partial(page, run))


EXPERIMENT = Experiment(
    "two_steps",
    "Table 10, Fig. 5: coverage of one step and of two, by threshold",
    plan,
    Options,
    paper=("table10", "figure5"),
)
