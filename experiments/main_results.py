"""Table 1: every task's column for every method, on one model.

fac experiment=main_results model=lab_qwen experiment.tasks=[toxicity,reward]
fac -m experiment=main_results model=lab_llama,lab_mistral,lab_qwen
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, grid, possible
from experiments.harness.graph import Graph
from experiments.pages.main_results import page


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


EXPERIMENT = Experiment("main_results", "Table 1: every task's column for every method", plan, Options, paper="table1")
