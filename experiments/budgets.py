"""What methods bring at several budgets: as many rows, chosen from a pool or written, beside all of the pool.

fac experiment=budgets [experiment.budgets=[100,200]] [experiment.methods=[baseline,select_random,select_fac]]
fac scale=small                                                     (part of make small)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, Trial, grid, possible
from experiments.harness.graph import Graph
from experiments.harness.tables import BASELINE
from experiments.pages.budgets import page
from fac.errors import FacError
from fac.synthesis.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    task: str = "toxicity"
    methods: tuple[str, ...] = (
        *(BASELINE, "full", "select_random", "select_length_matched", "select_longest", "select_sae_greedy"),
        *("select_fac", "fac"),
    )
    budgets: tuple[PositiveInt, ...] = (100, 200)
    writing: int = 100  # the largest budget that methods are asked for that have an LLM write


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Each method at each budget that it is asked for, one training per seed; what has no budget once."""
    o: Options = run.experiment
    if unknown := [name for name in o.methods if name not in METHODS]:
        raise FacError(f"experiment.methods names {unknown[0]}, which is no method: see fac methods.")
    trials: list[Trial] = []
    for method in o.methods:
        budgets = [budget for budget in o.budgets if budget <= o.writing or not METHODS[method].prompts]
        if has_none(run, o.task, method):
            trials += grid(run, task=o.task, method=method, **o.axes)
        elif budgets:
            settings = [{f"tasks.{o.task}.budget": budget} for budget in budgets]
            trials += grid(run, task=o.task, method=method, settings=settings, **o.axes)
    return Plan(possible(run, trials), partial(page, run))


def has_none(run: RunConfig, task: str, method: str) -> bool:
    """Whether a method adds the same whatever the budget: nothing, or all that people wrote."""
    return not METHODS[method].adds or (method == "full" and run.tasks[task].full == "all")


EXPERIMENT = Experiment("budgets", "What methods of selection and writing bring at several budgets", plan, Options)
