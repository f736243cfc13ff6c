"""Steps on a Ray cluster: what `backends.Workers` does on one machine, on as many as the cluster has.

Every node must see the store under the same path (a shared file system) and have this version of the project
installed. Results come back through the store alone, so where a step ran changes nothing, and a step whose worker or
node dies is run again on another one: its folder appears only when it is whole, and a long training goes on from its
last checkpoint.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

from experiments.harness.backends import build, default_workers, one_thread
from fac.errors import FacError
from fac.store import StageEvent, Step

T = TypeVar("T")
RETRIES = 3  # of a chain of steps whose worker or node died


class Cluster:
    """A Ray cluster that works through chains of steps while the caller goes on; it starts with the first chain.

    Each task holds one CPU, and a GPU where the cluster has any: Ray says when one is free.
    """

    def __init__(self, root: Path, workers: int | None, address: str | None) -> None:
        """`address` None starts a cluster of this machine, of `workers` CPUs, that ends with the run.

        Raises FacError if Ray is not installed, if nobody answers there, or if `workers` is said of a cluster that is
        there.
        """
        check(address)
        if address is not None and workers is not None:
            raise FacError(
                f"workers={workers} says nothing about the cluster at {address}, which has CPUs of its own: "
                f"leave it out."
            )
        self._root, self._workers, self._address = root, workers or default_workers(), address
        self._ray: Any = None
        self._running: list[Any] = []

    def submit(self, steps: Iterable[Step]) -> None:
        """Build these steps one after the other, on the cluster; what they need beside each other is finished."""
        self._running.append(self._begun(build, self._root, [step.detached() for step in steps]))

    def results(self) -> Iterator[StageEvent]:
        """What happened to the steps, as they come. Raises the errors of the steps."""
        if not self._running:
            return
        for events in self._as_they_come(self._running, "training and testing", "cell"):
            yield from events

    def each(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Call `work` for every item, on the cluster; returns when all are done. Raises its errors."""
        running = [self._begun(work, item) for item in items]
        try:
            for _ in self._as_they_come(running, "measuring parts of a corpus", "part"):
                pass
        finally:
            for left in running:
                self._ray.cancel(left, force=True)

    def size(self) -> int:
        """How many tasks it has room for at once."""
        resources = self._started().cluster_resources()
        return int(resources.get("GPU") or resources.get("CPU", 1))

    def _begun(self, work: Callable[..., object], *items: Any) -> Any:
        """A task that holds one CPU, and a GPU where the cluster has any."""
        ray = self._started()
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(_alone).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
        return task.remote(work, *items)

    def _as_they_come(self, running: list[Any], what: str, unit: str) -> Iterator[Any]:
        """What tasks that are running return, as they end; those that have are taken from the list."""
        with tqdm(total=len(running), desc=what, unit=unit) as bar:
            while running:
                done, running[:] = self._ray.wait(running)
                yield self._result(done[0])
                bar.update()

    def _result(self, done: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(done)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            raise FacError(
                f"The Ray cluster gave up a task after {RETRIES + 1} tries ({type(error).__name__}; out of memory, "
                f"or its nodes gone?): see `ray status`, and run again; what is done is kept."
            ) from error

    def _started(self) -> Any:
        if self._ray is None:
            self._ray = _connected(self._address, self._workers)
        return self._ray

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error or Ctrl-C nothing runs on; unfinished steps leave no output."""
        if self._ray is None:
            return
        for running in self._running:
            self._ray.cancel(running, force=True)
        self._ray.shutdown()


def check(address: str | None) -> None:
    """Raise FacError if Ray is not installed, or nobody listens at HOST:PORT (Ray itself would try for minutes)."""
    if importlib.util.find_spec("ray") is None:
        raise FacError(
            "Ray is not installed: run `pip install -c constraints.txt -e .[ray]`, or leave out backend=ray."
        )
    if address is None:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise FacError(
            f"No Ray cluster answers at {address} ({error}): give HOST:PORT as `ray start --head` prints it, or leave "
            f"out ray.address for one on this machine."
        ) from error


def _connected(address: str | None, workers: int) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without GPUs hides none
    import ray

    own = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
    return ray


def _alone(work: Callable[..., T], *items: Any) -> T:
    one_thread()
    return work(*items)
