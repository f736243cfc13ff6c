"""experiments.session: what a run shows, records and leaves in its folder, and how a failed one ends."""

import json
from dataclasses import replace

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.harness.report import Page
from experiments.harness.results import Table, measured
from experiments.run import CONF
from experiments.session import Session, StageTime
from fac.errors import FacError
from fac.store import StageEvent


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One database for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def cfg(outputs, tmp_path) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"out={tmp_path / 'out'}", f"paths.outputs={outputs}", f"paths.store={tmp_path / 'store'}"]
        return hydra.compose("config", overrides=["experiment=lab", *overrides])


def runs(outputs):
    """All tracked runs by id, the newest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lab")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def small_table(session: Session) -> Table:
    cells = (measured("fac", "auprc", {42: 80.0, 43: 82.0}),)
    return Table("lab", "lab", "A table", ("fac",), ("auprc",), cells, session.config_hash, {"fac": "0"})


def test_a_run_leaves_its_results_and_a_record(cfg, outputs, tmp_path, capsys):
    extra = tmp_path / "samples.jsonl"
    extra.write_text("{}\n")
    with Session.open(cfg) as session:
        one = session.store.stage("features", lambda folder: (folder / "x").write_text("1"), params={"text": 1})
        session.store.stage("features", lambda folder: pytest.fail("built twice"), params={"text": 1})
        parent = session.tracker.run_id
        table = small_table(session)
        page = Page("A page", "of two tables", [table, replace(table, experiment="details")])
        assert session.finish(page, {"missing": 3.0}, [extra], {"matches.jsonl": "{}"}) == tmp_path / "out"
    names = {"config.yaml", "table.json", "table.md", "details.json", "details.md", "report.html", "matches.jsonl"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out" / "details.json").read_text())["experiment"] == "details"
    html = (tmp_path / "out" / "report.html").read_text()
    assert "A page" in html
    assert "features" in html  # where the time went
    kept = OmegaConf.load(tmp_path / "out" / "config.yaml")
    assert OmegaConf.select(kept, "model.path") == "lab:llama"  # resolved
    assert f"features {one.key[:8]} built in" in capsys.readouterr().err
    client, found = runs(outputs)
    by_id = {run.info.run_id: run for run in found}
    assert parent is not None
    assert by_id[parent].info.status == "FINISHED"
    assert by_id[parent].data.metrics["missing"] == 3.0
    assert by_id[parent].data.tags["model"] == "llama"
    assert by_id[parent].data.params["train.seeds"] == "[42, 43, 44, 45, 46]"
    (nested,) = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent]
    assert nested.data.tags["stage"] == "features"
    assert nested.data.params["key"] == one.key
    assert {file.path for file in client.list_artifacts(parent)} == {*names, "samples.jsonl"}


def test_a_run_that_fails_is_recorded_as_failed(cfg, outputs):
    session = Session.open(cfg)
    with pytest.raises(FacError, match="no way"), session:
        raise FacError("no way")
    status = {run.info.run_id: run.info.status for run in runs(outputs)[1]}
    assert status[str(session.tracker.run_id)] == "FAILED"


def test_times_tell_what_was_built_from_what_was_found(cfg):
    cfg.tracking.enabled = False
    with Session.open(cfg) as session:
        for event in (
            StageEvent("started", "features", "a"),
            StageEvent("built", "features", "a", 2.0, 1.0),
            StageEvent("reused", "features", "a", 2.0, 1.0),  # looked up again in the same run
            StageEvent("reused", "features", "b", 9.0, 9.0),
            StageEvent("reused", "features", "b", 9.0, 9.0),
            StageEvent("built", "write", "c", 1.0, 0.5),
        ):
            session.record(event)
        assert session.times() == [StageTime("features", 1, 1, 2.0, 1.0), StageTime("write", 1, 0, 1.0, 0.5)]


def test_a_configuration_with_an_open_value_starts_nothing(cfg, tmp_path):
    cfg.model.path = "???"
    with pytest.raises(FacError, match="model.path is not set"):
        Session.open(cfg)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_found_before_the_work(cfg, tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(FacError, match="choose another folder with out=DIR"):
        Session.open(cfg)


def test_where_a_run_goes_does_not_change_what_it_is(cfg, tmp_path):
    cfg.tracking.enabled = False
    hashes = []
    for key, held in (("out", f"{tmp_path}/b"), ("workers", 7), ("paths.outputs", f"{tmp_path}/c"), ("lab.seed", 1)):
        OmegaConf.update(cfg, key, held)
        with Session.open(cfg) as session:
            hashes.append(session.config_hash)
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]
