"""What a plan uses: models, SAEs, LLMs by role, prompts, data sets by key, files.

All of it is found in the steps, whoever made them: an experiment whose steps hold none of this needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.harness.config import RunConfig
from experiments.harness.doctor.walk import CHATS, Steps, found_in
from experiments.harness.keys import leaves
from experiments.tasks.instruction import Evaluation
from fac.data.mixture import Part
from fac.data.source import Source
from fac.encoder import FeatureEncoder
from fac.llm.base import ChatModel
from fac.llm.engines import COMPARE, Engine, Judge
from fac.llm.openai import OpenAIChat
from fac.llm.settings import TransformersSettings
from fac.llm.transformers import TransformersChat
from fac.llm.vllm import VllmChat
from fac.model_ref import ModelRef
from fac.prompts import ROOT, Prompts
from fac.store import Step

WRITER = "writer"
IN_WORKER = Engine(TransformersSettings())  # what was trained answers in the worker that tests it


@dataclass
class Uses:
    """Everything that must be there, each thing once, in the order in which the plan comes to it."""

    models: dict[tuple[str, str | None], ModelRef] = field(default_factory=dict)  # by path and revision
    encoders: list[FeatureEncoder] = field(default_factory=list)
    engines: list[tuple[str, Engine]] = field(default_factory=list)  # with the role that each has
    prompts: list[Path] = field(default_factory=list)  # folders
    sources: dict[str, Source] = field(default_factory=dict)  # by key of the configuration
    files: dict[str, Path] = field(default_factory=dict)  # by key, or by what a step calls it
    evaluations: dict[str, Evaluation] = field(default_factory=dict)  # by key; of answers
    drawn: list[str] = field(default_factory=list)  # tasks whose data the lab's world draws

    def add_model(self, ref: ModelRef) -> None:
        self.models.setdefault((ref.path, ref.revision), ref)


def uses_of(run: RunConfig, steps: Steps) -> Uses:
    """What the steps of a plan use."""
    uses, keys = Uses(), {str(value): key for key, value in _values(run)}
    sources = list(configured_sources(run))
    for step in steps:
        for _, ref in found_in(step, ModelRef):
            uses.add_model(ref)
        _add_new(uses.encoders, (encoder for _, encoder in found_in(step, FeatureEncoder)))
        _add_new(uses.engines, engines_of(step))
        _add_new(uses.prompts, (prompts.folder for _, prompts in found_in(step, Prompts)))
        for source in sources_of(step):
            key = next((key for key, other in sources if other == source), f"data.{source.name}")
            uses.sources.setdefault(key, source)
        for _, told in found_in(step, Evaluation):
            uses.evaluations.setdefault(f"tasks.{step.params.get('task', 'instruction')}.evaluation", told)
        for name, file in found_in(step, Path):
            uses.files.setdefault(keys.get(str(file), name), file)
        if step.name == "draw" and "sizes" in step.params:
            _add_new(uses.drawn, [str(step.params["task"])])
    return uses


def of_configuration(run: RunConfig) -> Uses:
    """What the configuration names, for a plan that cannot be made."""
    uses = Uses(sources={key: source for key, source in configured_sources(run) if key.startswith("data.")})
    uses.add_model(run.model.ref)
    return uses


def configured_sources(run: RunConfig) -> Iterator[tuple[str, Source]]:
    """Every data set of the configuration, with its key."""
    for name, task in run.tasks.items():
        yield from ((f"tasks.{name}.data.{place}", source) for place, source in task.data.items())
    yield from ((f"data.{role}", source) for role, source in run.data.items())
    yield from ((f"data.parts.{name}", part.source) for name, part in run.parts.items())


def sources_of(step: Step) -> list[Source]:
    """The data sets that a step reads itself."""
    found: list[Source] = []
    _add_new(found, (held.source if isinstance(held, Part) else held for _, held in found_in(step, (Source, Part))))
    return found


def engines_of(step: Step) -> Iterator[tuple[str, Engine]]:
    """Whom a step asks, by role: the name of an annotator, or the writer."""
    for name, chat in found_in(step, CHATS):
        yield WRITER if name == "model" else name, engine_of(chat)
    for _, judge in found_in(step, Judge):
        yield COMPARE, judge.llms.annotators[COMPARE].on(judge.model)


def engine_of(chat: ChatModel) -> Engine:
    """The engine behind a ChatModel, with its model."""
    if isinstance(chat, OpenAIChat):
        return Engine(chat.settings)
    if isinstance(chat, VllmChat):
        return Engine(chat.settings, chat.ref)
    assert isinstance(chat, TransformersChat)
    return Engine(TransformersSettings(chat.batch), chat.ref)


def shown(folder: Path) -> str:
    """A prompt folder as the configuration names it."""
    return str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)


def _add_new(known: list[Any], found: Any) -> None:
    for thing in found:
        if thing not in known:
            known.append(thing)


def _values(run: RunConfig) -> Iterator[tuple[str, Any]]:
    """The keys of the configuration with their plain values; the first of equal values counts last."""
    for key in reversed(leaves(run.values)):
        value: Any = run.values
        for part in key.split("."):
            value = value[part] if isinstance(value, Mapping) else None
        if isinstance(value, str):
            yield key, Path(value).expanduser()
