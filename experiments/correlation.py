"""Table 8 and Fig. 3: does FAC tell how well a method's data teach? r and ρ over methods, worlds and generations.

    fac experiment=correlation [experiment.tasks=[toxicity]] [experiment.worlds=[0,1,2]]

The trials are those of `main_results` and `worlds`: what they made is not made again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, grid, possible
from experiments.harness.graph import Graph
from experiments.pages.correlation import page
from fac.synthesis.methods import METHODS


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")
    methods: tuple[str, ...] = field(default_factory=lambda: tuple(METHODS))  # all that there are
    test: Literal["test", "validation"] = "test"
    worlds: tuple[int, ...] = (0, 1, 2)  # the lab's worlds; of data sets: draws
    generations: tuple[int, ...] = (42, 43)  # seeds of writing
    draws: PositiveInt = 1000  # of the bootstrap


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method on every task in every world and generation, one training per seed."""
    o: Options = run.experiment
    trials = grid(run, task=o.tasks, method=o.methods, data_seed=o.worlds, generation=o.generations, test=o.test)
    return Plan(possible(run, trials), partial(page, run))


EXPERIMENT = Experiment(
    "correlation", "Table 8, Fig. 3: how FAC goes with each task's number, over methods and worlds", plan, Options,
    paper=("table8", "figure3"),
)  # fmt: skip
