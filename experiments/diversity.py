"""Fig. 9: how diverse is what each method adds, by many metrics, and which of them goes with the score?

    fac experiment=diversity [experiment.task=reward] [experiment.worlds=[0,1,2]]

Sets are compared at equally many texts, words or tokens (`fac.diversity.sample`, `fac.diversity.equal_length`). Of a
method that adds nothing, the seed data are measured. The trials are those of `main_results` and `worlds`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Trial, grid, possible
from experiments.harness.graph import Graph
from experiments.pages.diversity import page
from fac.diversity.sample import sampled_diversity
from fac.errors import FacError
from fac.store import Step
from fac.synthesis.methods import METHODS


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    task: str = "toxicity"
    methods: tuple[str, ...] = field(default_factory=lambda: tuple(METHODS))  # all that there are
    test: Literal["test", "validation"] = "test"
    worlds: tuple[int, ...] = ()  # the lab's worlds; of data sets: draws; none: seeds.data alone
    generations: tuple[int, ...] = (42, 43)  # seeds of writing
    texts: PositiveInt | None = None  # of each draw; none: half the task's budget, so that whoever misses it is seen
    draws: PositiveInt = 20
    bootstrap: PositiveInt = 1000  # draws of the correlations' intervals

    def __post_init__(self) -> None:
        if self.texts == 1:
            raise FacError("experiment.texts=1 will not do: diversity is a property of at least two texts.")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method in every world and generation, one training per seed, and the diversity of what each adds."""
    o: Options = run.experiment
    worlds = o.worlds or run.seeds.data
    trials = grid(run, task=o.task, method=o.methods, data_seed=worlds, generation=o.generations, test=o.test)
    trials = possible(run, trials)
    measured = diversities(run, graph, trials)
    return Plan(trials, partial(page, run, measured), list(measured.values()))


def diversities(run: RunConfig, graph: Graph, trials: Iterable[Trial]) -> dict[tuple[int, str, int], Step]:
    """The steps that measure what each method adds, by world, method and generation."""
    o: Options = run.experiment
    texts = o.texts or max(run.tasks[o.task].budget // 2, 2)
    found = {}
    for trial in trials:
        place = (trial.data_seed, trial.method, trial.generation)
        steps = graph.steps(trial)
        if place not in found and steps.mining is not None:
            rows = steps.added or steps.data.seed_examples
            found[place] = sampled_diversity(steps.mining.encoder, rows, steps.data.anchor, texts, o.draws)
    return found


EXPERIMENT = Experiment(
    "diversity", "Fig. 9: diversity metrics of what methods add, and which goes with the score", plan, Options,
    paper="figure9",
)  # fmt: skip
