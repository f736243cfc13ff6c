"""The cells of the toxicity column: one classifier per row, protocol and seed, trained and tested in worker processes.

Knows: which texts train a cell, and how cells share the cores. Does not know: how the texts were made.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from fac.backbone import ModelRef
from fac.data.corpus import Corpus
from fac.errors import FacError
from fac.store import Artifact, StageEvent, Store, stage_key
from fac.train.classifier import ClassifierSettings

PROTOCOLS = {
    "added": "synthetic texts added to the seed's positives",
    "alone": "synthetic texts in place of the seed's positives, as the released scripts train",
}


@dataclass(frozen=True)
class Job:
    """One cell; all that a worker needs."""

    row: str
    protocol: str
    seed: int
    store: Path
    model: ModelRef
    settings: ClassifierSettings
    train: tuple[Artifact, ...]  # corpora, one after the other
    test: Artifact


@dataclass(frozen=True)
class Scored:
    """A finished cell. Metrics are fractions."""

    job: Job
    metrics: dict[str, float]
    classifier: Artifact
    events: tuple[StageEvent, ...]


def training_corpora(protocol: str, safe: Artifact, seed: Artifact, added: Artifact | None) -> tuple[Artifact, ...]:
    """The corpora that a row trains on; a row that adds nothing (the baseline) is the seed data in every protocol."""
    if added is None:
        return (safe, seed)
    return (safe, seed, added) if protocol == "added" else (safe, added)


def run_job(job: Job) -> Scored:
    """Train and test one cell, through the store."""
    events: list[StageEvent] = []
    store = Store(job.store, events.append)

    def train(folder: Path) -> None:
        from fac.train.classifier import train_classifier

        examples = [(e.messages, int(e.label or 0)) for part in job.train for e in Corpus.load(part.path)]
        log = train_classifier(job.model.path, job.model.revision, examples, job.settings, job.seed, folder)
        (folder / "losses.json").write_text(json.dumps(log.losses))

    def test(folder: Path) -> None:
        from eval.classification import evaluate
        from fac.train.classifier import load_classifier

        corpus = Corpus.load(job.test.path)
        if corpus.labels() is None:
            raise FacError("The test set has no labels: name their column.")
        pairs = ((e.messages, int(e.label or 0)) for e in corpus)
        metrics = evaluate(load_classifier(trained.path, job.model.path), pairs)
        (folder / "metrics.json").write_text(json.dumps(metrics))

    trained = store.stage("classifier", train, params=_params(job), inputs=job.train)
    scored = store.stage("scores", test, inputs=[trained, job.test])
    return Scored(job, json.loads((scored.path / "metrics.json").read_text()), trained, tuple(events))


def _params(job: Job) -> dict[str, object]:
    return {"model": job.model.identity(), "seed": job.seed, **asdict(job.settings)}


def _is_finished(job: Job) -> bool:
    store, params = Store(job.store), _params(job)
    key = stage_key("classifier", 1, params, job.train)
    return store.has("classifier", params=params, inputs=job.train) and store.has("scores", inputs=[key, job.test])


class Cells:
    """A pool of processes, one thread each, that works through jobs while the caller goes on."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._futures: list[Future[Scored]] = []

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if _is_finished(job):  # found, not computed: starting a process would take longer
                done: Future[Scored] = Future()
                done.set_result(run_job(job))
                self._futures.append(done)
            else:
                self._futures.append(self._processes().submit(run_job, job))

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_start_worker, initargs=(os.getpid(),))
        return self._pool

    def results(self) -> Iterator[Scored]:
        """Finished cells, as they come."""
        try:
            with tqdm(total=len(self._futures), desc="training classifiers", unit="cell") as bar:
                for future in as_completed(self._futures):
                    yield future.result()
                    bar.update()
        except BrokenProcessPool:
            raise FacError(
                "A training process was killed (out of memory?): run again with fewer workers=N; cells are kept."
            ) from None

    def __enter__(self) -> Cells:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            if kind is KeyboardInterrupt:  # do not wait for cells in hand: a stage is whole or not there
                for process in multiprocessing.active_children():
                    process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)


def default_workers() -> int:
    """One process per core; one in all where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def _start_worker(parent: int) -> None:
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed run leaves no orphans
        if os.getppid() != parent:
            os._exit(1)
