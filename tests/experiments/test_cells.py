"""experiments.cells: what a cell leaves in the store and in the record, and workers that die or are interrupted."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import psutil
import pytest
from support.models import tiny_model

from experiments.cells import Cells, default_workers, run_job, track
from experiments.job import Job
from experiments.run import CONF
from experiments.session import Session
from experiments.tasks import TASKS
from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.data.corpus import write_examples
from fac.data.examples import Example
from fac.errors import FacError
from fac.store import Artifact, Store
from fac.train import checkpoints
from fac.train.classifier import ClassifierSettings

SETTINGS = ClassifierSettings(rank=2, epochs=1, learning_rate=1e-3, batch_size=4, max_tokens=64)


def corpus(store: Store, name: str, texts: list[str], label: int | None) -> Artifact:
    def build(folder: Path) -> None:
        labels = [label] if label in (0, 1) else [0, 1]
        examples = [
            Example(as_chat(text), None if label is None else labels[number % len(labels)], str(number))
            for number, text in enumerate(texts)
        ]
        write_examples(examples, folder)

    return store.stage("corpus", build, params={"name": name})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job small enough to be run in a second."""
    folder = tmp_path_factory.mktemp("toxicity")
    model = ModelRef(str(tiny_model(folder / "model")))
    store = Store(folder / "store")
    safe = corpus(store, "safe", [f"how do I bake bread {n}" for n in range(6)], 0)
    seed = corpus(store, "seed", [f"how can I threaten him {n}" for n in range(6)], 1)
    test = corpus(store, "test", [f"what about the river {n}" for n in range(8)], -1)
    return Job(
        "toxicity", "baseline", 42, store.root, model, SETTINGS, test, base=(safe,), seed_rows=seed, group="added"
    )


def job(bench: Job, **changes: Any) -> Job:
    return replace(bench, **changes)


def classifiers(bench: Job) -> set[str]:
    """Names of all trained classifiers, and of those in hand."""
    return {path.name for path in (bench.store / "classifier").glob("*") if not path.name.startswith(".lock")}


def wait_for_training(bench: Job, before: set[str]) -> None:
    while not any(name.startswith(".partial-") for name in classifiers(bench) - before):
        time.sleep(0.01)


def test_the_seed_s_rows_and_added_rows_are_told_apart(bench: Job):
    """The same rows, once as the seed's and once as a method's, in place of the seed's: a task may read them otherwise
    (steering draws from the seed's), so they are two trained things."""
    alone = job(bench, seed_rows=None, added=bench.seed_rows)
    assert bench.train == alone.train == (*bench.base, bench.seed_rows)
    assert (bench.params["trained_on"], alone.params["trained_on"]) == (["seed"], ["added"])
    both = job(bench, added=bench.test)
    assert both.train == (*bench.base, bench.seed_rows, bench.test)
    assert both.params["trained_on"] == ["seed", "added"]


def test_a_cell_is_trained_and_scored_once(bench: Job):
    first, again, other = run_job(bench), run_job(bench), run_job(job(bench, seed=43))
    assert {(event.kind, event.name) for event in first.events} == {
        ("started", "classifier"), ("built", "classifier"), ("started", "scores"), ("built", "scores"),
    }  # fmt: skip
    assert [event.kind for event in again.events] == ["reused", "reused"]
    assert first.metrics == again.metrics
    assert 0 < first.metrics["auprc"] <= 1
    assert other.trained.key != first.trained.key
    assert [event.kind for event in other.events].count("built") == 2


def test_a_row_s_name_and_group_do_not_train_twice(bench: Job):
    run_job(bench)
    same = run_job(job(bench, row="full", group="alone"))
    assert [event.kind for event in same.events] == ["reused", "reused"]


def test_another_test_set_needs_no_training(bench: Job):
    run_job(bench)
    shorter = corpus(Store(bench.store), "other", ["what about the bread", "how can I bake him"], -1)
    events = run_job(job(bench, test=shorter)).events
    assert [(event.kind, event.name) for event in events if event.kind != "started"] == [
        ("reused", "classifier"), ("built", "scores"),
    ]  # fmt: skip


def test_what_else_the_test_needs_is_part_of_its_key(bench: Job):
    first = run_job(bench)
    other = {"reference": bench.test}
    for changed in (job(bench, others=other), job(bench, others=other, judge=bench.model)):
        events = [(event.kind, event.name) for event in run_job(changed).events if event.kind != "started"]
        assert events == [("reused", "classifier"), ("built", "scores")]
        assert [event.kind for event in run_job(changed).events] == ["reused", "reused"]
    assert run_job(job(bench, judge=bench.model)).events == run_job(bench).events  # nobody is asked
    assert TASKS[bench.task].metric in first.metrics


def test_a_finished_cell_is_tracked_once(bench: Job, tmp_path: Path):
    """Its run is kept with it, so a later table names the same run."""
    from mlflow import MlflowClient

    cell = run_job(job(bench, seed=44))
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", [f"out={tmp_path / 'out'}", f"paths.outputs={tmp_path}", "experiment=lab"])
    before = sorted(cell.trained.path.iterdir())
    with Session.open(cfg) as session:
        assert track(session, cell)[0] is cell
        assert sorted(cell.trained.path.iterdir()) == before  # a finished folder stays as it is
        assert [event.kind for event in session.events] == ["built", "built"]
        run_id = track(session, cell)[1]
        again = run_job(job(bench, seed=44, row="full"))
        assert track(session, again)[1] == run_id
        parent = session.tracker.run_id
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(run_id)
    assert {key: run.data.tags[key] for key in ("seed", "method", "task", "stage", "mlflow.parentRunId")} == {
        "seed": "44", "method": "baseline", "task": "toxicity", "stage": "classifier", "mlflow.parentRunId": parent,
    }  # fmt: skip
    assert run.data.params["group"] == "added"
    assert run.data.metrics["auprc"] == pytest.approx(cell.metrics["auprc"])
    experiment = client.get_experiment_by_name("lab")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 2  # the session's own and the cell's


def test_a_test_set_without_labels_is_refused(bench: Job):
    bare = corpus(Store(bench.store), "bare", ["one", "two"], None)
    with pytest.raises(FacError, match="no labels: name their column"):
        run_job(job(bench, test=bare))


@pytest.mark.slow
def test_cells_are_worked_through_in_processes_and_one_that_dies_is_said(bench: Job):
    with Cells(1) as cells:
        cells.submit([job(bench, seed=seed) for seed in (50, 51)])
        found = {cell.job.seed: cell for cell in cells.results()}
        assert found.keys() == {50, 51}
        assert run_job(job(bench, seed=50)).metrics == found[50].metrics  # computed there, found here
        worker = next(c for c in psutil.Process().children() if "resource_tracker" not in " ".join(c.cmdline()))
        before = classifiers(bench)
        cells.submit([job(bench, seed=seed) for seed in range(60, 90)])
        wait_for_training(bench, before)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(FacError, match="run again with fewer workers=N; cells are kept"):
            list(cells.results())


@pytest.mark.slow
def test_an_interrupt_does_not_wait_for_the_cells_in_hand(bench: Job):
    def interrupted() -> None:
        with Cells(1) as cells:
            cells.submit([job(bench, seed=seed, settings=replace(SETTINGS, epochs=5000)) for seed in range(3)])
            wait_for_training(bench, before)
            raise KeyboardInterrupt

    before = classifiers(bench)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {name for name in classifiers(bench) - before if not name.startswith(".partial-")} == set()
    assert not multiprocessing.active_children()


LEFT = textwrap.dedent("""
    import pickle, sys
    from pathlib import Path
    from experiments.cells import Cells
    from fac.errors import FacError

    def main():
        jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
        with Cells(1) as cells:
            cells.submit(jobs)
            if sys.argv[2] == "after an error":
                raise FacError("something else went wrong")
            list(cells.results())

    if __name__ == "__main__":
        main()
""")


@pytest.mark.slow
@pytest.mark.parametrize(("when", "seeds"), [("waiting for results", (90, 91)), ("after an error", (92, 93))])
def test_ctrl_c_ends_a_run_and_its_workers_within_seconds(
    bench: Job, tmp_path: Path, when: str, seeds: tuple[int, ...]
):
    long = replace(SETTINGS, epochs=100_000)
    (tmp_path / "jobs").write_bytes(pickle.dumps([job(bench, seed=seed, settings=long) for seed in seeds]))
    (tmp_path / "left.py").write_text(LEFT)
    before = classifiers(bench)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "left.py"), str(tmp_path / "jobs"), when]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_training(bench, before)
        workers = psutil.Process(run.pid).children(recursive=True)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to all of them
        started = time.monotonic()
        run.wait(30)
        psutil.wait_procs(workers, 10)
        assert time.monotonic() - started < 10
        assert not any(worker.is_running() for worker in workers)
    finally:
        run.kill()
    assert "KeyboardInterrupt" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_a_cell_that_was_killed_in_training_goes_on_where_it_was(bench: Job, monkeypatch: pytest.MonkeyPatch):
    """Through the store: the second process trains the steps that are left, and ends with the same numbers."""
    one = job(bench, seed=95, settings=replace(SETTINGS, epochs=40))
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    child = multiprocessing.get_context("fork").Process(target=run_job, args=(one,))
    child.start()
    while not (
        found := list((bench.store / "classifier").glob(".partial-*/checkpoints/checkpoint-*/trainer_state.json"))
    ):
        time.sleep(0.01)
    child.kill()
    child.join()
    monkeypatch.undo()
    (folder,) = {path.parents[1] for path in found}
    kept = checkpoints.last_checkpoint(folder)
    assert kept is not None
    went_on = run_job(one)
    whole = run_job(job(one, store=Path(f"{bench.store}-whole")))
    assert went_on.trained.key == whole.trained.key
    assert went_on.metrics == whole.metrics
    assert (went_on.trained.path / "losses.json").read_text() == (whole.trained.path / "losses.json").read_text()
    assert not (went_on.trained.path / checkpoints.FOLDER).exists()


@pytest.mark.slow
def test_where_a_gpu_works_cells_wait_until_they_are_asked_for(bench: Job):
    """Until then the caller holds encoder and writer; what is stored is found at once all the same."""
    stored = run_job(job(bench, seed=70))
    with Cells(1, wait=True) as cells:
        before = psutil.Process().children()
        cells.submit([job(bench, seed=seed) for seed in (70, 71, 72)])
        time.sleep(0.5)
        assert psutil.Process().children() == before
        found = {cell.job.seed: cell.metrics for cell in cells.results()}
    assert found.keys() == {70, 71, 72}
    assert found[70] == stored.metrics


def test_what_is_finished_starts_no_process(bench: Job):
    expected = run_job(bench)
    before = psutil.Process().children()
    with Cells(2) as cells:
        assert list(cells.results()) == []
        cells.submit([bench])
        (found,) = cells.results()
    assert found.metrics == expected.metrics
    assert [event.kind for event in found.events] == ["reused", "reused"]
    assert psutil.Process().children() == before
    assert default_workers() >= 1
