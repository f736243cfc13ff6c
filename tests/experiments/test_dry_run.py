"""experiments.dry_run: the plan of every cell, with exactly what the store holds, and nothing done for it."""

import re
import shutil
from pathlib import Path

import pytest
from support.cli import Finished, fac_here

from experiments.dry_run import LAYOUTS, MEASURING
from experiments.harness.results import Table
from experiments.run import CONF

SIZES = {"anchor": 14, "safe": 20, "human": 10, "labelled": 100, "validation": 9, "test": 60, "known": 6}
ROWS = ["baseline", "full", "fac"]
COMMON = [
    "interpret.judge=statistical",  # so that two-token replies will do
    "interpret.fdr=0.9",
    "interpret.max_new_tokens=2",
    "interpret.spans=2",
    "thresholds.default=0.1max",
    "synthesis.n=1",
    "synthesis.m=1",
    "workers=1",
    "tracking.enabled=false",
    "out=out",
]
LAB = [
    "experiment=lab",
    *(f"lab.{role}={count}" for role, count in SIZES.items()),
    "lab.seed_positives=16",
    "synthesis.budget=8",
    "synthesis.max_new_tokens=8",
    "train.seeds=[42,43]",
    "train.epochs=1",
    *COMMON,
]
MAIN = [
    "experiment=main_results",
    "experiment.tasks=[toxicity,survival]",
    f"tasks.toxicity.sizes={{{', '.join(f'{role}: {count}' for role, count in SIZES.items())}, seed: 16}}",
    "tasks.toxicity.max_new_tokens=8",
    "tasks.toxicity.budget=8",
    "tasks.toxicity.seeds=[42,43]",
    "tasks.toxicity.train.epochs=1",
    *COMMON,
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the rows that need no writer are finished."""
    folder = tmp_path_factory.mktemp("lab")
    finished = fac_here(*LAB, "experiment.rows=[baseline,full]", cwd=folder)
    assert finished.code == 0, finished.err
    return folder


def plan(folder: Path, *arguments: str) -> Finished:
    """A dry run that leaves everything in `folder` as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    finished = fac_here(*arguments, "dry_run=true", cwd=folder)
    assert finished.code == 0, finished.err
    assert finished.err == ""
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return finished


def cells(text: str) -> dict[str, list[str]]:
    """State of every cell by line, in the order of seeds; lines of the same name follow one another."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"  (\S.*?)\s{2,}((stored|trained|to do)(\s+(stored|trained|to do))*)$", line):
            found.setdefault(match[1], []).extend(re.findall("stored|trained|to do", match[2]))
    return found


@pytest.mark.slow
def test_a_finished_store_is_said_to_be_whole(done: Path):
    text = plan(done, *LAB, "experiment.rows=[baseline,full]").out
    assert cells(text) == {
        "baseline, added": ["stored"] * 2,
        "full, added": ["stored"] * 2,
        "full, alone": ["stored"] * 2,
    }
    assert "6 of 6 cells stored: everything is stored" in text
    assert len(list((done / "outputs" / "store" / "scores").iterdir())) == 6  # what the real run submitted


@pytest.mark.slow
def test_half_a_store_is_shown_as_exactly_that_half(done: Path):
    text = plan(done, *LAB, f"experiment.rows=[{','.join(ROWS)}]").out
    assert cells(text) == {
        "baseline, added": ["stored", "stored"],
        "full, added": ["stored", "stored"],
        "full, alone": ["stored", "stored"],
        "fac, added": ["to do", "to do"],
        "fac, alone": ["to do", "to do"],
    }
    assert "6 of 10 cells stored: 4 to do." in text
    assert re.search(r"  stored  data \(\d+\), features \(2\), interpret \(1\)\n", text)
    assert "to do   write" in text


@pytest.mark.slow
def test_a_cell_that_is_trained_but_not_tested_is_told_apart(done: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    shutil.rmtree(next((folder / "outputs" / "store" / "scores").iterdir()))
    text = plan(folder, *LAB, "experiment.rows=[baseline,full]").out
    assert sorted(state for line in cells(text).values() for state in line) == ["stored"] * 5 + ["trained"]
    assert "5 of 6 cells stored: 1 to do." in text


@pytest.mark.slow
def test_another_experiment_finds_the_same_stages(done: Path, tmp_path: Path):
    """The plan of the main table counts what its real run submits, and finds what another experiment has stored."""
    rows = "experiment.rows=[baseline,full]"
    text = plan(done, *MAIN, rows, "experiment.tasks=[toxicity]").out
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    real = fac_here(*MAIN, rows, "experiment.tasks=[toxicity]", cwd=folder)
    assert real.code == 0, real.err
    table = Table.from_json((folder / "out" / "table.json").read_text())
    submitted = [(cell.row, seed) for cell in table.cells if cell.column == "toxicity" for seed in cell.seeds]
    states = cells(text)
    assert sorted(submitted) == sorted((line, seed) for line in states for seed in (42, 43))
    assert states["baseline"] == ["stored", "stored"]  # of the lab's table


@pytest.mark.slow
def test_tasks_of_which_nothing_is_there_do_not_hide_the_others(done: Path):
    text = plan(done, *MAIN, "experiment.rows=[baseline,full]").out
    toxicity, survival = text.split("\nsurvival\n")
    assert cells(toxicity)["baseline"] == ["stored", "stored"]
    assert cells(survival) == {"baseline": ["to do"] * 3, "full": ["to do"] * 3}
    assert "to do   data, features, interpret, write, rows, coverage" in survival


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["experiment=lab"], 50),  # 6 rows, 2 protocols, 5 seeds; baseline and the control have one protocol
        (
            ["experiment=main_results", "scale=paper"],
            61,
        ),  # 5 tasks, 4 rows, 3 seeds; the untrained model of one task once
        (["experiment=cross_model", "scale=paper"], 90),  # 3 + 3 x 3 x 3 lines, 3 seeds
    ],
)
def test_the_whole_plan_is_printed_where_nothing_is_at_hand(arguments: list[str], count: int, tmp_path: Path):
    text = plan(tmp_path, *arguments).out
    assert sum(map(len, cells(text).values())) == count
    assert f"0 of {count} cells stored: {count} to do. Nothing was run or written." in text


def test_a_missing_file_is_named_and_the_plan_printed_all_the_same(tmp_path: Path):
    there = "tasks.survival.data.anchor.path=nowhere/data.json"
    text = plan(tmp_path, "experiment=main_results", "scale=paper", "experiment.tasks=[survival]", there).out
    assert "here it would stop: There is no file nowhere/data.json" in text
    assert sum(map(len, cells(text).values())) == 12


def test_an_experiment_without_cells_shows_its_stages(tmp_path: Path):
    """Named where a file is missing; what is stored, and what is not needed, where a run has been."""
    missing = plan(tmp_path, "experiment=coverage", "data.anchor.path=a", "data.seed.path=b").out
    assert "here it would stop: There is no file a" in missing
    assert states(missing)["features"] == "to do"
    (tmp_path / "texts.txt").write_text("\n".join(f"a text about the number {n}" for n in range(8)))
    sae = ["experiment=sae", "data.corpus.path=texts.txt", "data.held_out=0.5", "tracking.enabled=false", "out=out"]
    fresh = states(plan(tmp_path, *sae).out)
    assert set(fresh.values()) == {"to do"}
    done = fac_here(*sae, cwd=tmp_path)
    assert done.code == 0, done.err
    assert states(plan(tmp_path, *sae).out) == {
        **dict.fromkeys(fresh, "stored"), "sae": "-", "table": "to do",
    }  # fmt: skip


def test_a_plan_of_what_is_all_stored_writes_nothing(tmp_path: Path):
    (tmp_path / "texts.txt").write_text("\n".join(f"a text about the number {n}" for n in range(40)))
    run = ["experiment=coverage", "data.anchor.path=texts.txt", "data.seed.path=texts.txt", "data.seed.limit=20",
           "experiment.bootstrap=2", "tracking.enabled=false", "out=out"]  # fmt: skip
    done = fac_here(*run, cwd=tmp_path)
    assert done.code == 0, done.err
    shutil.rmtree(tmp_path / "out")
    found = states(plan(tmp_path, *run).out)
    assert found == {"corpus": "stored", "sae": "-", "features": "stored", "diversity": "stored", "table": "to do"}


def test_every_experiment_has_a_plan():
    names = {file.stem for file in (CONF / "experiment").glob("*.yaml")}
    assert names == {*LAYOUTS, *MEASURING}


def states(text: str) -> dict[str, str]:
    """Stages of a plan without cells, by name."""
    listed = text.partition("stages\n")[2].partition("\n\n")[0]
    found = re.findall(r"^  (stored|to do|-) +(\w+)  ", listed, re.MULTILINE)
    return {name: state for state, name in found}
