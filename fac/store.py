"""Stage outputs keyed by content: what was computed once is found again, and a killed run continues.

Layout: ROOT/NAME/KEY/ holds what the stage wrote and `stage.json`, the record of how, on which machine and with which
code; it appears in one step, so a folder that is there is whole. Work in progress is in ROOT/NAME/.partial-KEY/.

All that decides a result is in the key, in full, whether it was set or is a default, with the version of the step's
code (`fac.steps`). What changes how a stage is computed but not its result (batch size, workers) has no place in it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, Literal

import numpy as np

from fac.errors import FacError
from fac.held import parts
from fac.jsonl import write_json_atomic
from fac.provenance import made_with
from fac.steps import version_of

logger = logging.getLogger(__name__)

RECORD = "stage.json"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


@dataclass(frozen=True, eq=False)
class Step:
    """One computation whose result the store keeps. Its key is known before it, or anything before it, has run.

    `build(folder, *inputs)` writes the result under `folder` and reads the folders of the inputs, in their order;
    `params` hold everything else that decides it (see `stage_key`). With `resumable`, `build` gets the folder as a
    killed run left it. `parallel` steps may run in another process, so that their `build` can be pickled, and need
    nothing but the folders of their inputs.
    """

    name: str
    build: Callable[..., object]
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Step, ...] = ()
    resumable: bool = False
    parallel: bool = False

    @cached_property
    def before(self) -> tuple[Step, ...]:
        """What is finished before it is built: its inputs, and the steps that make the models it works with."""
        return (*dict.fromkeys(_makers((self.params, self.build))), *self.inputs)

    @cached_property
    def key(self) -> str:
        """Raises FacError where something that decides the step (a model, a data set) is not there."""
        return stage_key(self.name, version_of(self.name), self.params, [step.key for step in self.inputs])

    def detached(self) -> Step:
        """The step with its inputs by key alone: what another process needs."""
        inputs = tuple(map(Stored, self.inputs))
        return replace(self, params=_plain(self.params, "params"), inputs=inputs)


class Stored(Step):
    """A step that is finished: its name and key, without the way to build it."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.name, _not_here)
        self.__dict__["key"] = step.key


def _not_here(folder: Path) -> None:
    raise AssertionError(f"{folder} was to be finished before")


def _makers(value: Any) -> Iterator[Step]:
    """The steps that make what a value holds: those which the objects in it name as `made_by`."""
    if isinstance(value, Step):
        return
    if isinstance(makers := getattr(value, "made_by", None), tuple):
        yield from makers
        return
    for _, part in parts("", value):
        yield from _makers(part)


def missing(targets: Iterable[Step], store: Store) -> list[Step]:
    """What `Store.get` of all targets would build, each once, in the order in which it would.

    A finished step needs nothing before it. Raises FacError as `Step.key` does.
    """
    found: dict[tuple[str, str], Step] = {}
    stored: set[tuple[str, str]] = set()

    def visit(step: Step) -> None:
        place = (step.name, step.key)
        if place in found or place in stored:
            return
        if store.find(step):
            stored.add(place)
            return
        for part in step.before:
            visit(part)
        found[place] = step

    for target in targets:
        visit(target)
    return list(found.values())


@dataclass(frozen=True)
class StageEvent:
    """What happened to a stage. Costs are 0 for "started"; for "reused" they are those of the build it saved."""

    kind: Literal["started", "built", "reused"]
    name: str
    key: str
    seconds: float = 0.0  # wall time of the process that finished the stage
    cpu_seconds: float = 0.0  # user + system time of that process and the children it waited for


@dataclass(frozen=True)
class Origin:
    """With what steps were computed (`fac.provenance.made_with`), and how many of them."""

    commit: str | None
    versions: Mapping[str, str]
    host: Mapping[str, Any]
    steps: int


def stage_key(name: str, version: int, params: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """20 hex digits of SHA-256 over what decides a stage's output. Any change changes it, the order of keys does not.

    `params` may hold None, booleans, numbers (numpy's too), strings, mappings with string keys, sequences, dataclasses,
    objects with an `identity` (a value, or a method that gives it), which stands for them, and functions without
    arguments, for which their value stands: what has to be looked up is looked up when a key is asked for. Raises
    TypeError for anything else: a path, for one, says where data are, not which.
    """
    identity = [name, version, _plain(params, "params"), list(inputs)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


class Store:
    """A folder of finished stages. Processes and machines that share it share the work."""

    def __init__(self, root: Path, on_event: Callable[[StageEvent], None] | None = None) -> None:
        self.root = Path(root).absolute()
        self._on_event = on_event or (lambda _: None)

    def find(self, step: Step) -> Path | None:
        """The folder of a finished step; None if it is not finished. Touches nothing."""
        path = self.root / step.name / step.key
        return path if path.is_dir() else None

    def get(self, step: Step) -> Path:
        """The folder of a step, built now (after those of its inputs that are missing) if it is not finished.

        If another process builds it, wait for it; should that process die, build here. The file name stage.json is
        taken. Raises FacError if the disk is full or the store cannot be written; errors of `build` pass through.
        """
        if not re.fullmatch(r"\w[\w.-]*", step.name):
            raise ValueError(f"a step's name is one folder name, not {step.name!r}")
        path = self.root / step.name / step.key
        if not path.is_dir():
            for part in step.before:  # one at a time: what is loaded for one is given back before the next
                self.get(part)
            with self._clear_errors(), _locked(path):
                if not path.is_dir():  # another process may have built it meanwhile
                    self._build(step, path)
                    return path
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        self._on_event(StageEvent("reused", step.name, step.key, record["seconds"], record["cpu_seconds"]))
        return path

    def mend(self, steps: Iterable[Step]) -> list[str]:
        """Take away what is damaged of these steps and of all before them, so that it is built again; what was found.

        Every file is compared with the checksum that its step was finished with (steps that older code finished have
        none, and are taken as they are). Inputs of finished steps count, too: another step may be built from them.
        """
        told: dict[Path, str] = {}
        seen: set[tuple[str, str]] = set()

        def look(step: Step) -> None:
            if (step.name, step.key) in seen:
                return
            seen.add((step.name, step.key))
            for part in step.before:
                look(part)
            path = self.find(step)
            if path is not None and (fault := damage_of(path)):
                with self._clear_errors(), _locked(path):
                    if path.is_dir() and damage_of(path):  # another process may have mended it meanwhile
                        shutil.rmtree(path)
                told[path] = f"{step.name} {step.key[:8]} is damaged ({fault}): it is made again"

        for step in steps:
            look(step)
        return list(told.values())

    def origins(self, steps: Iterable[tuple[str, str]]) -> list[Origin]:
        """With what the steps (name, key) were computed: every different origin, that of the most steps first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for name, key in sorted(set(steps)):
            made = json.loads((self.root / name / key / RECORD).read_text(encoding="utf-8"))["made_with"]
            found.setdefault(json.dumps(made, sort_keys=True), []).append(made)
        return [
            Origin(**made[0], steps=len(made)) for _, made in sorted(found.items(), key=lambda f: (-len(f[1]), f[0]))
        ]

    def outdated(self) -> int:
        """How many finished stages were made by code of another version, under whose keys nothing looks any more."""
        count = 0
        for path in self.root.glob(f"[!.]*/[!.]*/{RECORD}"):
            with suppress(OSError, ValueError, KeyError):
                record = json.loads(path.read_text(encoding="utf-8"))
                count += record["version"] != version_of(record["name"])
        return count

    def _build(self, step: Step, path: Path) -> None:
        record: dict[str, Any] = {"name": step.name, "version": version_of(step.name)}
        record["params"] = _plain(step.params, "params")
        record["inputs"] = [{"name": part.name, "key": part.key} for part in step.inputs]
        self._on_event(StageEvent("started", step.name, step.key))
        partial = path.with_name(f".partial-{step.key}")
        if not step.resumable and partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        wall, cpu = time.perf_counter(), _cpu_seconds()
        try:
            step.build(partial, *(self.root / part.name / part.key for part in step.inputs))
        except BaseException:
            if not step.resumable:  # it would not be read again
                shutil.rmtree(partial, ignore_errors=True)
            raise
        seconds, cpu_seconds = round(time.perf_counter() - wall, 3), round(_cpu_seconds() - cpu, 3)
        record |= {"seconds": seconds, "cpu_seconds": cpu_seconds, "finished": datetime.now(UTC).isoformat()}
        record["made_with"] = made_with()
        record["files"] = {str(file.relative_to(partial)): digest_in(file) for file in _files(partial)}
        write_json_atomic(partial / RECORD, record)
        _sync(partial)
        os.rename(partial, path)
        self._on_event(StageEvent("built", step.name, step.key, seconds, cpu_seconds))

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Say a full disk or a store that cannot be written in one sentence."""
        try:
            yield
        except OSError as error:
            named = error.filename is not None
            inside = named and Path(os.fsdecode(error.filename)).is_relative_to(self.root)
            if error.errno in DISK_FULL and (inside or not named):
                problem, mend = "ran out of space", "free some, or choose a store on a larger disk"
            elif error.errno in NOT_WRITABLE and inside:
                problem, mend = "cannot be written", "make the folder writable, or choose another store"
            else:
                raise
            raise FacError(
                f"The store {self.root} {problem} ({error.strerror}): "
                f"{mend}, and run again; it continues where it stopped."
            ) from error


def damage_of(path: Path) -> str:
    """What of a finished step's folder is not as it was written; "" if all is."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        kept: Mapping[str, str] = record.get("files", {})
    except (OSError, ValueError, AttributeError):
        return f"{RECORD} cannot be read"
    for name, digest in kept.items():
        try:
            found = digest_in(path / name)
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != digest:
            return f"{name} is not what was written"
    return ""


def digest_in(file: Path) -> str:
    """20 hex digits of SHA-256 over a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:20]


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


@contextmanager
def _locked(finished: Path) -> Iterator[None]:
    """Hold the lock of a step's folder; the kernel drops it with the process that holds it, however that ends.

    The file goes when the lock is given back, also after an error. Who waited for it meanwhile then holds the lock of a
    file that nobody else can see, and asks again.
    """
    finished.parent.mkdir(parents=True, exist_ok=True)
    path = finished.with_name(f".lock-{finished.name}")
    while True:
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for the process that builds %s %s", finished.parent.name, finished.name)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_open_at(path, lock.fileno()):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def _is_open_at(path: Path, fd: int) -> bool:
    """Whether the open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _plain(value: Any, where: str) -> Any:
    """`value` as plain JSON types; raises TypeError, naming the place, for what has no stable JSON form."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if (identity := getattr(value, "identity", None)) is not None and not isinstance(value, type):
        return _plain(identity() if callable(identity) else identity, where)
    if isinstance(value, (FunctionType, MethodType, partial)):
        return _plain(value(), where)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}[{index}]") for index, part in enumerate(value)]
    hint = (
        "use the content's digest or an input's key instead" if isinstance(value, os.PathLike) else "use plain values"
    )
    raise TypeError(f"{where} is a {type(value).__name__}, which has no place in a stage's key: {hint}")


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _sync(folder: Path) -> None:
    """Bring a folder to disk, so that after a power failure no half-written file wears a finished name."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() or (path.is_file() and not path.is_symlink()):
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
