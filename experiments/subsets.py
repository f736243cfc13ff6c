"""FAC against what is learned, over many subsets of real data of one size and one distribution of lengths.

    fac experiment=subsets scale=small [experiment.size=100] [experiment.each=20]

Methods differ in much beside coverage: who wrote, how long, how well. Subsets of one pool differ in what they hold
alone. Beside FAC stand what else may tell: Distinct-2, the number of features that a text activates, all features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.subsets import TASK, page
from experiments.steps.subsets import subsets_step
from experiments.tasks import TASKS
from experiments.tasks.sources import pool_step


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    size: PositiveInt = 100  # texts of a subset
    each: PositiveInt = 20  # subsets of each of four kinds
    draws: PositiveInt = 1000  # of the bootstrap


def plan(run: RunConfig, graph: Graph) -> Plan:
    """What the seed data miss, the pool's features, and a head on the model's states for every subset."""
    o: Options = run.experiment
    task, config = TASKS[TASK], run.tasks[TASK]
    data = graph.data(run, TASK, run.seeds.data, "test")
    mining = graph.mining(run, task, data)
    pool = pool_step(task, config, run.seeds.data, data)
    assert task.states is not None
    read = partial(task.states, run.model.ref, config.train)
    states = {
        "pool": read(pool),
        "fixed": read(data.fixed[0]),
        "seed": read(data.seed_examples),
        "test": read(data.test),
    }
    found = subsets_step(mining, pool, states, o.size, o.each, run.seeds.data)
    return Plan([], partial(page, run, mining, found), [mining.wanted, found])


EXPERIMENT = Experiment(
    "subsets", "FAC against what is learned, over subsets of one size and of equal length", plan, Options
)
