"""Cells of a table: one trained thing per row and seed, trained and tested in worker processes, through the store.

Knows: how cells share the cores. Does not know: how a task trains and tests (`experiments.tasks`), or how the rows were
made.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from eval.statistics import Replicates
from experiments.job import Job
from experiments.harness.results import Cell, PaperNumber, measured
from experiments.session import Session
from experiments.tasks import TASKS
from experiments.tasks.base import load_replicates
from experiments.walk import NotStored, current_walk
from fac.errors import FacError
from fac.jsonl import write_json_atomic
from fac.processes import die_with
from fac.steps import version_of
from fac.store import Artifact, StageEvent, Store, stage_key

SCORES = "scores"  # the stage that tests a cell
UNTRAINED = "untrained"  # stands for training, where a model is tested as it is
RUNS = ".runs"  # folder of the store: which tracked run a cell is, by the key of its scores


@dataclass(frozen=True)
class Scored:
    """A finished cell. Metrics are fractions."""

    job: Job
    metrics: dict[str, float]
    trained: Artifact
    scored: Artifact
    events: tuple[StageEvent, ...]
    replicates: Replicates = field(default_factory=dict)  # of metrics, over the test's items


def percent_cell(
    cells: Iterable[tuple[Scored, str]],
    metric: str,
    row: str,
    column: str,
    paper: PaperNumber | None = None,
    unit: str = "percent",
) -> Cell:
    """One metric of finished cells that differ in their seed only, in percent, with their MLflow runs."""
    found = sorted(cells, key=lambda cell: cell[0].job.seed)
    drawn = [100 * cell.replicates[metric] for cell, _ in found if metric in cell.replicates]
    by_seed = {cell.job.seed: 100 * cell.metrics[metric] for cell, _ in found}
    runs = [run for _, run in found if run]
    return measured(row, column, by_seed, paper=paper, run_ids=runs, replicates=drawn, unit=unit)


def run_job(job: Job) -> Scored:
    """Train and test one cell, through the store."""
    task = TASKS[job.task]
    events: list[StageEvent] = []
    store = Store(job.store, events.append)

    def test(folder: Path) -> None:
        (folder / "metrics.json").write_text(json.dumps(task.test(job, trained.path, folder)))

    def train(folder: Path) -> None:
        if not job.untrained:
            task.train(job, folder)

    stage, _ = stages_of(job)
    trained = store.stage(stage, train, params=job.params, inputs=job.train, resumable=True)
    scored = store.stage(SCORES, test, params=_test_params(job), inputs=_tested_on(job, trained), resumable=True)
    metrics = json.loads((scored.path / "metrics.json").read_text())
    return Scored(job, metrics, trained, scored, tuple(events), load_replicates(scored.path))


def _tested_on(job: Job, trained: Artifact | str) -> list[Artifact | str]:
    return [trained, job.test, *(job.others[name] for name in sorted(job.others))]


def _test_params(job: Job) -> dict[str, object]:
    """Of a cell that a judge compares: who it is. How it is asked is an input (`others`)."""
    return {"judge": job.judge.identity()} if job.judge and job.others else {}


def stages_of(job: Job) -> tuple[str, str]:
    """Training and testing of a cell, as their stages are called."""
    return UNTRAINED if job.untrained else TASKS[job.task].stage, SCORES


def stages_left(job: Job) -> tuple[str, ...]:
    """The stages of a cell that are not in the store: none, testing, or training and testing."""
    store, (stage, _) = Store(job.store), stages_of(job)
    if not store.has(stage, params=job.params, inputs=job.train):
        return stages_of(job)
    key = stage_key(stage, version_of(stage), job.params, job.train)
    tested = store.has(SCORES, params=_test_params(job), inputs=_tested_on(job, key))
    return () if tested else (SCORES,)


def track(session: Session, cell: Scored) -> tuple[Scored, str]:
    """Record a finished cell; the id of its MLflow run is kept beside it, so a rerun's table is the same."""
    session.events += [event for event in cell.events if event.kind != "started"]
    note = cell.job.store / RUNS / f"{cell.scored.key}.json"
    if not note.exists():
        job = cell.job
        run_id = session.tracker.stage(
            cell.events[0].name,
            seconds=sum(e.seconds for e in cell.events),
            params={"row": job.row, "group": job.group},
            metrics=cell.metrics,
            tags={"seed": job.seed, "method": job.row, "task": job.task},
        )
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(note, run_id or "")
    return cell, json.loads(note.read_text())


class Cells:
    """A pool of processes, one thread each, that works through jobs while the caller goes on.

    Where a GPU does the work (`wait`) they start with `results`: the caller's encoder and writer, and a cell's training
    do not fit beside each other. Whoever asks for results has closed and released what it held.
    """

    def __init__(self, workers: int, wait: bool | None = None) -> None:
        self._workers, self._wait = workers, on_gpu() if wait is None else wait
        self._waiting: list[Job] = []
        self._pool: ProcessPoolExecutor | None = None
        self._futures: list[Future[Scored]] = []

    def submit(self, jobs: Sequence[Job]) -> None:
        walk = current_walk()
        for job in jobs:
            left = stages_left(job)
            if walk is not None:
                walk.cells.append((job, left))
            elif not left:  # found, not computed: starting a process would take longer
                done: Future[Scored] = Future()
                done.set_result(run_job(job))
                self._futures.append(done)
            elif self._wait:
                self._waiting.append(job)
            else:
                self._futures.append(self._processes().submit(run_job, job))

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_start_worker, initargs=(os.getpid(),))
        return self._pool

    def results(self) -> Iterator[Scored]:
        """Finished cells, as they come. A dry run ends here: what follows is written."""
        if current_walk() is not None:
            raise NotStored("table")
        self._futures += [self._processes().submit(run_job, job) for job in self._waiting]
        self._waiting = []
        try:
            with tqdm(total=len(self._futures), desc="training and testing", unit="cell") as bar:
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
        if self._pool is None:
            return
        if error is not None and not isinstance(error, Exception):  # a user who leaves does not wait for cells in hand
            self._kill()
        try:
            self._pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:  # while waiting, after an error
            self._kill()
            self._pool.shutdown(wait=True)
            raise

    def _kill(self) -> None:
        """End the workers: a stage is whole or not there, and a long training goes on from its last checkpoint."""
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


def _start_worker(parent: int) -> None:
    import torch
    from transformers.utils import logging as transformers_logging

    die_with(parent)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
