"""Coverage of any two data sets: which features of the anchor do the seed data miss?

    fac experiment=coverage data.anchor.path=A data.seed.path=B out=DIR

No LLM and no labels: every feature that the anchor activates counts as relevant, so FAC is that of the whole feature
space. Any two data sets, any Hugging Face causal LM and SAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.coverage import ROLES, Steps, page
from fac.data.corpus import corpus_step
from fac.diversity.measured import measured_diversity


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    listed: PositiveInt = 50  # missing features shown with their spans
    spans: PositiveInt = 5
    bootstrap: PositiveInt = 200  # replicates of the interval
    diversity_texts: PositiveInt = 1000  # texts of each data set that the diversity metrics read; below 2: no diversity


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Both data sets measured by one model and SAE; one that is to be trained is trained on the anchor."""
    options: Options = run.experiment
    corpora = {role: corpus_step(run.data[role]) for role in ROLES}
    encoder = graph.encoder(run, corpora["anchor"])
    features = {role: encoder.features(corpus) for role, corpus in corpora.items()}
    texts = options.diversity_texts
    diverse = {role: measured_diversity(encoder, corpus, texts) for role, corpus in corpora.items() if texts > 1}
    steps = Steps(encoder, corpora, features, diverse)
    read = partial(page, run, run.thresholds, graph.say, steps)
    return Plan([], read, [*corpora.values(), *features.values(), *diverse.values()])


EXPERIMENT = Experiment(
    "coverage", "Which features of one data set does another one miss? Any two, without an LLM", plan, Options,
    data=ROLES,
)  # fmt: skip
