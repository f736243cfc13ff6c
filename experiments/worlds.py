"""What holds beyond one world: methods over worlds x generations x training seeds, with intervals and corrected p.

    fac experiment=worlds [experiment.worlds=[0,1,2]] [experiment.generations=[42,43]]

How they are compared: `experiments.harness.comparisons`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, grid, possible
from experiments.harness.graph import Graph
from experiments.harness.tables import BASELINE
from experiments.pages.worlds import page
from fac.errors import FacError


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)
    methods: tuple[str, ...] = (BASELINE, "full", "random_features", "fac_one_step", "fac")
    ours: str = "fac"  # every other method is compared with this one
    test: Literal["test", "validation"] = "test"
    worlds: tuple[int, ...] = (0, 1, 2)  # the lab's worlds; of data sets: draws
    generations: tuple[int, ...] = (42, 43)  # seeds of writing

    def __post_init__(self) -> None:
        if self.ours not in self.methods or len(set(self.methods)) < max(len(self.methods), 2):
            raise FacError(f"methods needs {self.ours} (experiment.ours) and at least one other, each only once.")
        if len(set(self.worlds)) < max(len(self.worlds), 2):
            raise FacError("worlds needs at least two for an interval over them, each only once.")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method on every task in every world and generation, one training per seed."""
    o: Options = run.experiment
    trials = grid(run, task=o.tasks, method=o.methods, data_seed=o.worlds, generation=o.generations, test=o.test)
    return Plan(possible(run, trials), partial(page, run))


EXPERIMENT = Experiment("worlds", "What holds over worlds, generations and training seeds", plan, Options)
