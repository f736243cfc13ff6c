"""What experiments on data of one's own share: how the task is described, and who says what matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.graph import Graph
from fac.data.corpus import corpus_step
from fac.errors import FacError, closest
from fac.llm.engines import Engine
from fac.own_gap import OwnGap, Relevance, own_gap
from fac.prompts import Prompts
from fac.settings import checked
from fac.synthesis.methods import METHODS

LAB_PROMPTS, PROMPTS = "lab/own", "paper/own"
# Of experiments that ask about one's own data: a chat model gives its reasons before its verdict, whatever the scale.
SETTINGS = {"interpret.max_new_tokens": 200}


@dataclass(frozen=True)
class Described:
    """What the user says of the task: experiment.task, or task."""

    description: str | None = None  # what the data set is to hold: "questions that angry customers ask a bank"
    prompts: str | None = None  # a folder of prompts of one's own, as `fac new task NAME` makes one; null: the generic
    harmful: bool | None = None  # whether it asks for harm, which a data set card must say; null: by the description
    max_new_tokens: PositiveInt = 400  # of a text that is written


@dataclass(frozen=True, kw_only=True)
class OwnOptions:
    """Options of every experiment that fills a gap of one's own data."""

    budget: PositiveInt  # texts
    relevance: Relevance  # which features matter: llm (by task.description), labels (of the anchor) or all
    # Missing features that an LLM is asked about at most, those first that most anchor texts activate; null: as many as
    # the budget, or four times as many where it also judges, since many are not relevant.
    features: PositiveInt | None = None
    task: Described = field(default_factory=Described)

    @property
    def asked(self) -> int:
        """How many features an LLM is asked about at most."""
        return self.features or self.budget * (4 if self.relevance == "llm" else 1)


HARM = (  # parts of words by which a description that says nothing of it is taken for one of harmful texts
    *("harm", "toxic", "hate", "jailbreak", "red team", "red-team", "abus", "insult", "harass", "threat", "violen"),
    *("suicid", "self-harm", "weapon", "scam", "phish", "malware", "bully", "racis", "sexis", "porn", "terror", "crim"),
)


def is_harmful(task: Described) -> bool:
    """Whether the texts are harmful requests: as the user says, else by the words of the description."""
    if task.harmful is not None:
        return task.harmful
    return any(part in (task.description or "").casefold() for part in HARM)


def check(run: RunConfig, options: OwnOptions) -> None:
    """Raise FacError for settings that say two things, or too little."""
    if options.relevance == "llm" and not options.task.description:
        raise FacError(
            'relevance=llm goes by a description of the task: give one, task.description="questions that angry '
            'customers ask a bank", or choose relevance=all or relevance=labels.'
        )
    if options.relevance == "labels" and run.data["anchor"].label is None:
        raise FacError(
            "relevance=labels goes by labels of the anchor: name their column, data.anchor.label=COLUMN, or choose "
            "relevance=all."
        )
    for name, plain in (("judge", None), ("missing", "activation"), ("noise", "none")):
        value = getattr(run.interpret, name)
        if value != plain and (plain or run.is_given(f"interpret.{name}")):
            raise FacError(
                f"interpret.{name}={value} is not for data of one's own: leave it out; relevance=llm, labels or all "
                f"says which features matter."
            )


WRITTEN_WITH, SERVES = {"write", "contrast"}, {"directions"}  # prompts that there are for own data; needs it can serve


def check_method(name: str) -> None:
    """Raise FacError for a method that does not write for missing features with the prompts that there are."""
    able = [m.name for m in METHODS.values() if m.prompts and {*m.prompts} <= WRITTEN_WITH and {*m.needs} <= SERVES]
    if name not in able:
        raise FacError(f"experiment.method cannot be {name}{closest(name, able)}: of own data, {', '.join(able)} can.")


def prompts_of(run: RunConfig, task: Described, engine: Engine) -> Prompts:
    """What this engine is asked with: the user's own prompts, the lab's for its models, else the generic ones."""
    on_lab = engine.model is not None and labels.is_shipped(engine.model)
    generic = LAB_PROMPTS if on_lab else PROMPTS
    folder = generic if task.prompts is None else str(Path(task.prompts).expanduser().absolute())
    return Prompts(folder, {"description": task.description or "", "harmful": is_harmful(task)})


def gap_of(run: RunConfig, graph: Graph, wanted: int | None) -> OwnGap:
    """What the seed misses of the anchor; `wanted` as in `own_gap`. Raises FacError as `check` does."""
    options: OwnOptions = run.experiment
    check(run, options)
    anchor, seed = (corpus_step(run.data[role]) for role in ("anchor", "seed"))
    encoder = graph.encoder(run, anchor)
    annotators: Mapping[str, Any] = {}
    prompts = None
    if wanted is not None or options.relevance == "llm":
        prompts = prompts_of(run, options.task, run.llms.on(run.model.ref).annotators["explain"])
        annotators = graph.llms(run, run.model.ref).annotators
    asked = 0 if prompts is None else options.asked
    return own_gap(
        encoder, anchor, seed, options.relevance, run.interpret, run.thresholds, annotators, prompts, asked, wanted
    )


def licence_of(run: RunConfig) -> str:
    """What the data sets may be used under, as the user says."""
    return checked(str | None, run.value("data.licence"), "data.licence") or "unknown"


def title_of(run: RunConfig) -> str:
    """The seed against the anchor."""
    return f"{run.data['seed'].title} against {run.data['anchor'].title}"
