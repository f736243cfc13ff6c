"""experiments.coverage from files to table and page: against brute force, run twice, on real data, at any length."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from support.cli import Finished, fac_here, run_fac
from support.encoders import sentences
from support.models import tiny_model

from experiments.harness.results import LAB_LABEL, Table
from fac.pooled import Pooled

WIDTH = 128
SEED_TEXTS, ANCHOR_TEXTS = 25, 120


class Run(NamedTuple):
    """A finished run: the folder it ran in, how it was called, what it said."""

    folder: Path
    arguments: list[str]
    done: Finished
    planned: str  # what a dry run said before it

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def table(self) -> Table:
        return Table.from_json((self.out / "table.json").read_text())


class Words(HTMLParser):
    """All text of a page, and its marked words; fails on a tag that is closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.marked, self._open = "", [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self._open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "mark" in self._open:
            self.marked[-1] += data


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two small files, a tiny model, and an SAE that the run trains itself."""
    folder = tmp_path_factory.mktemp("coverage")
    tiny_model(folder / "model")
    write_texts(folder / "anchor.jsonl", sentences(ANCHOR_TEXTS, 1))
    write_texts(folder / "seed.jsonl", sentences(SEED_TEXTS, 2))
    arguments = [
        "experiment=coverage",
        "model=local",
        "model.path=model",
        "sae=train",
        f"sae.train.width={WIDTH}",
        "sae.train.steps=50",
        "data.anchor.path=anchor.jsonl",
        "data.seed.path=seed.jsonl",
        "tracking.enabled=false",
        "out=out",
    ]
    planned = fac_here(*arguments, "dry_run=true", cwd=folder)
    done = fac_here(*arguments, cwd=folder)
    assert done.code == 0, done.err
    return Run(folder, arguments, done, planned.out)


def matrices(run: Run) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The dense activations [texts, width] of anchor and seed data, from the store."""
    found = {}
    for record in (run.folder / "outputs" / "store" / "features").glob("*/stage.json"):
        pooled = Pooled.load(record.parent)
        found[pooled.n_texts] = np.stack([pooled.row(text) for text in range(pooled.n_texts)])
    return found[ANCHOR_TEXTS], found[SEED_TEXTS]


def test_lists_and_patterns_of_files_are_one_data_set_and_what_is_left_out_is_in_the_table(run: Run):
    """The same texts in files of other kinds give the same numbers."""
    texts = sentences(SEED_TEXTS, 2)
    (run.folder / "parts").mkdir()
    for name, part in (("a", texts[:10]), ("b", texts[10:20])):
        (run.folder / "parts" / f"{name}.csv").write_text("text\n" + "".join(f"{text}\n" for text in part))
    rest = write_texts(run.folder / "rest.jsonl", texts[20:])
    rest.write_text(rest.read_text() + '{"text": ""}\n{"text": \n')
    changed = ["data.seed.path=[parts/*.csv,rest.jsonl]", "data.seed.on_error=skip", "out=listed"]
    done = fac_here(*run.arguments, *changed, cwd=run.folder)
    assert done.code == 0, done.err
    table = Table.from_json((run.folder / "listed" / "table.json").read_text())
    assert {(c.row, c.column): c.mean for c in table.cells} == {(c.row, c.column): c.mean for c in run.table.cells}
    (left,) = set(table.notes) - set(run.table.notes)
    assert left.startswith(
        f"seed: {SEED_TEXTS} texts, 2 malformed rows skipped (first: rest.jsonl, line 6: the text is"
    )
    assert "1: the text is empty; 1: not valid JSON" in left
    page = (run.folder / "listed" / "report.html").read_text()
    assert page.count("2 malformed rows skipped") == 3  # both tables, and the facts
    assert "*.csv, rest.jsonl against anchor.jsonl" in page
    again = fac_here(*run.arguments, "data.seed.path=parts", "out=folder", cwd=run.folder)
    assert again.code == 0, again.err
    assert "seed: 20 texts" in again.err + again.out


def test_the_table_has_the_promised_form(run: Run):
    raw = json.loads((run.out / "table.json").read_text())
    assert {"experiment", "scale", "cells", "config_hash", "versions"} <= raw.keys()
    assert raw["experiment"] == "coverage"
    assert raw["scale"] == "lab"
    assert {"python", "torch", "transformers", "sae-lens"} <= raw["versions"].keys()
    assert raw["cells"]
    for cell in raw["cells"]:
        assert {"row", "column", "mean", "std", "n", "seeds", "paper", "unit", "run_ids"} <= cell.keys()
    assert re.fullmatch("[0-9a-f]{12}", raw["config_hash"])
    assert yaml.safe_load((run.out / "config.yaml").read_text())["experiment"]["name"] == "coverage"
    assert run.done.out.splitlines()[-1] == f"results: {run.out}"
    heading = (run.out / "table.md").read_text().splitlines()
    assert "# Feature activation coverage by threshold δ" in heading[0]
    rows = [line for line in heading if line.startswith("| 0.5×max |")]
    assert rows[0].count("|") == len(run.table.columns) + 2


def test_the_numbers_are_those_of_the_matrices(run: Run):
    anchor, seed = matrices(run)
    assert anchor.shape == (ANCHOR_TEXTS, WIDTH)
    table = run.table
    assert len(table.rows) == 11
    compared = 0
    for row in table.rows:
        value, relative = float(row.split("×")[0]), row.endswith("×max")
        cut = anchor.max(axis=0) * np.float32(value) if relative else np.full(WIDTH, value, np.float32)
        often, active = (anchor > cut).sum(axis=0), (anchor > cut).any(axis=0)
        covered = active & (seed > cut).any(axis=0)
        expected = {"active": active.sum(), "missing": (active & ~covered).sum()}
        if active.any():
            mean = anchor.mean(axis=0, dtype=np.float64)
            expected["ratio"] = 100 * covered.sum() / active.sum()
            expected["frequency"] = 100 * often[covered].sum() / often[active].sum()
            expected["magnitude"] = 100 * mean[covered].sum() / mean[active].sum()
        for column, number in expected.items():
            cell = table.cell(row, column)
            assert cell is not None
            assert cell.mean == pytest.approx(number, abs=1e-5), (row, column)
            compared += column == "ratio"
        low, high = table.cell(row, "low"), table.cell(row, "high")
        assert (low is None) == (high is None) == (not active.any())
        assert low is None or high is None or 0 <= low.mean <= high.mean <= 100
    assert compared >= 6  # the relative ones and zero
    missing = table.cell("0.5×max", "missing")
    assert missing is not None
    assert missing.mean > 0


def test_the_page_shows_the_missing_features_and_their_spans(run: Run):
    anchor, seed = matrices(run)
    cut = anchor.max(axis=0) * np.float32(0.5)
    often = (anchor > cut).sum(axis=0)
    missing = np.flatnonzero((often > 0) & ~(seed > cut).any(axis=0))
    page = Words((run.out / "report.html").read_text())
    shown = [int(number) for number in re.findall(r"Feature (\d+)\b", page.text)]
    assert shown == sorted(missing, key=lambda f: (-often[f], f))[: len(shown)]
    assert len(shown) == min(len(missing), 50)
    assert len(page.marked) >= len(shown)
    said = " ".join(sentences(ANCHOR_TEXTS, 1))
    assert all(word in said for word in page.marked)
    assert sum(word != "" for word in page.marked) > len(page.marked) / 2  # a token may be white space alone
    strongest = sentences(ANCHOR_TEXTS, 1)[int(anchor[:, shown[0]].argmax())]
    span = re.search(rf"Feature {shown[0]}\b.*?{anchor[:, shown[0]].max():.2f}\s+(\S.*?)\n", page.text, re.DOTALL)
    assert span is not None
    assert span[1] in strongest
    assert f"anchor: {ANCHOR_TEXTS} texts" in run.done.err
    assert f"{ANCHOR_TEXTS} texts" in page.text


def test_diversity_stands_beside(run: Run):
    table = Table.from_json((run.out / "diversity.json").read_text())
    assert table.columns == ("anchor", "seed")
    for name in table.rows:
        assert table.cell(name, "anchor") is not None
    assert table.title in Words((run.out / "report.html").read_text()).text


def test_a_second_run_reuses_everything_and_says_the_same(run: Run):
    names = ("table.json", "table.md", "diversity.json", "config.yaml")
    before = {name: (run.out / name).read_bytes() for name in names}
    assert run.planned.count("7 steps to do") == 1
    assert run.done.err.count("built in") == 7  # two corpora, the SAE, and features and diversity of both
    again = fac_here(*run.arguments, cwd=run.folder)
    assert again.code == 0
    assert "built in" not in again.err
    assert {name: (run.out / name).read_bytes() for name in names} == before


def test_another_threshold_measures_nothing_again(run: Run):
    again = fac_here(
        *run.arguments, "thresholds.relative=[0.25]", "thresholds.default=0.25max", "out=b", cwd=run.folder
    )
    assert again.code == 0
    assert "built in" not in again.err
    table = Table.from_json((run.folder / "b" / "table.json").read_text())
    assert table.config_hash != run.table.config_hash
    assert table.cell("0.0", "ratio") == run.table.cell("0.0", "ratio")
    assert table.cell("0.25×max", "ratio") is not None


def test_columns_labels_and_skips_are_as_configured(run: Run, tmp_path: Path):
    rows = [f"{text},x" for text in sentences(30, 3)]
    (tmp_path / "seed.csv").write_text("said,who\n" + "\n".join([*rows, "one,two,three"]) + "\n")
    more = [f"data.seed.path={tmp_path / 'seed.csv'}", "data.seed.text=said", "data.seed.on_error=skip"]
    done = fac_here(*run.arguments, *more, "data.seed.limit=31", "out=c", cwd=run.folder)
    assert done.code == 0
    assert re.search(r"seed: 30 texts, 1 malformed rows skipped \(first: .*seed.csv, line 32: 3 fields", done.err)
    assert "seed: 30 texts, 1 malformed rows skipped" in (run.folder / "c" / "table.md").read_text()


def test_no_seeds_are_spoken_of_and_the_data_are_the_user_s(run: Run):
    text = (run.out / "table.md").read_text()
    assert "over seeds" not in text
    assert "OWN DATA AND MODEL: model model on anchor anchor.jsonl, seed seed.jsonl; neither the lab's nor" in text
    assert LAB_LABEL not in text
    assert {cell.seeds for cell in run.table.cells} == {()}
    assert "cut at" not in text


def test_texts_that_are_cut_are_counted_and_said(run: Run, tmp_path: Path):
    long = [f"{text} {'and so on ' * 60}" for text in sentences(12, 4)]
    write_texts(tmp_path / "seed.jsonl", [*long, "how do I bake bread"])
    more = [f"data.seed.path={tmp_path / 'seed.jsonl'}", "features.max_tokens=100", "out=d"]
    done = fac_here(*run.arguments, *more, cwd=run.folder)
    assert done.code == 0, done.err
    said = "12 of 13 seed texts were cut at 100 tokens (features.max_tokens)."
    assert said in done.err
    assert f"- {said}" in (run.folder / "d" / "table.md").read_text()
    assert said in Words((run.folder / "d" / "report.html").read_text()).text
    assert "anchor texts were cut" not in done.err


def test_a_seed_of_one_text_has_a_fac_and_no_diversity(run: Run, tmp_path: Path):
    write_texts(tmp_path / "one.jsonl", sentences(1, 5))
    done = fac_here(*run.arguments, f"data.seed.path={tmp_path / 'one.jsonl'}", "out=e", cwd=run.folder)
    assert done.code == 0, done.err
    table = Table.from_json((run.folder / "e" / "table.json").read_text())
    ratio = table.cell("0.0", "ratio")
    assert ratio is not None
    assert 0 < ratio.mean < 100
    assert "One text has no diversity: that of the seed is left out." in table.notes
    diversity = Table.from_json((run.folder / "e" / "diversity.json").read_text())
    assert {cell.column for cell in diversity.cells} == {"anchor"}


def test_one_text_against_one_has_no_table_of_diversity(run: Run, tmp_path: Path):
    write_texts(tmp_path / "one.jsonl", sentences(1, 5))
    path = tmp_path / "one.jsonl"
    sae = next((run.folder / "outputs" / "store" / "sae").glob("*/cfg.json")).parent
    arguments = [a for a in run.arguments if not a.startswith(("sae", "data", "out"))]
    more = [f"sae.path={sae}", f"data.anchor.path={path}", f"data.seed.path={path}", "out=f"]
    done = fac_here(*arguments, *more, cwd=run.folder)
    assert done.code == 0, done.err
    table = Table.from_json((run.folder / "f" / "table.json").read_text())
    ratio = table.cell("0.0", "ratio")
    assert ratio is not None
    assert ratio.mean == 100
    assert "One text has no diversity: that of the anchor and seed is left out." in table.notes
    assert not (run.folder / "f" / "diversity.json").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "seed.jsonl"),
        ('{"text": ""}\n{"text": "  "}\n', "seed.jsonl"),
    ],
)
@pytest.mark.parametrize("more", [[], ["data.seed.on_error=skip"]])
def test_a_seed_without_texts_is_one_sentence(run: Run, tmp_path: Path, rows: str, said: str, more: list[str]):
    (tmp_path / "seed.jsonl").write_text(rows)
    done = fac_here(*run.arguments, f"data.seed.path={tmp_path / 'seed.jsonl'}", *more, "out=g", cwd=run.folder)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert said in done.err.splitlines()[-1]


FORMATS = {
    "ToxicChat JSON": ("toxicchat", "toxic_chat_train.json", [], 300),
    "ToxicChat CSV": ("toxicchat", "toxicchat_train_positives_with_model_output.csv", [], 60),
    "SelfReg TSV": ("toxicchat", "SelfReg_TD_test.tsv", ["columns=[text,label]"], 60),
    "HH-RLHF JSONL, packed": ("hh_rlhf", "harmless-base_test.jsonl.gz", [], 60),
    "LIMA JSON": ("lima", "lima.json", [], 60),
    "UltraFeedback JSONL": ("ultrafeedback", "eval_clean.jsonl", ["turns=all"], 60),
}


@pytest.mark.parametrize("name", FORMATS)
def test_real_data_sets(name: str, real_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory):
    data_set, file, options, limit = FORMATS[name]
    arguments = [
        "experiment=coverage",
        f"data.anchor.path={real_data('alpaca') / 'alpaca_5000.json'}",
        "data.anchor.limit=300",
        f"data.seed.path={real_data(data_set) / file}",
        f"data.seed.limit={limit}",
        *(f"data.seed.{option}" for option in options),
        "experiment.diversity_texts=60",
        "experiment.listed=10",
        "tracking.enabled=false",
    ]
    folder = tmp_path_factory.getbasetemp() / "real"  # one store: the anchor is measured once
    folder.mkdir(exist_ok=True)
    done = fac_here(*arguments, cwd=folder)
    assert done.code == 0, done.err
    assert "anchor: 300 texts" in done.err
    assert f"seed: {limit} texts" in done.err
    table = Table.from_json((folder / "outputs" / "coverage" / "table.json").read_text())
    active, missing, ratio = (table.cell("0.0", column) for column in ("active", "missing", "ratio"))
    assert active is not None
    assert missing is not None
    assert ratio is not None
    assert 500 < active.mean <= 2048
    assert 0 < missing.mean < active.mean
    assert ratio.mean == pytest.approx(100 * (1 - missing.mean / active.mean))
    assert len(Words((folder / "outputs" / "coverage" / "report.html").read_text()).marked) >= 10


@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts(run: Run, tmp_path: Path):
    def peak(count: int) -> int:
        write_texts(tmp_path / "anchor.jsonl", sentences(count, count, longest=6))
        more = [f"data.anchor.path={tmp_path / 'anchor.jsonl'}", "sae=pretrained", f"sae.path={sae}"]
        small = [a for a in run.arguments if not a.startswith("sae")]
        done = run_fac(*small, *more, f"out=out-{count}", cwd=run.folder)
        assert done.code == 0, done.err
        assert f"anchor: {count} texts" in done.err
        return done.peak

    sae = next((run.folder / "outputs" / "store" / "sae").glob("*/cfg.json")).parent
    few, many = peak(2_200), peak(22_000)
    assert many < 1.1 * few
