"""Who writes and who annotates: the engines that the groups `llm` and `annotator` name, opened and closed.

Knows: which settings make which ChatModel, that equal ones are one, and that all are closed in the end. Does not know:
what they are asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from experiments.walk import current_walk
from fac.backbone import ModelRef
from fac.interpret import ROLES
from fac.llm.base import ChatModel
from fac.llm.openai import OpenAIChat, OpenAISettings
from fac.llm.transformers import TransformersChat
from fac.llm.vllm import VllmChat, VllmSettings

COMPARE = "compare"  # which of two outputs is better: AlpacaEval's judge
ANNOTATORS = (*ROLES, COMPARE)


@dataclass(frozen=True)
class TransformersSettings:
    """How the transformers engine runs."""

    batch: int = 64

    def check(self) -> None:
        """It needs nothing that is not here."""


KINDS = {"transformers": TransformersSettings, "vllm": VllmSettings, "openai": OpenAISettings}


@dataclass(frozen=True)
class Engine:
    """One engine, as the configuration says it."""

    settings: TransformersSettings | VllmSettings | OpenAISettings
    model: ModelRef | None = None  # None: the model of the run, where the engine does not name its own

    @property
    def follows_run(self) -> bool:
        """Whether the engine takes whatever model the run says."""
        return self.model is None and not isinstance(self.settings, OpenAISettings)


@dataclass(frozen=True)
class Crew:
    """Engines that are open."""

    writer: ChatModel
    annotators: Mapping[str, ChatModel]  # by ANNOTATORS

    @property
    def note(self) -> str:
        """Who they are, for a table."""
        annotators = dict.fromkeys(self.annotators[role].identity for role in ROLES)
        return f"Written by {self.writer.identity}, annotated by {', '.join(annotators)}."


@dataclass(frozen=True)
class Engines:
    """The engines of a run. `config.engines` makes them."""

    writer: Engine
    annotators: Mapping[str, Engine]  # by ANNOTATORS
    replies: Path  # file of paid replies

    def check(self, roles: Iterable[str] = ROLES) -> None:
        """Raise FacError if the writer or an annotator of `roles` lacks what it needs (a key, a package).

        A dry run needs nothing.
        """
        if current_walk() is None:
            for engine in (self.writer, *(self.annotators[role] for role in roles)):
                engine.settings.check()

    @contextmanager
    def open(self, model: ModelRef, say: Callable[[str], None]) -> Iterator[Crew]:
        """The engines for a run on `model`, closed at the end. Each loads or starts with its first request."""
        made: list[tuple[Engine, ChatModel]] = []
        with ExitStack() as stack:

            def opened(engine: Engine) -> ChatModel:
                if engine.follows_run:
                    engine = replace(engine, model=model)
                for known, chat in made:
                    if known == engine:
                        return chat
                chat = stack.enter_context(closing(self._made(engine, say)))
                made.append((engine, chat))
                return chat

            yield Crew(opened(self.writer), {role: opened(engine) for role, engine in self.annotators.items()})

    def _made(self, engine: Engine, say: Callable[[str], None]) -> OpenAIChat | VllmChat | TransformersChat:
        settings = engine.settings
        if isinstance(settings, OpenAISettings):
            return OpenAIChat(settings, self.replies, say)
        assert engine.model is not None
        if isinstance(settings, VllmSettings):
            return VllmChat(engine.model, settings)
        return TransformersChat(engine.model, settings.batch)


@dataclass(frozen=True)
class Judge:
    """Who compares two outputs, for a worker process: the annotator `compare`, opened there."""

    engines: Engines
    model: ModelRef  # of the run

    def identity(self) -> str:
        """For store keys."""
        with self.open() as judge:
            return judge.identity

    @contextmanager
    def open(self) -> Iterator[ChatModel]:
        with self.engines.open(self.model, _say) as crew:
            yield crew.annotators[COMPARE]


def _say(text: str) -> None:
    """One line of progress, between the bars of a worker's."""
    tqdm.write(text, file=sys.stderr)
