"""Where steps run: in this process one after the other, those that may (`Step.parallel`) in worker processes.

`cluster.py` is the same on a Ray cluster.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

from fac.errors import FacError
from fac.processes import die_with
from fac.store import StageEvent, Step, Store, missing

Events = tuple[StageEvent, ...]


def build(root: Path, steps: Sequence[Step]) -> Events:
    """Build steps one after the other in the store at `root`; what happened to them. Runs in a worker."""
    events: list[StageEvent] = []
    store = Store(root, events.append)
    for step in steps:
        store.get(step)
    return tuple(events)


class Backend(Protocol):
    """Works through chains of steps while the caller goes on; a context manager that leaves nothing running."""

    def submit(self, steps: Iterable[Step]) -> None: ...

    def results(self) -> Iterator[StageEvent]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Workers:
    """A pool of processes, one thread each, that works through chains of steps while the caller goes on."""

    def __init__(self, root: Path, workers: int | None) -> None:
        self._root, self._workers = root, workers or default_workers()
        self._pool: ProcessPoolExecutor | None = None
        self._futures: list[Future[Events]] = []

    def submit(self, steps: Iterable[Step]) -> None:
        """Build these steps one after the other, in a process; what they need beside each other is finished."""
        chain = [step.detached() for step in steps]
        self._futures.append(self._processes().submit(build, self._root, chain))

    def results(self) -> Iterator[StageEvent]:
        """What happened to the steps, as they come. Raises the errors of the steps."""
        futures, self._futures = self._futures, []
        if not futures:
            return
        try:
            with tqdm(total=len(futures), desc="training and testing", unit="cell") as bar:
                for future in as_completed(futures):
                    yield from future.result()
                    bar.update()
        except BrokenProcessPool:
            raise FacError(
                "A training process was killed (out of memory?): run again with fewer workers=N; what is done is kept."
            ) from None

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_start_worker, initargs=(os.getpid(),))
        return self._pool

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if error is not None and not isinstance(error, Exception):  # a user who leaves does not wait for steps in hand
            self._kill()
        try:
            self._pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:  # while waiting, after an error
            self._kill()
            self._pool.shutdown(wait=True)
            raise

    def _kill(self) -> None:
        """End the workers: unfinished steps leave no output, and a long training goes on from its last checkpoint."""
        assert self._pool is not None
        for process in list((self._pool._processes or {}).values()):
            process.kill()


def default_workers() -> int:
    """One process per core; one in all where a GPU does the work."""
    return 1 if on_gpu() else len(os.sched_getaffinity(0))


def on_gpu() -> bool:
    """Whether a GPU does the work."""
    import torch

    return torch.cuda.is_available()


def advance(targets: Iterable[Step], store: Store, submit: Callable[[list[Step]], object]) -> list[Step]:
    """Build what the targets need, in their order, but for steps that may run in parallel: those are submitted.

    Returns the targets of which a step of this process needs one that was submitted: to be gone on with when those have
    come (`Backend.results`).
    """
    submitted: set[tuple[str, str]] = set()
    left = []
    for target in targets:
        chain: dict[tuple[str, str], Step] = {}
        waiting: set[tuple[str, str]] = set()
        for step in missing([target], store):
            place, needed = (step.name, step.key), {(part.name, part.key) for part in step.before}
            if needed & waiting or (not step.parallel and needed & chain.keys()):
                waiting.add(place)
            elif step.parallel:
                chain[place] = step
            else:
                store.get(step)
        if waiting:
            left.append(target)
        if not chain.keys() <= submitted:  # what another chain builds as well is waited for
            submitted |= chain.keys()
            submit([*chain.values()])
    return left


def _start_worker(parent: int) -> None:
    die_with(parent)
    one_thread()


def one_thread() -> None:
    """Called in a worker: the number of workers changes no result, and their notes would not be seen."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    torch.set_num_threads(1)
