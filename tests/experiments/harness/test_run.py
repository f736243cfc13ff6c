"""experiments.harness.run: what dry_run=true lists as to do is what the run then builds, and nothing is done for it."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from support.cli import Finished, fac_here

from experiments.harness.results import Table
from experiments.pages.rows import in_paper

SIZES = {"anchor": 14, "safe": 20, "seed": 16, "human": 10, "labelled": 100, "validation": 9, "test": 60, "known": 6}
SMALL = [
    *(f"tasks.toxicity.sizes.{role}={count}" for role, count in SIZES.items()),
    "tasks.toxicity.budget=8",
    "tasks.toxicity.max_new_tokens=8",
    "tasks.toxicity.train.epochs=1",
    "seeds.training=[42,43]",
    "interpret.judge=statistical",  # so that two-token replies will do
    "interpret.fdr=0.9",
    "interpret.max_new_tokens=2",
    "interpret.spans=2",
    "thresholds.default=0.1max",
    "workers=1",
    "tracking.enabled=false",
    "out=out",
]
WRITTEN = ["synthesis.n=1", "synthesis.m=1"]
LAB, MAIN = (["experiment=lab", *SMALL], ["experiment=main_results", *SMALL])
DONE = "experiment.methods=[baseline,full]"
TABLE_1 = in_paper("table1", "random_features")  # the methods of Table 1 that there are


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the methods that need no writer are finished, exactly as was planned."""
    folder = tmp_path_factory.mktemp("lab")
    expected = to_do(plan(folder, *LAB, DONE).out)
    assert expected["scores"] == 6
    finished = fac_here(*LAB, DONE, cwd=folder)
    assert finished.code == 0, finished.err
    assert built(finished.err) == expected
    return folder


def plan(folder: Path, *arguments: str) -> Finished:
    """A dry run that leaves everything in `folder` as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    finished = fac_here(*arguments, "dry_run=true", cwd=folder)
    assert finished.code == 0, finished.err
    assert finished.err == ""
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return finished


def steps(text: str) -> dict[str, tuple[int, int]]:
    """How many of each step of a plan are stored and to do."""
    listed = re.findall(r"^  (\w+) +(\d+) +(\d+)$", text, re.MULTILINE)
    return {name: (int(stored), int(left)) for name, stored, left in listed}


def to_do(text: str) -> dict[str, int]:
    return {name: left for name, (_, left) in steps(text).items() if left}


def built(said: str) -> dict[str, int]:
    """The steps that a run says it has built."""
    return dict(Counter(re.findall(r"\] (\w+) [0-9a-f]{8} built in", said)))


def trials(text: str) -> dict[str, list[str]]:
    """State of every trial by line, in the order of seeds; lines of the same name follow one another."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = re.match(r"  (\S.*?)\s{2,}((stored|to do|\?)(\s{2,}(stored|to do|\?))*)$", line)
        if match and match[1] != "steps":
            found.setdefault(match[1], []).extend(re.findall(r"stored|to do|\?", match[2]))
    return found


ADDED, ALONE = ("{}, tasks.toxicity.protocol=" + protocol for protocol in ("added", "alone"))


@pytest.mark.slow
def test_a_finished_store_is_said_to_be_whole_and_a_second_run_builds_nothing(done: Path, tmp_path: Path):
    text = plan(done, *LAB, DONE).out
    assert trials(text) == {
        ADDED.format("baseline"): ["stored"] * 2,
        ADDED.format("full"): ["stored"] * 2,
        ALONE.format("baseline"): ["stored"] * 2,
        ALONE.format("full"): ["stored"] * 2,
    }
    assert "8 of 8 trials stored; everything is stored, the run will only write its table" in text
    assert to_do(text) == {}
    assert len(list((done / "outputs" / "store" / "scores").glob("[!.]*"))) == 6  # of the baseline one, by any protocol
    again = fac_here(*LAB, DONE, f"out={tmp_path / 'out'}", cwd=done)
    assert again.code == 0, again.err
    assert built(again.err) == {}
    kept = [Table.from_json((out / "table.json").read_text()) for out in (done / "out", tmp_path / "out")]
    assert kept[0].to_json(with_provenance=False) == kept[1].to_json(with_provenance=False)


@pytest.mark.slow
def test_half_a_store_is_shown_as_exactly_that_half(done: Path):
    text = plan(done, *LAB, *WRITTEN, "experiment.methods=[baseline,full,fac]").out
    found = trials(text)
    assert found.pop(ADDED.format("fac")) == found.pop(ALONE.format("fac")) == ["to do", "to do"]
    assert set(map(tuple, found.values())) == {("stored", "stored")}
    assert "8 of 12 trials stored; " in text
    assert to_do(text) == {"synthesis": 1, "features": 1, "coverage": 1, "classifier": 4, "scores": 4}


@pytest.mark.slow
def test_what_is_trained_but_not_tested_is_only_tested(done: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    lost = next((folder / "outputs" / "store" / "scores").glob("[!.]*"))
    shutil.rmtree(lost)
    text = plan(folder, *LAB, DONE).out
    assert to_do(text) == {"scores": 1}
    again = fac_here(*LAB, DONE, cwd=folder)
    assert again.code == 0, again.err
    assert built(again.err) == {"scores": 1}
    assert lost.is_dir()


@pytest.mark.slow
def test_another_experiment_finds_the_same_steps(done: Path, tmp_path: Path):
    """The plan of the main table finds what another experiment has stored, and its real run builds what is listed."""
    arguments = [*MAIN, DONE, "experiment.tasks=[toxicity]"]
    text = plan(done, *arguments).out
    assert trials(text) == {"baseline": ["stored"] * 2, "full": ["stored"] * 2}
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    changed = [*arguments, "seeds.training=[42,44]"]
    expected = to_do(plan(folder, *changed).out)
    assert expected == {"classifier": 2, "scores": 2}
    real = fac_here(*changed, cwd=folder)
    assert real.code == 0, real.err
    assert built(real.err) == expected
    table = Table.from_json((folder / "out" / "table.json").read_text())
    seeds = {(cell.row, cell.seeds) for cell in table.cells if cell.column == "toxicity"}
    assert seeds == {("baseline", (42, 44)), ("full", (42, 44))}


@pytest.mark.slow
def test_tasks_of_which_nothing_is_there_do_not_hide_the_others(done: Path):
    """The judge of features is the LLM for a task without labelled texts, so the toxicity of this plan is another."""
    llm = [setting for setting in MAIN if not setting.startswith("interpret.")]
    text = plan(done, *llm, DONE, "experiment.tasks=[toxicity,survival]").out
    toxicity, survival = text.split("\n  survival")
    assert set(trials(toxicity)) == set(trials(survival)) == {"baseline", "full"}
    assert steps(text)["classifier"] == (4, 0)  # trained on the same
    assert steps(text)["vector"] == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["experiment=lab"], 55),  # 6 methods, 2 protocols, 5 seeds; the control has one protocol
        # 5 tasks, 3 seeds; the untrained model of one task once
        (["experiment=main_results", "scale=paper"], 15 * len(TABLE_1) + 1),
        (["experiment=cross_model", "scale=paper"], 90),  # 3 + 3 x 3 x 3 lines, 3 seeds
    ],
)
def test_the_whole_plan_is_printed_where_nothing_is_at_hand(arguments: list[str], count: int, tmp_path: Path):
    text = plan(tmp_path, *arguments).out
    assert sum(map(len, trials(text).values())) == count
    assert f"0 of {count} trials stored; " in text
    assert text.endswith("Nothing was run or written.\n")


def test_a_missing_file_is_named_and_the_plan_printed_all_the_same(tmp_path: Path):
    there = "tasks.survival.data.anchor.path=nowhere/data.json"
    text = plan(tmp_path, "experiment=main_results", "scale=paper", "experiment.tasks=[survival]", there).out
    assert "here it would stop: There is no file nowhere/data.json" in text
    assert sum(map(len, trials(text).values())) == 3 * len(TABLE_1)


def test_an_experiment_without_trials_shows_its_steps(tmp_path: Path):
    """A missing file is named; what is stored, where a run has been."""
    missing = plan(tmp_path, "experiment=coverage", "data.anchor.path=a", "data.seed.path=b").out
    assert "here it would stop: There is no file a" in missing
    (tmp_path / "texts.txt").write_text("\n".join(f"a text about the number {n}" for n in range(8)))
    sae = ["experiment=sae", "data.corpus.path=texts.txt", "experiment.held_out=0.5", "tracking.enabled=false",
           "out=out"]  # fmt: skip
    fresh = to_do(plan(tmp_path, *sae).out)
    done = fac_here(*sae, cwd=tmp_path)
    assert done.code == 0, done.err
    assert built(done.err) == fresh
    assert steps(plan(tmp_path, *sae).out) == {name: (count, 0) for name, count in fresh.items()}


def test_a_plan_of_what_is_all_stored_writes_nothing(tmp_path: Path):
    (tmp_path / "texts.txt").write_text("\n".join(f"a text about the number {n}" for n in range(40)))
    run = ["experiment=coverage", "data.anchor.path=texts.txt", "data.seed.path=texts.txt", "data.seed.limit=20",
           "experiment.bootstrap=2", "tracking.enabled=false", "out=out"]  # fmt: skip
    expected = to_do(plan(tmp_path, *run).out)
    done = fac_here(*run, cwd=tmp_path)
    assert done.code == 0, done.err
    assert built(done.err) == expected
    shutil.rmtree(tmp_path / "out")
    text = plan(tmp_path, *run).out
    assert to_do(text) == {}
    assert "everything is stored" in text


@pytest.mark.slow
def test_the_records_of_a_run_are_in_its_folder(done: Path):
    told = json.loads((done / "out" / "records.json").read_text())
    assert len(told) == 8
    assert {record["trial"]["method"] for record in told} == {"baseline", "full"}
    assert all(record["metrics"] and record["steps"]["scores"] for record in told)
