"""How well does an SAE reconstruct texts that it was not trained on? (paper Table 7, columns L0 and reconstruction L2)

    fac experiment=sae sae=train data.corpus.path=FILE out=DIR
    fac experiment=sae sae=train_paper scale=paper +corpus@data.parts=paper
    fac experiment=sae scale=small        the SAE of that scale, on texts that it does not learn from

sae=train (sae-lens, for small models) and sae=train_paper (the paper's recipe) train an SAE on nine tenths of the texts
and measure it on the rest; without either, the model's own SAE is measured, or the one of sae.path=DIR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import Field

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.sae import page
from fac.data.mixture import Part, mix
from fac.errors import FacError


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of the different texts (App. J)


def plan(run: RunConfig, graph: Graph) -> Plan:
    """An SAE, trained on one side of the texts if it is to be trained, and measured on the other."""
    parts = parts_of(run)
    if parts is run.sae_texts:
        texts = graph.sae_mixture(run)
    else:
        run = run.with_({"sae.texts": None}) if run.sae_texts else run
        texts = mix(parts, held_out=run.experiment.held_out, seed=run.seeds.data)
    encoder = graph.encoder(run, texts.train)
    quality = encoder.quality(texts.held_out)
    read = partial(page, run, parts, graph.say, encoder, texts, quality)
    return Plan([], read, [texts.whole, encoder.sae_step, quality])


def parts_of(run: RunConfig) -> Mapping[str, Part]:
    """The data sets of data.parts, each with how many texts are drawn, that of data.corpus, or those of sae.texts."""
    if run.parts:
        return run.parts
    if "corpus" in run.data:
        return {"corpus": Part(run.data["corpus"])}
    if run.sae_texts:
        return run.sae_texts
    raise FacError(
        "No texts are named: give a data set, data.corpus.path=FILE, or the paper's corpus, +corpus@data.parts=paper."
    )


EXPERIMENT = Experiment(
    "sae",
    "How well an SAE, trained here or named, reconstructs held-out texts (Table 7 without scores)",
    plan,
    Options,
    data={"corpus": {"path": None}},  # one data set; several: data.parts={NAME: {path: ..., sample: how many texts}}
    settings={"data.parts": None, "seeds.data": 42},
)
