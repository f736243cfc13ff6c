"""Write what a data set of one's own misses: texts for the features that an anchor activates and the seed does not.

    fac experiment=fill data.anchor.path=A data.seed.path=B budget=500 out=DIR \\
        task.description="questions that angry customers ask a bank"

Which features matter is said by the LLM from the description (relevance=llm), by labels of the anchor (labels) or by
nobody (all). DIR then holds samples.jsonl and a folder `dataset` for `datasets.load_dataset`, with a card; every text
has the feature that it was written for, and activates it. Prompts of one's own: `fac new task NAME`, task.prompts=NAME.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.fill import Steps, page
from experiments.steps.fill import own_texts
from experiments.steps.own_data import SETTINGS, OwnOptions, check_method, gap_of, licence_of, prompts_of
from fac.data.schemas import TEXT
from fac.own_gap import Relevance
from fac.synthesis.generate import synthesis
from fac.synthesis.methods import METHODS
from fac.synthesis.selection import selection


@dataclass(frozen=True, kw_only=True)
class Options(OwnOptions):
    """What can be set as experiment.KEY; budget, relevance and task also without experiment."""

    budget: PositiveInt = 500  # texts that are written, and features that are written for at most
    relevance: Relevance = "llm"
    method: str = "fac"  # of `fac methods`, among those that write for missing features with these prompts
    label: int | str | None = None  # what a column `label` says of every text; null: no such column


def plan(run: RunConfig, graph: Graph) -> Plan:
    """What the seed misses, what is written for it, and what that activates."""
    options: Options = run.experiment
    check_method(options.method)
    licence = licence_of(run)  # read now: of what the page alone reads, a run would say that nothing reads it
    gap = gap_of(run, graph, wanted=options.budget)
    assert gap.told is not None
    prompts = prompts_of(run, options.task, run.llms.on(run.model.ref).writer)
    texts = own_texts(gap.seed, gap.anchor, gap.told)
    writer, settings = graph.llms(run, run.model.ref).writer, run.writing(options.task.max_new_tokens)
    written = synthesis(
        METHODS[options.method], gap.mining, writer, prompts, TEXT, settings, options.budget, texts, texts, texts
    )
    added = selection(written, gap.mining, TEXT, settings, options.budget)
    steps = Steps(gap, written, added, gap.encoder.features(added))
    return Plan([], partial(page, run, graph.say, steps, licence), [gap.wanted, gap.known, added, steps.features])


EXPERIMENT = Experiment(
    "fill",
    "Write what a data set of one's own misses, as a data set with its card",
    plan,
    Options,
    data=("anchor", "seed"),
    short=("budget", "relevance", "task"),
    settings={"data.licence": None, **SETTINGS},
)
