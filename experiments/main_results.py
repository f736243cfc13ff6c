"""Table 1: every task's column for every method, on one model; and Fig. 10, instruction following by training seed.

fac experiment=main_results model=lab_qwen experiment.tasks=[toxicity,reward]
fac -m experiment=main_results model=lab_llama,lab_mistral,lab_qwen
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import BASE, Experiment, Plan, Repeated, grid, possible
from experiments.harness.graph import Graph
from experiments.pages.main_results import page
from experiments.pages.rows import in_paper


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")
    methods: tuple[str, ...] = (BASE, *in_paper("table1", "random_features"))  # as far as there are such


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method on every task, one training per seed."""
    options: Options = run.experiment
    trials = grid(run, task=options.tasks, method=options.methods, **options.axes)
    return Plan(possible(run, trials), partial(page, run))


EXPERIMENT = Experiment(
    "main_results",
    "Table 1: every task's column for every method",
    plan,
    Options,
    paper=("table1", "figure10"),
)
