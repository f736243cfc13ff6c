"""Table 14: reward models trained with LoRA, by RewardBench's sections; every method, on the trials of main_results.

fac experiment=sections [experiment.methods=[baseline,fac]]
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

    tasks: tuple[str, ...] = ("reward",)
    methods: tuple[str, ...] = in_paper("table14", "random_features")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method, one training per seed."""
    o: Options = run.experiment
    trials = grid(run, task=o.tasks, method=o.methods, **o.axes)
    return Plan(possible(run, trials), partial(page, run, "sections", "table14", "lora"))


EXPERIMENT = Experiment(
    "sections", "Table 14: reward models by section, LoRA, for every method", plan, Options, paper="table14"
)
