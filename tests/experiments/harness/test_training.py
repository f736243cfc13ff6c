"""Trials are trained and tested once, are in the record once, and go on from where they were killed."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.models import tiny_model

from experiments.harness.config import read_config
from experiments.harness.experiment import Record, Trial
from experiments.harness.session import Session
from experiments.tasks import TASKS
from experiments.tasks.base import load_metrics, load_replicates, scores_step, train_step
from fac.backbone import ModelRef
from fac.data.example_set import save_examples
from fac.data.schemas import QUERY, Query
from fac.errors import FacError
from fac.store import StageEvent, Step, Store
from fac.train import checkpoints
from fac.train.settings import ClassifierSettings

SETTINGS = ClassifierSettings(rank=2, epochs=1, learning_rate=1e-3, batch_size=4, max_tokens=64)
TASK = TASKS["toxicity"]
TRIAL = Trial("toxicity", "baseline", 44, 0, 42, "lab_llama", "lab_llama", "lab_llama")


def save(texts: list[str], labels: list[int | None], folder: Path) -> None:
    save_examples(QUERY, [Query(text) for text in texts], folder, labels)


def examples(texts: list[str], *labels: int | None) -> Step:
    told = [labels[number % len(labels)] for number in range(len(texts))]
    return Step("examples", partial(save, texts, told), {"texts": texts, "labels": told})


@dataclass(frozen=True)
class Bench:
    """Data small enough to be trained and tested on in a second."""

    root: Path
    model: ModelRef
    safe: Step
    seed: Step
    test: Step

    def trained(self, seed: int = 42, settings: ClassifierSettings = SETTINGS, added: Step | None = None) -> Step:
        return train_step(TASK, self.model, settings, seed, (self.safe,), self.seed, added)

    def scores(
        self,
        seed: int = 42,
        settings: ClassifierSettings = SETTINGS,
        test: Step | None = None,
        references: Mapping[str, Step] | None = None,
        judge: Any = None,
    ) -> Step:
        trained = self.trained(seed, settings)
        return scores_step(TASK, self.model, settings, trained, test or self.test, references or {}, judge)

    def get(self, step: Step) -> tuple[Path, list[tuple[str, str]]]:
        """The finished step, and what happened to it and to what it needs; data are looked over."""
        events: list[StageEvent] = []
        folder = Store(self.root, events.append).get(step)
        return folder, [(event.kind, event.name) for event in events if event.name != "examples"]

    def classifiers(self) -> set[str]:
        """Names of all trained classifiers, and of those in hand."""
        return {path.name for path in (self.root / "classifier").glob("*") if not path.name.startswith(".lock")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("toxicity")
    return Bench(
        folder / "store",
        ModelRef(str(tiny_model(folder / "model"))),
        examples([f"how do I bake bread {n}" for n in range(6)], 0),
        examples([f"how can I threaten him {n}" for n in range(6)], 1),
        examples([f"what about the river {n}" for n in range(8)], 0, 1),
    )


BUILT = [("started", "classifier"), ("built", "classifier"), ("started", "scores"), ("built", "scores")]


def test_a_trial_is_trained_and_tested_once(bench: Bench):
    folder, events = bench.get(bench.scores())
    assert events == BUILT
    assert bench.get(bench.scores()) == (folder, [("reused", "scores")])
    assert 0 < load_metrics(folder)["auprc"] <= 1
    assert TASK.metric in load_replicates(folder)
    other, events = bench.get(bench.scores(seed=43))
    assert other != folder
    assert events == BUILT


def test_another_test_set_needs_no_training(bench: Bench):
    bench.get(bench.scores())
    shorter = examples(["what about the bread", "how can I bake him"], 0, 1)
    _, events = bench.get(bench.scores(test=shorter))
    assert [event for event in events if event[0] != "started"] == [("reused", "classifier"), ("built", "scores")]


def test_what_else_the_test_needs_is_part_of_its_key(bench: Bench):
    other = {"reference": bench.test}
    steps = [bench.scores(), bench.scores(references=other), bench.scores(references=other, judge=bench.model)]
    assert len({step.key for step in steps}) == 3
    assert len({step.inputs[0].key for step in steps}) == 1
    assert bench.scores(judge=bench.model).key == steps[0].key  # nobody is asked


def test_a_test_set_without_labels_is_refused(bench: Bench):
    with pytest.raises(FacError, match="no labels: name their column"):
        bench.get(bench.scores(test=examples(["one", "two"], None)))


def test_a_finished_trial_is_tracked_once(bench: Bench, tmp_path: Path):
    """Its run is kept with it, so a later table names the same run."""
    from mlflow import MlflowClient

    scores = bench.scores(seed=44)
    settings = [f"out={tmp_path / 'out'}", f"paths.outputs={tmp_path}", f"paths.store={bench.root}"]
    with Session.open(read_config(["experiment=lab", *settings])) as session:
        folder = session.store.get(scores)
        before = sorted(folder.iterdir())
        keys = {"trained": scores.inputs[0].key, "scores": scores.key}
        record = Record(TRIAL, load_metrics(folder), {}, {}, keys)
        tracked = session.tracked(record)
        assert replace(tracked, run_id="") == record
        assert session.tracked(replace(record, trial=replace(TRIAL, method="full"))).run_id == tracked.run_id
        assert sorted(folder.iterdir()) == before  # a finished folder stays as it is
        parent = session.tracker.run_id
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(tracked.run_id)
    assert {key: run.data.tags[key] for key in ("seed", "method", "task", "stage", "mlflow.parentRunId")} == {
        "seed": "44", "method": "baseline", "task": "toxicity", "stage": "trial", "mlflow.parentRunId": parent,
    }  # fmt: skip
    assert run.data.params["features_of"] == run.data.params["writer"] == "lab_llama"
    assert run.data.metrics["auprc"] == pytest.approx(record.metrics["auprc"])
    experiment = client.get_experiment_by_name("lab")
    assert experiment is not None
    stages = [found.data.tags.get("stage") for found in client.search_runs([experiment.experiment_id])]
    assert stages.count("trial") == 1


LEFT = textwrap.dedent("""
    import pickle, sys
    from pathlib import Path
    from experiments.harness.backends import Workers
    from fac.errors import FacError

    def main():
        root, steps, when = Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes()), sys.argv[3]
        with Workers(root, 1) as workers:
            for step in steps:
                workers.submit([step])
            if when == "after an error":
                raise FacError("something else went wrong")
            list(workers.results())

    if __name__ == "__main__":
        main()
""")


@pytest.mark.slow
@pytest.mark.parametrize(("when", "seeds"), [("waiting for results", (90, 91)), ("after an error", (92, 93))])
def test_ctrl_c_ends_a_run_and_its_workers_within_seconds(
    bench: Bench, tmp_path: Path, when: str, seeds: tuple[int, ...]
):
    store = Store(bench.root)
    for part in (bench.safe, bench.seed):
        store.get(part)
    long = replace(SETTINGS, epochs=100_000)
    (tmp_path / "steps").write_bytes(pickle.dumps([bench.trained(seed, long).detached() for seed in seeds]))
    (tmp_path / "left.py").write_text(LEFT)
    before = bench.classifiers()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "left.py"), str(bench.root), str(tmp_path / "steps"), when]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not any(name.startswith(".partial-") for name in bench.classifiers() - before):
            assert run.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
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


def in_time(found: Any) -> Any:
    """The first value of `found()` that is not empty."""
    until = time.monotonic() + 300
    while not (value := found()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return value


@pytest.mark.slow
def test_a_trial_that_was_killed_in_training_goes_on_where_it_was(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """Through the store: the second process trains the steps that are left, and ends with the same numbers."""
    scores = bench.scores(seed=95, settings=replace(SETTINGS, epochs=40))
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    child = multiprocessing.get_context("fork").Process(target=Store(bench.root).get, args=(scores,))
    child.start()
    pattern = ".partial-*/checkpoints/checkpoint-*/trainer_state.json"
    found = in_time(lambda: list((bench.root / "classifier").glob(pattern)))
    child.kill()
    child.join()
    monkeypatch.undo()
    (folder,) = {path.parents[1] for path in found}
    assert checkpoints.last_checkpoint(folder) is not None
    went_on, events = bench.get(scores)
    assert [event for event in events if event[0] == "built"] == [("built", "classifier"), ("built", "scores")]
    whole = Store(Path(f"{bench.root}-whole"))
    assert load_metrics(went_on) == load_metrics(whole.get(scores))
    kept, other = (store.get(scores.inputs[0]) for store in (Store(bench.root), whole))
    assert (kept / "losses.json").read_text() == (other / "losses.json").read_text()
    assert not (kept / checkpoints.FOLDER).exists()
