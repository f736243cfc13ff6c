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
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from experiments.harness.backends import Events, build, default_workers, one_thread
from fac.errors import FacError
from fac.store import StageEvent, Step

RETRIES = 3  # of a chain of steps whose worker or node died


class Cluster:
    """A Ray cluster that works through chains of steps while the caller goes on; it starts with the first chain.

    Each chain holds one CPU, and a GPU where the cluster has any: Ray says when one is free.
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
        ray = self._started()
        chain = [step.detached() for step in steps]
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(_build).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
        self._running.append(task.remote(self._root, chain))

    def results(self) -> Iterator[StageEvent]:
        """What happened to the steps, as they come. Raises the errors of the steps."""
        if not self._running:
            return
        with tqdm(total=len(self._running), desc="training and testing", unit="cell") as bar:
            while self._running:
                done, self._running = self._ray.wait(self._running)
                yield from self._result(done[0])
                bar.update()

    def _result(self, done: Any) -> Events:
        errors = self._ray.exceptions
        try:
            return self._ray.get(done)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            raise FacError(
                f"The Ray cluster gave up a training after {RETRIES + 1} tries ({type(error).__name__}; out of memory, "
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


def _build(root: Path, steps: list[Step]) -> Events:
    one_thread()
    return build(root, steps)
