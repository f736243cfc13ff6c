"""What a plan is made of: its steps, each different one once, and the objects that they hold.

Nothing is asked of the objects (no key, no digest), so that the steps of a plan can be walked where models, data and
hub are missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, TypeVar

from fac.data.mixture import Part
from fac.data.source import Source
from fac.encoder import FeatureEncoder
from fac.held import enclosed, parts
from fac.llm.engines import Judge
from fac.llm.openai import OpenAIChat
from fac.llm.transformers import TransformersChat
from fac.llm.vllm import VllmChat
from fac.model_ref import ModelRef
from fac.prompts import Prompts
from fac.store import Step

T = TypeVar("T")
CHATS = (TransformersChat, VllmChat, OpenAIChat)
WHOLE = (*CHATS, ModelRef, FeatureEncoder, Source, Part, Prompts, Judge, Path)  # looked at as they are, not into


class Steps:
    """The different steps that some targets need, each behind all that it needs itself."""

    def __init__(self, targets: Iterable[Step]) -> None:
        self._marks: dict[int, int] = {}  # by id of a step
        self._known: dict[Hashable, int] = {}
        self._held: list[Any] = []  # what is told by its id must not go
        self._first: dict[int, Step] = {}  # by mark
        for target in targets:
            self.mark(target)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._first.values())

    def mark(self, step: Step) -> int:
        """A number for the step: the same for steps of the same name, parameters, builder and inputs."""
        if id(step) not in self._marks:
            inputs = tuple(self.mark(part) for part in step.before)
            told = (step.name, inputs, self._told(step.params), self._told(step.build))
            self._marks[id(step)] = self._known.setdefault(told, len(self._known))
            self._held.append(step)
            self._first.setdefault(self._marks[id(step)], step)
        return self._marks[id(step)]

    def _told(self, value: Any) -> Hashable:
        """What a value is made of."""
        if value is None or isinstance(value, bool | int | float | str):
            return type(value).__name__, value
        if isinstance(value, Step):
            return "step", self.mark(value)
        if isinstance(value, FeatureEncoder):
            held = (value.model, value.sae, value.chosen_layer, value.settings, value.sae_step.inputs)
            return "encoder", tuple(map(self._told, held))
        if isinstance(value, Path | Prompts):
            return "path", str(value.folder if isinstance(value, Prompts) else value)
        if isinstance(value, Mapping):
            return "mapping", tuple((str(key), self._told(held)) for key, held in value.items())
        if isinstance(value, list | tuple | set | frozenset):
            return "several", tuple(map(self._told, value))
        if isinstance(value, partial):
            return "partial", self._told(value.func), self._told(value.args), self._told(value.keywords)
        if isinstance(value, MethodType):
            return "method", value.__func__.__qualname__, self._told(value.__self__)
        if isinstance(value, FunctionType):
            return "function", value.__module__, value.__qualname__, tuple(map(self._told, enclosed(value)))
        if is_dataclass(value) and not isinstance(value, type):
            return type(value).__name__, tuple(self._told(getattr(value, field.name)) for field in fields(value))
        self._held.append(value)
        return "object", id(value)


def arguments(step: Step) -> dict[str, Any]:
    """What the builder of a step was given beforehand, by the names of its parameters; `self` of a method."""
    build, args, named = step.build, (), {}
    while isinstance(build, partial):
        build, args, named = build.func, (*build.args, *args), {**build.keywords, **named}
    if isinstance(build, MethodType):
        build, args = build.__func__, (build.__self__, *args)
    bound = inspect.signature(build).bind_partial(*args, **named)
    return dict(bound.arguments)


def found_in(step: Step, kind: type[T] | tuple[type[T], ...]) -> Iterator[tuple[str, T]]:
    """Every object of a kind that the step holds, by the name under which it does; the parts of other steps not."""
    for held in (arguments(step), step.params):
        for name, value in held.items():
            for place, found in _things(name, value):
                if isinstance(found, kind):
                    yield place, found


def _things(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, FeatureEncoder):
        yield "model", value.model
    if isinstance(value, WHOLE):
        yield name, value
        return
    if isinstance(value, Step | type):
        return
    if is_dataclass(value):
        yield name, value
    for place, held in parts(name, value):
        yield from _things(place, held)
