"""experiments.harness.session: what a run shows, records and leaves in its folder, and how a failed one ends."""

import json
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from experiments.harness.config import RunConfig, read_config
from experiments.harness.report import Page
from experiments.harness.results import Table, measured
from experiments.harness.session import Session, StepTime
from fac.errors import FacError
from fac.store import StageEvent, Step


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One database for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def settings(outputs, tmp_path) -> list[str]:
    places = [f"out={tmp_path / 'out'}", f"paths.outputs={outputs}", f"paths.store={tmp_path / 'store'}"]
    return ["experiment=lab", *places]


@pytest.fixture
def run(settings) -> RunConfig:
    return read_config(settings)


def write(folder, *inputs):
    (folder / "x").write_text("1")


def tracked_runs(outputs):
    """All tracked runs by id, the newest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lab")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def small_table(session: Session) -> Table:
    cells = (measured("fac", "auprc", {42: 80.0, 43: 82.0}),)
    return Table("lab", "lab", "A table", ("fac",), ("auprc",), cells, session.config_hash, {"fac": "0"})


def test_a_run_leaves_its_results_and_a_record(run, outputs, tmp_path, capsys):
    one = Step("features", write, {"text": 1})
    folder = tmp_path / "vectors"
    folder.mkdir()
    (folder / "v.npy").write_text("1")
    with Session.open(run) as session:
        assert session.store.get(one) == session.store.get(one)
        parent = session.tracker.run_id
        table = small_table(session)
        page = Page("A page", "of two tables", [table, replace(table, experiment="details")])
        page = replace(page, files={"matches.jsonl": "{}"}, copies={"vectors": folder})
        assert session.finish(page, [(one.name, one.key)]) == tmp_path / "out"
    names = {"config.yaml", "table.json", "table.md", "details.json", "details.md", "report.html", "matches.jsonl"}
    names |= {"page.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names, "vectors"}
    assert (tmp_path / "out" / "vectors" / "v.npy").read_text() == "1"
    told = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert [made["steps"] for made in told.provenance["steps"]] == [1]
    assert json.loads((tmp_path / "out" / "details.json").read_text())["experiment"] == "details"
    html = (tmp_path / "out" / "report.html").read_text()
    assert "A page" in html
    assert "features" in html  # where the time went
    kept = OmegaConf.load(tmp_path / "out" / "config.yaml")
    assert OmegaConf.select(kept, "paths.store") == str(tmp_path / "store")  # resolved
    said = capsys.readouterr().err
    assert f"features {one.key[:8]} built in" in said
    assert "features           1 new in" in said
    client, found = tracked_runs(outputs)
    by_id = {run.info.run_id: run for run in found}
    assert parent is not None
    assert by_id[parent].info.status == "FINISHED"
    assert by_id[parent].data.metrics["auprc/fac"] == 81.0
    assert by_id[parent].data.tags["model"] == "lab_llama"
    assert by_id[parent].data.params["seeds.training"] == "[42, 43, 44, 45, 46]"
    (nested,) = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent]
    assert nested.data.tags["stage"] == "features"
    assert nested.data.params["key"] == one.key
    assert {file.path for file in client.list_artifacts(parent)} == names


def test_a_run_that_fails_is_recorded_as_failed(run, outputs):
    session = Session.open(run)
    with pytest.raises(FacError, match="no way"), session:
        raise FacError("no way")
    status = {run.info.run_id: run.info.status for run in tracked_runs(outputs)[1]}
    assert status[str(session.tracker.run_id)] == "FAILED"


def test_times_tell_what_was_built_from_what_was_found(settings):
    with Session.open(read_config([*settings, "tracking.enabled=false"])) as session:
        for event in (
            StageEvent("started", "features", "a"),
            StageEvent("built", "features", "a", 2.0, 1.0),
            StageEvent("reused", "features", "a", 2.0, 1.0),  # looked up again in the same run
            StageEvent("reused", "features", "b", 9.0, 9.0),
            StageEvent("reused", "features", "b", 9.0, 9.0),
            StageEvent("built", "write", "c", 1.0, 0.5),
        ):
            session.record(event)
        assert session.times() == [StepTime("features", 1, 1, 2.0, 1.0), StepTime("write", 1, 0, 1.0, 0.5)]


def test_steps_of_older_code_are_said_once(settings, tmp_path, capsys):
    run = read_config([*settings, "tracking.enabled=false"])
    old = tmp_path / "store" / "features" / "k"
    old.mkdir(parents=True)
    (old / "stage.json").write_text(json.dumps({"name": "features", "version": 0}))
    with Session.open(run):
        assert "1 steps in" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_the_work(run, tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(FacError, match="choose another folder with out=DIR"):
        Session.open(run)


def test_where_a_run_goes_does_not_change_what_it_is(settings, tmp_path):
    hashes = []
    for changed in (f"out={tmp_path}/b", "workers=7", f"paths.outputs={tmp_path}/c", "seeds.data=1"):
        with Session.open(read_config([*settings, "tracking.enabled=false", changed])) as session:
            hashes.append(session.config_hash)
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]
