"""Table 13: heads alone, trained for toxicity and reward, with RewardBench's sections; every method.

    fac experiment=heads [experiment.methods=[baseline,fac]]

In the lab LoRA is trained, as everywhere there (conf/tasks/lab_heads.yaml): the trials are those of main_results.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, grid, possible
from experiments.harness.graph import Graph
from experiments.pages.rows import in_paper
from experiments.pages.sections import page


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity", "reward")
    methods: tuple[str, ...] = in_paper("table13", "random_features")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method on both tasks, one training per seed."""
    o: Options = run.experiment
    trials = grid(run, task=o.tasks, method=o.methods, **o.axes)
    return Plan(possible(run, trials), partial(page, run, "heads", "table13", "head"))


EXPERIMENT = Experiment(
    "heads",
    "Table 13: heads alone on toxicity and reward, by section, for every method",
    plan,
    Options,
    paper="table13",
    defaults=({"override /tasks": "${scale}_heads"},),
)
