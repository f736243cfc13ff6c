"""experiments.select from files to chosen rows: every curve against brute force, and what is said where nothing is."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli import Finished, fac_here
from support.own_data import own_files, write_texts

from experiments.harness.config import read_config
from experiments.harness.overrides import quoted
from experiments.harness.results import LAB_LABEL, Table
from experiments.steps.select import selecting
from fac.data.examples import Example
from fac.pooled import Pooled
from fac.synthesis.method import Pool, SynthesisInput
from fac.synthesis.settings import Settings

BUDGET, ANCHOR, SEED, POOL = 12, 150, 24, 80
METHODS = [method.name for method in selecting()]


class Run(NamedTuple):
    """A finished run, and how it was called."""

    folder: Path
    arguments: list[str]
    done: Finished

    @property
    def table(self) -> Table:
        return Table.from_json((self.folder / "out" / "table.json").read_text())

    @property
    def curves(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for one in json.loads((self.folder / "out" / "curve.json").read_text())["curves"]:
            found.setdefault(one["method"], []).append(one)
        return found

    def chosen(self, method: str) -> list[dict[str, Any]]:
        lines = (self.folder / "out" / "chosen" / f"{method}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def again(self, *more: str) -> Finished:
        return fac_here(*self.arguments, *more, cwd=self.folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("select")
    arguments = ["experiment=select", *own_files(folder), "data.pool.path=pool.jsonl", f"budget={BUDGET}", "out=out"]
    arguments += ["tracking.enabled=false", "experiment.draws=2", "workers=1"]
    done = fac_here(*arguments, cwd=folder)
    assert done.code == 0, done.err
    return Run(folder, arguments, done)


def activations(run: Run) -> dict[int, NDArray[np.float32]]:
    """The dense activations of anchor, seed and pool, by their number of texts."""
    found = {}
    for record in (run.folder / "outputs" / "store" / "features").glob("*/stage.json"):
        pooled = Pooled.load(record.parent)
        found[pooled.n_texts] = np.stack([pooled.row(text) for text in range(pooled.n_texts)])
    return found


@pytest.fixture(scope="module")
def covers(run: Run) -> list[set[int]]:
    """The missing features that each text of the pool activates, by brute force."""
    held = activations(run)
    cut = held[ANCHOR].max(axis=0) * np.float32(0.5)
    missing = (held[ANCHOR] > cut).any(axis=0) & ~(held[SEED] > cut).any(axis=0)
    return [set(np.flatnonzero(row & missing).tolist()) for row in held[POOL] > cut]


@pytest.mark.parametrize("method", METHODS)
def test_every_curve_is_what_the_first_rows_cover_and_every_row_says_what_it_adds(run: Run, covers, method: str):
    for one in run.curves[method]:
        assert len(one["rows"]) == len(set(one["rows"])) == BUDGET
        for upto in range(BUDGET):
            assert one["covered"][upto] == len(set().union(*(covers[row] for row in one["rows"][: upto + 1])))
    first, seen = run.curves[method][0], set()
    for row, told in zip(first["rows"], run.chosen(method), strict=True):
        assert set(told["covers"]) == covers[row] - seen
        assert told["missing_features"] == len(covers[row])
        seen |= covers[row]
    (share,) = {c.mean for c in run.table.cells if c.row == method and c.column == "covered"}
    assert share == pytest.approx(np.mean([one["covered"][-1] for one in run.curves[method]]))


def test_the_selection_for_missing_features_is_greedy_row_by_row(run: Run, covers):
    """No other text would have added more at any place."""
    (one,) = run.curves["select_fac"]
    seen: set[int] = set()
    for place, row in enumerate(one["rows"]):
        left = [other for other in range(POOL) if other not in one["rows"][:place]]
        assert len(covers[row] - seen) == max(len(covers[other] - seen) for other in left)
        seen |= covers[row]
    assert all(one["covered"][-1] >= other["covered"][-1] for curves in run.curves.values() for other in curves)


def test_chosen_rows_are_those_of_the_file_with_their_place(run: Run):
    lines = (run.folder / "pool.jsonl").read_text().splitlines()
    for method in METHODS:
        for told, row in zip(run.chosen(method), run.curves[method][0]["rows"], strict=True):
            assert told["source"] == f"pool.jsonl, line {row + 1}"
            assert told["row"] == json.loads(lines[row])
            assert told["row"]["source"] == "pool"  # columns that the harness does not know are kept


def test_the_table_says_whose_data_these_are_and_what_was_covered_before(run: Run):
    held = activations(run)
    cut = held[ANCHOR].max(axis=0) * np.float32(0.5)
    active, known = (held[ANCHOR] > cut).any(axis=0), (held[SEED] > cut).any(axis=0)
    cell = run.table.cell("select_fac", "fac")
    assert cell is not None
    covered = run.curves["select_fac"][0]["covered"][-1]
    assert cell.mean == pytest.approx(100 * ((active & known).sum() + covered) / active.sum())
    text = (run.folder / "out" / "table.md").read_text()
    assert "OWN DATA: the lab's model lab_llama on anchor anchor.jsonl, seed seed.jsonl, pool pool.jsonl; " in text
    assert LAB_LABEL not in text
    page = (run.folder / "out" / "report.html").read_text()
    assert "Coverage by number of texts" in page
    assert "Coverage by number of tokens" in page
    drawn = run.table.cell("select_random", "covered")
    assert drawn is not None
    assert drawn.n == 2


def test_short_keys_are_the_options_of_the_experiment(run: Run):
    said = quoted("task.description=what a customer, says", sweep=False)  # as the command line reads it
    short = read_config([*run.arguments, "relevance=labels", said])
    long = [a.replace("budget=", "experiment.budget=") for a in run.arguments]
    assert short.values == read_config([*long, "experiment.relevance=labels", f"experiment.{said}"]).values
    assert short.experiment.task.description == "what a customer, says"
    assert "no key budgt" in run.again("budgt=3").failure
    assert "experiment.budget=0 will not do" in run.again("budget=0").failure


def test_relevance_by_labels_counts_other_features_than_relevance_of_all(run: Run):
    done = run.again("relevance=labels", "data.anchor.label=toxic", "interpret.fdr=0.3", "out=labels")
    assert done.code == 0, done.err
    table = Table.from_json((run.folder / "labels" / "table.json").read_text())
    ours, all_ = (t.cell("select_fac", "covered") for t in (table, run.table))
    assert ours is not None
    assert all_ is not None
    assert 0 < ours.mean < all_.mean
    assert "among texts of equal length (relevance=labels)" in (run.folder / "labels" / "table.md").read_text()


def pool_of(run: Run, name: str, *texts: str) -> str:
    file = write_texts(run.folder / name, [Example([{"role": "user", "content": text}], 0) for text in texts])
    return f"data.pool.path={file.name}"


FAILURES = [
    (["budget=81"], "budget=81 is more than the 80 texts of the pool pool.jsonl: lower it."),
    (["data.pool.path=seed.jsonl"], "None of the 24 texts of the pool seed.jsonl activates one of the"),
    (["data.seed.path=anchor.jsonl"], "The seed data miss nothing: they activate each of the"),
    (["relevance=llm"], "relevance=llm goes by a description of the task: give one, task.description="),
    (["relevance=labels"], "relevance=labels goes by labels of the anchor: name their column, data.anchor.label="),
    (["data.pool.text=said"], "there is no column 'said' (found: prompt, toxic, source)"),
    (["interpret.judge=statistical"], "interpret.judge=statistical is not for data of one's own: leave it out"),
    (["relevance=some"], "experiment.relevance='some' will not do"),
    (["data.pool.path=none.jsonl"], "none.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "said"), FAILURES, ids=lambda value: "" if isinstance(value, str) else value[0])
def test_what_cannot_be_is_one_sentence(run: Run, given: list[str], said: str):
    assert said in run.again(*given, "out=failed").failure


def test_an_empty_pool_is_one_sentence(run: Run):
    (run.folder / "empty.jsonl").write_text("")
    assert "There is no text in empty.jsonl (it is empty)" in run.again("data.pool.path=empty.jsonl").failure


def test_a_pool_with_too_few_texts_of_use_gives_fewer_rows_and_says_so(run: Run, covers):
    pool = (run.folder / "pool.jsonl").read_text().splitlines()
    useful = next(row for row in range(POOL) if covers[row])
    mixed = [*(run.folder / "seed.jsonl").read_text().splitlines(), pool[useful]]
    (run.folder / "mixed.jsonl").write_text("\n".join(mixed) + "\n")
    done = run.again("data.pool.path=mixed.jsonl", "out=mixed", "budget=5")
    assert done.code == 0, done.err
    table = Table.from_json((run.folder / "mixed" / "table.json").read_text())
    rows = table.cell("select_fac", "rows")
    assert rows is not None
    assert rows.mean == 1
    assert any(re.search("Fewer than the budget: .*Selected for missing features 1", note) for note in table.notes)


def test_memory_grows_with_what_is_active_and_not_with_the_width():
    """Ten thousand texts of an SAE of 2^16 features: as a matrix of bytes that would be 655 MB."""
    rng, texts, width, each = np.random.default_rng(0), 10_000, 1 << 16, 30
    indices = np.sort(rng.integers(0, width, (texts, each)), axis=1).astype(np.int32).ravel()
    values = rng.random(texts * each, np.float32) + 1
    pooled = Pooled(width, np.arange(texts + 1, dtype=np.int64) * each, indices, values)
    pool = Pool(range(texts), np.arange(texts), pooled, rng.integers(5, 60, texts).astype(np.int32))
    given = SynthesisInput(
        [], [], range(0, width, 7), [], {}, np.zeros(width, np.float32), np.ones(width, np.float32), 200, Settings(),
        pool=lambda: pool,
    )  # fmt: skip
    tracemalloc.start()
    for method in selecting():
        assert len(method.run(given, None).examples) == 200  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * len(indices) + 10_000_000
