"""Walking through an experiment without doing it: its own code runs, and finds what is stored instead of building it.

Knows: how a walk is switched on, and what it notes on its way. Does not know: experiments, configuration, how a plan is
printed (`experiments.dry_run`). `Session` and `Cells` ask `current_walk()` and leave everything unwritten if there is
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fac.store import Artifact, StageEvent, Store

_current: ContextVar[Walk | None] = ContextVar("walk", default=None)


class NotStored(Exception):
    """The end of a walk: the stage `name` is not in the store, so what comes behind it cannot be known yet."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass
class Walk:
    """What one walk has met: stages that are stored, in order, and cells with the stages that they lack."""

    found: list[StageEvent] = field(default_factory=list)
    cells: list[tuple[Any, tuple[str, ...]]] = field(default_factory=list)  # a Job, and what is left of it to do

    def store(self, root: Path) -> Store:
        """The store at `root`, in which nothing is built."""
        return _FindingStore(root, self.found.append)


@contextmanager
def walking() -> Iterator[Walk]:
    """Within it, sessions and cells write nothing and build nothing. `NotStored` comes out at the first gap."""
    walk = Walk()
    token = _current.set(walk)
    try:
        yield walk
    finally:
        _current.reset(token)


def current_walk() -> Walk | None:
    """The walk that is under way, or None: the experiment is run for real."""
    return _current.get()


class _FindingStore(Store):
    def stage(
        self, name: str, build: Callable[[Path], object], *, resumable: bool = False, **identity: Any
    ) -> Artifact:
        if not self.has(name, **identity):
            raise NotStored(name)
        return super().stage(name, build, resumable=resumable, **identity)
