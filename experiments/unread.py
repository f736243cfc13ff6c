"""Settings that nobody reads: what is given on the command line must reach the experiment, or the run is refused.

Everything that is read passes through `experiments.config`, which notes it here; when an experiment has read its
settings and opens its session, what was given and never read is found. So the list of what an experiment reads is its
own code. Only real runs from the command line are watched; a dry run reads in parts what it walks in parts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from fac.errors import FacError

# Where and how a run goes, and choices that set keys in several groups.
ALWAYS = ("dry_run", "experiment.module", "experiment.name", "hydra", "out", "paths", "tracking", "workers")
CHOICES = ("experiment", "parity", "scale", "tasks")
MOST_NAMED = 3


@dataclass
class Watch:
    """What was given on the command line, as KEY -> KEY=VALUE, and the keys that were read."""

    given: dict[str, str]
    read: set[str] = field(default_factory=set)
    replaced: dict[str, str] = field(default_factory=dict)  # keys that are read and not used, and what is used


_current: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watching(given: dict[str, str]) -> Iterator[None]:
    """Within it, what is read is noted, for `check` to compare with what is `given`: KEY -> KEY=VALUE."""
    token = _current.set(Watch(given))
    try:
        yield
    finally:
        _current.reset(token)


def note(*keys: str) -> None:
    """These keys, or groups with all their keys, are read."""
    if watch := _current.get():
        watch.read.update(keys)


def replaced(key: str, by: str) -> None:
    """What was read under `key` is not used in this run: another key takes its place."""
    if watch := _current.get():
        watch.replaced[key] = by


def check(known: Sequence[str]) -> None:
    """Raise FacError for a setting that was given and not read; `known` are all keys of the configuration."""
    watch = _current.get()
    if watch is None:
        return
    for key, setting in watch.given.items():
        if setting.endswith("=null"):  # to do without it, as the run does
            continue
        other = watch.replaced.get(key)
        if other is None and (key in CHOICES or _is_read(key, ALWAYS) or _is_read(key, watch.read)):
            continue
        others = f", or set {other}" if other else _instead(key, [name for name in known if _is_read(name, watch.read)])
        raise FacError(f"Nothing in this run reads {key}, so {setting} would change no number: leave it out{others}.")


def _is_read(key: str, read: Sequence[str] | set[str]) -> bool:
    """Whether the key, the group it stands in or a key of the group that it is, is among those read."""
    return any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in read)


def _instead(key: str, names: Sequence[str]) -> str:
    """Keys that are read and mean the same elsewhere: of the longest common end, or of a like name."""
    parts = key.split(".")
    for start in range(len(parts)):
        end = ".".join(parts[start:])
        if found := [name for name in names if name.endswith(f".{end}")]:
            more = ", ..." if len(found) > MOST_NAMED else ""
            return f", or set {', '.join(found[:MOST_NAMED])}{more}"
    last = {name.rpartition(".")[2]: name for name in names}
    like = difflib.get_close_matches(parts[-1], last, 1)
    return f", or set {last[like[0]]}" if like else ""
