"""Which texts of a pool fill what one's own data miss? Greedy coverage and SAE-based selection beside three controls.

    fac experiment=select data.anchor.path=A data.seed.path=B data.pool.path=C budget=200 out=DIR

No LLM has a part in it, unless relevance=llm asks one which features matter. Every method that chooses from a pool by
activations stands in the table (`fac methods`); each leaves the rows that it chose in DIR/chosen, as they stand in the
pool's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.select import Steps, page
from experiments.steps.own_data import SETTINGS, OwnOptions, gap_of
from experiments.steps.select import selecting, selection_step
from fac.data.corpus import corpus_step
from fac.own_gap import Relevance


@dataclass(frozen=True, kw_only=True)
class Options(OwnOptions):
    """What can be set as experiment.KEY; budget, relevance and task also without experiment."""

    budget: PositiveInt = 200  # rows that each method chooses
    relevance: Relevance = "all"
    draws: PositiveInt = 5  # of each method that draws at random


def plan(run: RunConfig, graph: Graph) -> Plan:
    """What the seed misses, the pool measured by the same model and SAE, and what each method chooses of it."""
    options: Options = run.experiment
    gap = gap_of(run, graph, wanted=None)
    pool = corpus_step(run.data["pool"])
    features = gap.encoder.features(pool)
    seeds = tuple(range(run.seeds.generation, run.seeds.generation + options.draws))
    chosen = selection_step(selecting(), run.data["pool"], gap.wanted, pool, features, options.budget, seeds)
    told = () if gap.told is None else (gap.told,)
    steps = Steps(gap, pool, features, chosen)
    return Plan([], partial(page, run, graph.say, steps), [gap.sought, *told, gap.wanted, gap.known, chosen])


EXPERIMENT = Experiment(
    "select",
    "Which texts of a pool fill what a data set of one's own misses? Without an LLM",
    plan,
    Options,
    data=("anchor", "seed", "pool"),
    short=("budget", "relevance", "task"),
    settings=SETTINGS,
)
