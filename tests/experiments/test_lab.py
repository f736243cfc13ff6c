"""experiments.lab, reduced but whole: its table, its record in MLflow, and what is left after kill -9 at any moment."""

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.cli import Finished, fac_here, start_fac

from experiments.harness.config import read_config
from experiments.harness.paper_numbers import paper_table
from experiments.harness.results import Table
from experiments.lab import Options
from experiments.pages.lab_table import paper

SIZES = "anchor: 60, safe: 40, seed: 20, human: 20, labelled: 40, validation: 20, test: 80, known: 8"
REDUCED = [
    "experiment=lab",
    f"tasks.toxicity.sizes={{{SIZES}}}",
    "interpret.spans=2",
    "synthesis.n=1",
    "synthesis.m=1",
    "tasks.toxicity.budget=12",
    "tasks.toxicity.train.epochs=1",
    "seeds.training=[42,43]",
    "out=out",
]
METHODS = Options().methods
CELLS = 20  # two seeds of: baseline and seed_twice under one protocol, four methods under two

KINDS = ("any", "own")  # samples that count as covering a feature
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """The folder of a run that nothing disturbed, and what it said."""
    folder = tmp_path_factory.mktemp("lab")
    done = fac_here(*REDUCED, "workers=1", cwd=folder)
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture(scope="module")
def table(unbroken: tuple[Path, Finished]) -> Table:
    return Table.from_json((unbroken[0] / "out" / "table.json").read_text())


def finished_stages(store: Path) -> int:
    return len(list(store.glob("[!.]*/[!.]*/stage.json")))


@slow
def test_every_method_has_its_row(table: Table):
    assert table.rows == METHODS
    assert table.scale == "lab"
    for row in table.rows:
        for protocol in ("added", "alone"):
            cell = table.cell(row, f"auprc_{protocol}")
            if (row, protocol) == ("seed_twice", "alone"):
                assert cell is None  # it would be the baseline
                continue
            assert cell is not None, (row, protocol)
            assert cell.seeds == (42, 43)
            assert 0 < min(cell.values) <= max(cell.values) <= 100
            gain = table.cell(row, f"gain_{protocol}")
            baseline = table.cell("baseline", f"auprc_{protocol}")
            assert baseline is not None
            assert (gain is None) == (row == "baseline")
            if gain is not None:
                expected = [ours - base for ours, base in zip(cell.values, baseline.values, strict=True)]
                assert gain.values == pytest.approx(expected, abs=2e-6)
                assert gain.unit == "points"
            lead = table.cell(row, f"fac_minus_{protocol}")
            ours = table.cell("fac", f"auprc_{protocol}")
            assert ours is not None
            assert (lead is None) == (row in ("baseline", "fac"))
            if lead is not None:
                expected = [fac - other for fac, other in zip(ours.values, cell.values, strict=True)]
                assert lead.values == pytest.approx(expected, abs=2e-6)
    assert len({id_ for cell in table.cells for id_ in cell.run_ids}) == CELLS
    assert [added.mean for row in table.rows if (added := table.cell(row, "rows"))] == [0, 12, 12, 12, 12, 12]


@slow
def test_only_what_was_written_for_a_feature_has_own_coverage(table: Table):
    written = {"random_features", "fac_one_step", "fac"}
    assert {row for row in table.rows if table.cell(row, "fac_own")} == written
    for row in written:
        own, any_ = table.cell(row, "fac_own"), table.cell(row, "fac_any")
        assert own is not None
        assert any_ is not None
        assert 0 < own.mean <= any_.mean <= 100
    for row in ("baseline", "seed_twice"):  # the seed data do not activate what they miss
        cell = table.cell(row, "fac_any")
        assert cell is not None
        assert cell.mean == 0
    ratios = [cell.mean for row in ("baseline", "fac") if (cell := table.cell(row, "fac_ratio"))]
    assert ratios[0] < ratios[1] <= 100


@slow
def test_the_paper_s_numbers_stand_beside(table: Table):
    for row, mean, std in (("baseline", 38.97, 2.74), ("full", 49.59, 2.29), ("fac", 62.60, 4.41)):
        cell = table.cell(row, "auprc_added")
        assert cell is not None
        assert cell.paper == paper_table("table1").get(row, "toxicity")
        assert cell.paper is not None
        assert (cell.paper.mean, cell.paper.std) == (mean, std)
    control = table.cell("seed_twice", "auprc_added")
    assert control is not None
    assert control.paper is None
    assert "(paper 62.60 ± 4.41)" in table.to_markdown()


@slow
def test_the_folder_holds_all_that_was_promised(unbroken: tuple[Path, Finished], table: Table):
    out = unbroken[0] / "out"
    names = {"table.json", "table.md", "report.html", "config.yaml", "coverage_by_threshold.json",
             "coverage_by_threshold.md", "missing_by_threshold.json", "missing_by_threshold.md",
             "records.json", "page.json"}  # fmt: skip
    names |= {f"samples-{row}.jsonl" for row in ("random_features", "fac_one_step", "fac")}
    assert {path.name for path in out.iterdir()} == names
    assert unbroken[1].out.splitlines()[-1] == f"results: {out}"
    samples = [json.loads(line) for line in (out / "samples-fac.jsonl").read_text().splitlines()]
    covered = Table.from_json((out / "missing_by_threshold.json").read_text()).cell("0.5×max", "paper_missing")
    assert covered is not None
    assert len({sample["feature"] for sample in samples}) == covered.mean
    assert {sample["step"] for sample in samples} == {2}
    by_threshold = Table.from_json((out / "coverage_by_threshold.json").read_text())
    assert by_threshold.rows == tuple(f"{n}_{kind}" for n in ("one_step", "one_step_all", "two_step") for kind in KINDS)
    fewer, more = by_threshold.cell("one_step_any", "0.5×max"), by_threshold.cell("one_step_all_any", "0.5×max")
    assert fewer is not None
    assert more is not None
    assert 0 < fewer.mean <= more.mean <= 100
    page = (out / "report.html").read_text()
    assert all(table.name(row) in page for row in table.rows)
    assert "LAB RESULT" in page


@slow
def test_mlflow_holds_the_run(unbroken: tuple[Path, Finished], table: Table):
    from mlflow import MlflowClient

    folder, done = unbroken
    client = MlflowClient(f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lab")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    parent = parents[0]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["config_hash"] == table.config_hash
    assert parent.data.params["tasks.toxicity.budget"] == "12"
    nested = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parent.info.run_id}
    assert all(run.data.tags["stage"] for run in nested)
    built_here = done.err.count(" built in ")
    cells = [run for run in nested if run.data.tags["stage"] == "trial"]
    assert (len(cells), len(nested) - len(cells)) == (CELLS, built_here)
    assert {run.data.tags["seed"] for run in cells} == {"42", "43"}
    assert {run.data.tags["method"] for run in cells} == set(METHODS)
    by_id = {run.info.run_id: run for run in cells}
    cell = table.cell("fac", "auprc_alone")
    assert cell is not None
    assert [100 * by_id[id_].data.metrics["auprc"] for id_ in cell.run_ids] == pytest.approx(cell.values, abs=1e-5)
    assert {id_ for cell in table.cells for id_ in cell.run_ids} == set(by_id)
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert kept == {path.name for path in (folder / "out").iterdir()}
    assert parent.data.metrics["auprc_alone/fac"] == pytest.approx(cell.mean, abs=1e-5)


@slow
def test_a_second_run_reuses_everything_and_says_the_same(unbroken: tuple[Path, Finished]):
    folder, first = unbroken
    before = (folder / "out" / "table.json").read_bytes()
    again = fac_here(*REDUCED, "workers=1", "tracking.enabled=false", cwd=folder)
    assert again.code == 0, again.err
    assert " built in " not in again.err
    assert " new in " not in again.err
    assert finished_stages(folder / "outputs" / "store") == first.err.count(" built in ")
    assert (folder / "out" / "table.json").read_bytes() == before


def kills(seed: int) -> Iterator[tuple[int, float]]:
    """Three moments: so many stages finished (of about 74), and so many seconds into what comes after."""
    rng = random.Random(seed)
    for low, high in ((1, 11), (12, 30), (31, 50)):  # until all is measured; interpreting and writing; training
        yield rng.randint(low, high), rng.uniform(0, 1.5)


@slow
def test_kill_9_at_any_moment_changes_nothing(table: Table, tmp_path: Path):
    store = tmp_path / "outputs" / "store"
    lost = []
    for stages, seconds in kills(seed=5):
        process = start_fac(*REDUCED, "workers=2", cwd=tmp_path)
        while process.poll() is None and finished_stages(store) < stages:
            time.sleep(0.05)
        time.sleep(seconds)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert process.wait() == -9, (tmp_path / "fac.log").read_text()  # it was still at work
        patience = time.monotonic() + 60
        while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
            assert time.monotonic() < patience, "worker processes outlive the run"
            time.sleep(0.1)
        assert not (tmp_path / "out" / "table.json").exists()
        lost.append(finished_stages(store))
    assert lost == sorted(lost)
    done = fac_here(*REDUCED, "workers=1", cwd=tmp_path)
    assert done.code == 0, done.err
    mended = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert mended.to_json(with_provenance=False) == table.to_json(with_provenance=False)
    built = sum(map(int, re.findall(r"(\d+) new in .* reused", done.err)))
    assert built == finished_stages(store) - lost[-1]  # what was finished was not done again
    assert not list(store.glob("*/.partial-*"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("tasks.toxicity.protocol=alone", "reads tasks.toxicity.protocol, so tasks.toxicity.protocol=alone would"),
        ("experiment.methods=[]", "experiment.methods needs at least one entry, and each only once"),
        ("experiment.methods=[fac,fac]", "experiment.methods needs at least one entry, and each only once"),
        ("experiment.methods=[fac,fc]", "experiment.methods cannot be fc: did you mean fac"),
        ("experiment.methods=[base]", "experiment.methods=[base] leaves nothing to do for toxicity"),
        ("experiment.protocols=[beside]", "experiment.protocols"),
        ("experiment.test=tests", "experiment.test"),
        ("tasks.toxicity.train.mode=loras", "tasks.toxicity.train.mode=loras will not do"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_is_computed(override: str, sentence: str, tmp_path: Path):
    assert sentence in fac_here(*REDUCED, override, "tracking.enabled=false", cwd=tmp_path).failure
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("mode", "full", "random_features", "gain"), [("lora", 49.59, 50.61, 23.63), ("head", 44.31, None, None)]
)
def test_the_paper_s_number_is_that_of_the_same_way_of_training(
    mode: str, full: float, random_features: float | None, gain: float | None
):
    """Table 1 trains LoRA adapters, Table 13 heads alone."""
    run = read_config(["experiment=lab", f"tasks.toxicity.train.mode={mode}"])
    auprc, gains, coverage = (paper(run, "lab", column) for column in ("auprc", "gain", "fac_any"))
    found = [auprc("full"), auprc("random_features"), gains("fac")]
    assert [number and number.mean for number in found] == [full, random_features, gain]
    covered = coverage("fac")
    assert covered is not None
    assert covered.mean == 81.8
    elsewhere = read_config(["experiment=lab", "model=lab_qwen"])
    assert paper(elsewhere, "lab", "auprc")("baseline") is None
    assert paper(run, "own", "fac_any")("fac") is None
