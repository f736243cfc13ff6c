"""The tracker against a real MLflow database, a server that is away, and a database that breaks."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from experiments.harness.tracking import Tracker, flatten

AWAY = "http://127.0.0.1:9"  # the discard port: refused at once


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("outputs")


def start(outputs: Path, out: Path, **more: Any) -> Tracker:
    options: dict[str, Any] = {"uri": None, "experiment": "table1", "run_name": "lab", **more}
    return Tracker.open(options.pop("uri"), out=out, outputs=outputs, **options)


def events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "tracking.jsonl").read_text(encoding="utf-8").splitlines()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_run_and_its_stages(
    outputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    table, samples = tmp_path / "table.json", tmp_path / "samples.jsonl"
    table.write_text("{}")
    samples.write_text('{"text": "ö"}\n')
    config = {
        "train": {"lr": 1e-4, "seeds": [42, 43]},
        "prompt": "long " * 2000,
        "many": {f"p{i}": i for i in range(150)},
    }
    with caplog.at_level(logging.INFO), start(outputs, tmp_path, config=config, tags={"model": "llama"}) as tracker:
        metrics = {"fac/coverage@1.0": 0.5, "loss": [float(i) for i in range(2500)]}
        params = {f"p{i}": i for i in range(120)}
        stage = tracker.stage(
            "train", seconds=90.0, metrics=metrics, params=params, tags={"seed": 42}, artifacts=[samples]
        )
        tracker.log(metrics={"auprc": 62.6}, artifacts=[table])
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "tracking.jsonl").exists()

    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    assert tracker.run_id is not None
    assert stage is not None
    parent, child = client.get_run(tracker.run_id), client.get_run(stage)
    assert parent.info.status == child.info.status == "FINISHED"
    assert parent.info.artifact_uri is not None
    assert parent.info.artifact_uri.startswith((outputs / "mlartifacts").as_uri())
    assert parent.data.tags["model"] == child.data.tags["model"] == "llama"
    assert parent.data.params["train.lr"] == "0.0001"
    assert parent.data.params["train.seeds"] == "[42, 43]"
    assert len(parent.data.params) == 153
    assert "params/prompt.txt" in parent.data.params["prompt"]
    local = client.download_artifacts(tracker.run_id, "params/prompt.txt", str(tmp_path))
    assert Path(local).read_text() == config["prompt"]
    assert parent.data.metrics == {"auprc": 62.6}
    assert [a.path for a in client.list_artifacts(tracker.run_id)] == ["params", "table.json"]

    assert child.data.tags["mlflow.parentRunId"] == tracker.run_id
    assert (child.data.tags["stage"], child.data.tags["seed"]) == ("train", "42")
    assert len(child.data.params) == 120
    assert child.data.metrics == {"fac/coverage_1.0": 0.5, "loss": 2499.0, "seconds": 90.0}
    history = client.get_metric_history(stage, "loss")
    assert sorted((point.step, point.value) for point in history) == [(i, float(i)) for i in range(2500)]
    assert [a.path for a in client.list_artifacts(stage)] == ["samples.jsonl"]
    assert child.info.end_time is not None
    assert child.info.end_time - child.info.start_time >= 90_000


def test_an_exception_ends_the_run_as_failed(outputs: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = start(outputs, tmp_path)
    with pytest.raises(ZeroDivisionError), tracker:
        _ = 1 / 0
    assert MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}").get_run(tracker.run_id or "").info.status == "FAILED"


def test_a_server_that_is_away_costs_one_warning(
    outputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(outputs, tmp_path, uri=AWAY, config={"a": {"b": 1}}, tags={"task": "toxicity"}) as tracker:
        stage = tracker.stage(
            "mine", seconds=1.5, metrics={"missing": 148, "curve": [1.0, 2.0]}, artifacts=[tmp_path / "s"]
        )
        tracker.log(metrics={"fac": 0.8})
    (warning,) = warnings(caplog)
    assert str(tmp_path / "tracking.jsonl") in warning
    first, mined, logged, last = events(tmp_path)
    assert (first["event"], first["run"], first["params"]) == ("start", tracker.run_id, {"a.b": "1"})
    assert (mined["event"], mined["run"], mined["parent"], mined["seconds"]) == ("stage", stage, tracker.run_id, 1.5)
    assert mined["tags"] == {"task": "toxicity", "stage": "mine"}
    assert mined["metrics"] == {"missing": 148, "curve": [1.0, 2.0]}
    assert mined["artifacts"] == [str(tmp_path / "s")]
    assert logged["metrics"] == {"fac": 0.8}
    assert (last["event"], last["status"]) == ("end", "FINISHED")


def test_a_database_that_breaks_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture, outputs: Path) -> None:
    with start(outputs, tmp_path):  # the database is there, whatever the order of the tests
        pass
    copy = tmp_path / "copy.db"
    copy.write_bytes((outputs / "mlflow.db").read_bytes())
    with start(outputs, tmp_path, uri=f"sqlite:///{copy}", experiment="broken") as tracker:
        before = tracker.run_id
        with sqlite3.connect(copy) as database:
            database.execute("DROP TABLE metrics")
        assert tracker.stage("train", seconds=1.0, metrics={"auprc": 60.0}) is not None
        assert tracker.run_id == before
    assert len(warnings(caplog)) == 1
    stage, end = events(tmp_path)
    assert (stage["parent"], stage["metrics"]) == (before, {"auprc": 60.0})
    assert end["run"] == before


@pytest.mark.parametrize("name", ["w?x", "100%25 of #1 ü"])
def test_the_folder_may_have_any_name(
    name: str, outputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(outputs, tmp_path):  # tables made once
        pass
    odd = tmp_path / name
    odd.mkdir()
    (odd / "mlflow.db").write_bytes((outputs / "mlflow.db").read_bytes())
    kept = tmp_path / "kept.txt"
    kept.write_text("words")
    with start(odd, tmp_path, experiment="odd") as tracker:
        tracker.log(artifacts=[kept])
    assert warnings(caplog) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "kept.txt"])
    with sqlite3.connect(odd / "mlflow.db") as database:
        runs = [row[0] for row in database.execute("SELECT run_uuid FROM runs")]
    assert tracker.run_id in runs
    assert [path.read_text() for path in odd.rglob("kept.txt")] == ["words"]


def test_nothing_that_can_be_written_ends_tracking_and_not_the_run(
    outputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with start(outputs, tmp_path / "file", uri=AWAY) as tracker:
        assert tracker.stage("train", seconds=1.0) is None
        tracker.log(metrics={"a": 1.0})
    assert tracker.run_id is None
    assert len(warnings(caplog)) == 2
    assert "tracking ends here" in warnings(caplog)[1]


def test_switched_off_it_writes_nothing(tmp_path: Path) -> None:
    with start(tmp_path, tmp_path, enabled=False) as tracker:
        assert tracker.stage("train", seconds=1.0, metrics={"a": 1.0}) is None
        tracker.log(artifacts=[tmp_path / "absent"])
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_flatten() -> None:
    nested = {"a": {"b": {"c": 1.5}, "d": None}, "e": [1, {"f": "g"}], "h": "text", "i": True, "empty": {}}
    assert flatten(nested) == {"a.b.c": "1.5", "a.d": "null", "e": '[1, {"f": "g"}]', "h": "text", "i": "true"}
