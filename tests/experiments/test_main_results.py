"""experiments.main_results, reduced but whole: one table with a column per task, and the same again from the store."""

import json
from pathlib import Path

import pytest
from support.cli import Finished, fac_here
from support.plans import plan_of, stored

from experiments.harness.plan import Planned
from experiments.harness.records import load
from experiments.harness.results import Table
from experiments.tasks import TASKS

SMALL = "{anchor: 20, seed: 16, human: 10, validation: 10, test: 16, known: 3}"
REDUCED = [
    "experiment=main_results",
    "experiment.methods=[base,baseline,full,random_features,fac]",
    "tasks.toxicity.sizes={anchor: 30, safe: 30, seed: 16, human: 10, labelled: 20, validation: 9, test: 60, known: 6}",
    *(f"tasks.{task}.sizes={SMALL}" for task in ("reward", "sycophancy", "survival", "instruction")),
    *(f"tasks.{task}.budget=8" for task in TASKS),
    "seeds.training=[42,43]",
    *(f"tasks.{task}.train.epochs=1" for task in ("toxicity", "reward", "instruction")),
    "interpret.spans=2",
    "synthesis.n=1",
    "synthesis.m=1",
    "workers=1",
    "out=out",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("main")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Planned:
    """What a dry run before it says."""
    return plan_of([*REDUCED, f"paths.outputs={folder}/outputs"])


@pytest.fixture(scope="module")
def run(folder: Path, plan: Planned) -> tuple[Path, Finished]:
    done = fac_here(*REDUCED, cwd=folder)
    assert done.code == 0, done.err
    return folder, done


@pytest.mark.slow
def test_what_is_planned_is_what_is_built(run: tuple[Path, Finished], plan: Planned):
    assert not plan.stops
    assert stored(run[0] / "outputs" / "store").keys() == plan.left
    assert not plan_of([*REDUCED, f"paths.outputs={run[0]}/outputs"]).left


@pytest.mark.slow
def test_every_task_has_a_number_of_every_method(run: tuple[Path, Finished]):
    table = Table.from_json((run[0] / "out" / "table.json").read_text())
    assert table.rows == ("base", "baseline", "full", "random_features", "fac")
    for name, task in TASKS.items():
        for row in table.rows[1:]:
            cell = table.cell(row, name)
            assert cell is not None, (row, name)
            assert cell.seeds == (42, 43)
            low = -100 if task.metric == "scr" else 0
            assert all(low <= value <= 100 for value in cell.values)
            assert len(cell.run_ids) == 2
            gain, base = table.cell(row, f"{name}_gain"), table.cell("baseline", name)
            assert base is not None
            if row == "baseline":
                assert gain is None
            else:
                assert gain is not None
                assert gain.mean == pytest.approx(cell.mean - base.mean, abs=1e-5)
        paper = table.cell("fac", name)
        assert paper is not None
        assert (paper.paper is None) == (name == "instruction")  # the paper's win rate is of another judge
    assert "LAB RESULT" in (run[0] / "out" / "table.md").read_text()


@pytest.mark.slow
def test_a_column_says_its_protocol_and_how_many_rows_each_method_added(run: tuple[Path, Finished]):
    table = Table.from_json((run[0] / "out" / "table.json").read_text())
    for name, task in TASKS.items():
        told = task.in_lab.get("metric_title", task.metric_title)
        assert table.name(name) == f"{task.title} {told}, added"
        added = {row: cell.mean for row in table.rows if (cell := table.cell(row, f"{name}_rows"))}
        assert set(added) == {"baseline", "full", "random_features", "fac"}
        assert (added["baseline"], added["full"]) == (0, 8)
        for row in ("random_features", "fac"):
            assert 0 < added[row] <= 8
            ratio, start = table.cell(row, f"{name}_ratio"), table.cell("baseline", f"{name}_ratio")
            assert ratio is not None
            assert start is not None
            assert 0 < start.mean <= ratio.mean <= 100
            fewer = f"{table.name(row)} added {added[row]:.0f}" in " ".join(table.notes)
            assert fewer == (added[row] < 8)


@pytest.mark.slow
def test_the_untrained_model_has_a_row_where_it_can_be_tested(run: tuple[Path, Finished]):
    """Of the tasks, instruction following."""
    table = Table.from_json((run[0] / "out" / "table.json").read_text())
    assert {cell.column for cell in table.cells if cell.row == "base"} == {
        "instruction",
    }  # fmt: skip
    untuned = table.cell("base", "instruction")
    assert untuned is not None
    assert untuned.n == 1  # nothing is drawn for it
    records = load(run[0] / "out" / "records.json")
    untrained = [record for record in records if record.trial.method == "base"]
    assert [(record.trial.task, "trained" in record.steps) for record in untrained] == [("instruction", False)]


@pytest.mark.slow
def test_every_metric_of_every_cell_is_kept_beside_it(run: tuple[Path, Finished]):
    details = json.loads((run[0] / "out" / "all_metrics.json").read_text())
    rows = set(details["rows"])
    assert {"reward_chat", "reward_chat_hard", "reward_safety", "reward_reasoning", "reward_average"} <= rows
    assert {"sycophancy_norm", "sycophancy_pairs", "survival_norm"} <= rows
    norms = [cell["mean"] for cell in details["cells"] if cell["row"] in ("sycophancy_norm", "survival_norm")]
    assert max(norms) - min(norms) < 1e-3  # of all rows and of both behaviours
    assert {"instruction_followed", "sycophancy_matching@+1", "toxicity_auroc"} <= rows


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_says_the_same(run: tuple[Path, Finished]):
    folder, _ = run
    first = (folder / "out" / "table.json").read_text()
    again = fac_here(*REDUCED, cwd=folder)
    assert again.code == 0, again.err
    assert "built in" not in again.err
    assert " new in " not in again.err
    assert (folder / "out" / "table.json").read_text() == first


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("experiment.tasks=[toxicity,rewards]", "experiment.tasks cannot be rewards"),
        ("experiment.methods=[fac,facc]", "experiment.methods cannot be facc"),
        ("experiment.methods=[fac,fac]", "experiment.methods needs at least one entry, and each only once"),
        ("experiment.tasks=[]", "experiment.tasks needs at least one entry, and each only once"),
        ("tasks.reward.train.mode=loras", "loras"),
        ("seeds.training=[]", "seeds.training needs at least one entry"),
        ("tasks.survival.sizes.known=99", "tasks.survival.sizes.known=99 will not do"),
        ("model.base=null", "set model.base"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_is_computed(override: str, sentence: str, tmp_path: Path):
    done = fac_here(*REDUCED, override, "tracking.enabled=false", cwd=tmp_path)
    assert sentence in done.failure
