"""experiments.matching from two models to table and page: against brute force, and on a model matched with itself."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli import Finished, fac_here
from support.encoders import WIDTH, sentences, train_sae
from support.models import tiny_model

from experiments.harness.results import Table
from fac.pooled import Pooled

ANCHOR = "tasks.toxicity.sizes.anchor=300"
TEXTS, AT_LEAST, MIN_ACTIVE = 160, 0.5, 4


class Run(NamedTuple):
    """A finished run in `folder`."""

    folder: Path
    done: Finished

    @property
    def table(self) -> Table:
        return Table.from_json((self.folder / "out" / "table.json").read_text())

    def number(self, row: str, column: str) -> float:
        cell = self.table.cell(row, column)
        assert cell is not None, (row, column)
        return cell.mean

    def matches(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.folder / "out" / "matches.jsonl").read_text().splitlines()]


def matching(folder: Path, *overrides: str) -> Run:
    settings = ["experiment=matching", "experiment.models=[lab_llama,local]", "model=local", "tracking.enabled=false"]
    return Run(folder, fac_here(*settings, "out=out", *overrides, cwd=folder))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The lab's LLaMA and a random Qwen read the same labelled texts."""
    folder = tmp_path_factory.mktemp("strangers")
    train_sae(tiny_model(folder / "qwen", "qwen2"), folder / "sae")
    rows = [{"text": text, "spy": int("spy" in text)} for text in sentences(TEXTS, 1)]
    assert 20 < sum(row["spy"] for row in rows) < TEXTS - 20
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = matching(
        folder,
        "model.path=qwen",
        "model.sae=sae",
        "data.corpus.path=texts.jsonl",
        "data.corpus.label=spy",
        f"experiment.at_least={AT_LEAST}",
        f"experiment.min_active={MIN_ACTIVE}",
    )
    assert run.done.code == 0, run.done.err
    return run


def activations(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dense activations [texts, features] of the lab's LLaMA and of the tiny model, from the store."""
    found = {}
    for record in (run.folder / "outputs" / "store" / "features").glob("*/stage.json"):
        pooled = Pooled.load(record.parent)
        assert pooled.n_texts == TEXTS
        found[pooled.n_features] = np.stack([pooled.row(text) for text in range(TEXTS)]).astype(np.float64)
    tiny = found.pop(WIDTH)
    return found.popitem()[1], tiny


def test_the_numbers_are_those_of_the_matrices(strangers: Run):
    a, b = activations(strangers)
    ids_a, ids_b = (np.flatnonzero(((m > 0).sum(axis=0) >= MIN_ACTIVE) & (np.ptp(m, axis=0) > 0)) for m in (a, b))
    r = np.corrcoef(a[:, ids_a].T, b[:, ids_b].T)[: len(ids_a), len(ids_a) :].round(9)
    pairs = {
        (ids_a[i], ids_b[j]): r[i, j]
        for i, j in enumerate(r.argmax(axis=1))
        if r[:, j].argmax() == i and r[i, j] >= AT_LEAST
    }
    assert pairs  # otherwise this test says little
    for row, ids, best in (("lab_llama>local", ids_a, r.max(axis=1)), ("local>lab_llama", ids_b, r.max(axis=0))):
        assert strangers.number(row, "alive") == len(ids)
        assert strangers.number(row, "matched") == len(pairs)
        assert strangers.number(row, "share") == pytest.approx(100 * len(pairs) / len(ids), abs=1e-5)
        assert strangers.number(row, "median_r") == pytest.approx(np.median(best), abs=1e-5)
    listed = strangers.matches()
    assert {(m["lab_llama"], m["local"]): m["r"] for m in listed} == pytest.approx(pairs, abs=1e-5)
    assert [m["r"] for m in listed] == sorted((m["r"] for m in listed), reverse=True)


def test_shuffled_texts_match_less(strangers: Run):
    for row in ("lab_llama>local", "local>lab_llama"):
        assert strangers.number(row, "chance_matched") < strangers.number(row, "matched")
        assert strangers.number(row, "chance_r") < strangers.number(row, "median_r")


def test_the_page_shows_both_directions_and_the_control(strangers: Run):
    page = (strangers.folder / "out" / "report.html").read_text()
    for shown in (
        "lab_llama → local",
        "local → lab_llama, by chance",
        "Counterparts: lab_llama and local",
        f"{TEXTS} texts",
    ):
        assert shown in page
    assert strangers.done.out.splitlines()[-1] == f"results: {strangers.folder / 'out'}"


def test_the_run_tells_a_site_whose_features_were_matched_and_what_was_found(strangers: Run):
    folder = strangers.folder / "out"
    encoders = json.loads((folder / "encoders.json").read_text())
    store = strangers.folder / "outputs" / "store"
    assert encoders.keys() == {"lab_llama", "local"}
    assert all((store / "features" / key).is_dir() for key in encoders.values())
    told = json.loads((folder / "page.json").read_text())["answer"]
    row = strangers.table.rows[0]
    assert told.startswith(
        f"{strangers.number(row, 'matched'):.0f} of {strangers.number(row, 'alive'):.0f} features of"
    )


def test_a_model_has_its_own_features(tmp_path: Path):
    """Matched with itself, on the lab's anchor corpus, whose labels say what is relevant."""
    run = matching(tmp_path, "model.path=lab:llama", "model.sae=lab:llama/sae", ANCHOR)
    assert run.done.code == 0, run.done.err
    assert "300 texts, the anchor corpus of world 0" in (tmp_path / "out" / "report.html").read_text()
    for row in ("lab_llama>local", "local>lab_llama"):
        assert run.number(row, "alive") > 100
        assert run.number(row, "median_r") == pytest.approx(1)
        assert run.number(row, "share") > 95  # two features that always fire together share one counterpart
        assert run.number(row, "chance_matched") < run.number(row, "alive") / 20
        assert run.number(row, "relevant") > 0
        assert run.number(row, "relevant_share") > 95
        assert run.number(row, "agreement") == 100
    assert all(m["lab_llama"] == m["local"] for m in run.matches())
    stages = tmp_path / "outputs" / "store"
    assert len(list(stages.glob("features/*/stage.json"))) == 1  # one model by two names is measured once
    planned = matching(tmp_path, "model.path=lab:llama", "model.sae=lab:llama/sae", ANCHOR, "dry_run=true")
    assert "everything is stored" in planned.done.out
    again = matching(tmp_path, "model.path=lab:llama", "model.sae=lab:llama/sae", ANCHOR, "out=again")
    assert again.done.code == 0
    tables = [Table.from_json((tmp_path / out / "table.json").read_text()) for out in ("out", "again")]
    assert tables[0].to_json(with_provenance=False) == tables[1].to_json(with_provenance=False)
    assert "built in" not in again.done.err


def test_texts_without_labels_have_no_relevant_features(strangers: Run, tmp_path: Path):
    folder = strangers.folder
    (tmp_path / "more.jsonl").write_text('{"text": ""}\n')
    run = matching(
        folder, f"model.path={folder / 'qwen'}", f"model.sae={folder / 'sae'}", "data.corpus.on_error=skip",
        f"data.corpus.path=[{folder / 'texts.jsonl'},{tmp_path / 'more.jsonl'}]", f"out={tmp_path / 'out'}",
    )  # fmt: skip
    assert run.done.code == 0, run.done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert not {"relevant", "relevant_share", "agreement"} & set(table.columns)
    assert any("no labels of two classes" in note for note in table.notes)
    assert any(note.startswith("shared: ") and "1 malformed rows skipped" in note for note in table.notes)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["experiment.models=[lab_llama]"], "experiment.models needs at least two models, and each only once"),
        (["experiment.models=[lab_llama,lab_llama]"], "each only once"),
        (["experiment.models=[lab_llama,locl]"], "There is no model=locl: did you mean local"),
        (["experiment.at_least=2"], "experiment.at_least=2 will not do"),
        (["experiment.min_active=0"], "experiment.min_active=0 will not do"),
        (["scale=paper", "sae=train"], "data.corpus.path is not set: give a data set"),
        (["tasks.toxicity.sizes.anchors=3"], "no key tasks.toxicity.sizes.anchors: did you mean"),
        (["tasks.toxicity.sizes.anchor=20", "experiment.min_active=21"], "no feature that fires in at least 21 texts"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(overrides: list[str], said: str, tmp_path: Path):
    run = matching(tmp_path, "model.path=lab:llama", "model.sae=lab:llama/sae", *overrides)
    assert said in run.done.failure
