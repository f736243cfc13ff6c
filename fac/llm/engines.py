"""Which settings make which ChatModel: who writes and who annotates, by what name, and how they are opened and closed.

Names are known before anything is loaded, started or paid for, so that a plan can be made on a machine that has neither
GPU, package nor key; what an engine needs is asked for by `check`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from fac.interpret import ROLES
from fac.llm.base import ChatModel
from fac.llm.openai import OpenAIChat, OpenAISettings
from fac.llm.settings import TransformersSettings, VllmSettings
from fac.model_ref import ModelRef

COMPARE = "compare"  # which of two outputs is better: AlpacaEval's judge
ANNOTATORS = (*ROLES, COMPARE)
if TYPE_CHECKING:  # they load libraries of models
    from fac.llm.transformers import TransformersChat
    from fac.llm.vllm import VllmChat

Say = Callable[[str], None]


KINDS = {"transformers": TransformersSettings, "vllm": VllmSettings, "openai": OpenAISettings}


@dataclass(frozen=True)
class Engine:
    """One engine and the model that it runs."""

    settings: TransformersSettings | VllmSettings | OpenAISettings
    model: ModelRef | None = None  # None: the model of the run, where the engine does not name its own

    @property
    def follows_run(self) -> bool:
        """Whether the engine takes whatever model the run says."""
        return self.model is None and not isinstance(self.settings, OpenAISettings)

    def on(self, model: ModelRef) -> Engine:
        """The engine in a run on `model`."""
        return replace(self, model=model) if self.follows_run else self

    def identity(self) -> str:
        """For store keys and provenance: engine, model, revision, and what else of the engine changes replies.

        Nothing is loaded. Raises FacError for a hub model whose commit neither the hub nor its cache can tell.
        """
        return self.chat_model(Path(), _say).identity

    def chat_model(self, replies: Path, say: Say) -> OpenAIChat | VllmChat | TransformersChat:
        """The ChatModel; it loads or starts with its first request. `replies` is the file of paid replies."""
        if isinstance(self.settings, OpenAISettings):
            return OpenAIChat(self.settings, replies, say)
        assert self.model is not None, "an engine that follows the run is asked for with `on`"
        if isinstance(self.settings, VllmSettings):
            from fac.llm.vllm import VllmChat

            return VllmChat(self.model, self.settings)
        from fac.llm.transformers import TransformersChat

        return TransformersChat(self.model, self.settings.batch)


@dataclass(frozen=True)
class LLMs:
    """LLMs that are open."""

    writer: ChatModel
    annotators: Mapping[str, ChatModel]  # by ANNOTATORS

    @property
    def note(self) -> str:
        """Who they are, for a table."""
        return _note(self.writer.identity, (self.annotators[role].identity for role in ROLES))


@dataclass(frozen=True)
class LLMConfig:
    """The engines of a run."""

    writer: Engine
    annotators: Mapping[str, Engine]  # by ANNOTATORS
    replies: Path  # file of paid replies

    def check(self, roles: Iterable[str] = ROLES) -> None:
        """Raise FacError if the writer or an annotator of `roles` lacks what it needs (a key, a package)."""
        for engine in (self.writer, *(self.annotators[role] for role in roles)):
            engine.settings.check()

    def on(self, model: ModelRef) -> LLMConfig:
        """The engines in a run on `model`."""
        annotators = {role: engine.on(model) for role, engine in self.annotators.items()}
        return replace(self, writer=self.writer.on(model), annotators=annotators)

    def note(self, model: ModelRef) -> str:
        """Who they are in a run on `model`, for a table; nothing is opened."""
        here = self.on(model)
        return _note(here.writer.identity(), (here.annotators[role].identity() for role in ROLES))

    @contextmanager
    def open(self, model: ModelRef, say: Say) -> Iterator[LLMs]:
        """The engines for a run on `model`, closed at the end; equal ones are one."""
        here = self.on(model)
        made: list[tuple[Engine, ChatModel]] = []
        with ExitStack() as stack:

            def opened(engine: Engine) -> ChatModel:
                for earlier, chat in made:
                    if earlier == engine:
                        return chat
                chat = stack.enter_context(closing(engine.chat_model(self.replies, say)))
                made.append((engine, chat))
                return chat

            yield LLMs(opened(here.writer), {role: opened(engine) for role, engine in here.annotators.items()})


@dataclass(frozen=True)
class Judge:
    """Who compares two outputs, for a worker process: the annotator `compare`, opened there."""

    llms: LLMConfig
    model: ModelRef  # of the run

    @property
    def engine(self) -> Engine:
        """Who is asked."""
        return self.llms.annotators[COMPARE].on(self.model)

    def identity(self) -> str:
        """For store keys; nothing is opened."""
        return self.engine.identity()

    @contextmanager
    def open(self) -> Iterator[ChatModel]:
        with self.llms.open(self.model, _say) as llms:
            yield llms.annotators[COMPARE]


def _note(writer: str, annotators: Iterable[str]) -> str:
    return f"Written by {writer}, annotated by {', '.join(dict.fromkeys(annotators))}."


def _say(text: str) -> None:
    """One line of progress, between the bars of a worker's."""
    tqdm.write(text, file=sys.stderr)
