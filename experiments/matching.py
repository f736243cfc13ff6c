"""Do two models have the same features? Those of their SAEs, matched by how they fire over one data set.

    fac experiment=matching [experiment.models=[lab_llama,lab_mistral]] [data.corpus.path=FILE data.corpus.label=COLUMN]

In the lab the texts are the anchor corpus of the toxicity task where no data set is named. Beside every number stands a
control: what chance gives, with the texts of one model shuffled.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import Field, PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.matching import Steps, page
from fac.data.corpus import corpus_step
from fac.errors import FacError
from fac.matching import matching
from fac.store import Step

SHUFFLE_SEED = 0
TASK = "toxicity"  # whose anchor corpus is read where no data set is named


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    models: tuple[str, ...] = ()  # names of conf/model, every pair is matched; none: those of the scale
    at_least: Annotated[float, Field(gt=0, le=1)] = 0.7  # r of a match
    min_active: PositiveInt = 5  # texts a feature must fire in; rarer ones match by chance

    def __post_init__(self) -> None:
        if len(self.models) == 1 or len(set(self.models)) < len(self.models):
            raise FacError("models needs at least two models, and each only once.")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """All models measured on the same texts, and every pair of them matched, with its control."""
    options: Options = run.experiment
    corpus = shared_corpus(run, graph)
    features = {}
    for name in options.models or run.families:
        features[name] = graph.encoder(run.for_model(name), corpus).features(corpus)
    matches = {}
    for a, b in itertools.combinations(features, 2):
        match = partial(matching, features[a], features[b], min_active=options.min_active)
        matches[a, b] = match(), match(shuffle=SHUFFLE_SEED)
    steps = Steps(corpus, features, matches)
    read = partial(page, run, run.value("interpret.fdr"), graph.say, steps)
    return Plan([], read, [corpus, *features.values(), *(step for pair in matches.values() for step in pair)])


def shared_corpus(run: RunConfig, graph: Graph) -> Step:
    """What all models read: the data set that is named, or the anchor corpus of the lab's world."""
    if "corpus" in run.data:
        return corpus_step(run.data["corpus"])
    if run.tasks[TASK].sizes is None:
        raise FacError("data.corpus.path is not set: give a data set, data.corpus.path=FILE.")
    return graph.data(run, TASK, run.seeds.data, "test").anchor


EXPERIMENT = Experiment(
    "matching",
    "Which feature of one model is which of another: SAEs matched over the same texts",
    plan,
    Options,
    data={"corpus": {"path": None}},  # null: the anchor corpus of the lab
)
