"""experiments.lookup: given features of the reduced lab, the paper's own at its scale, and ids that are none."""

from pathlib import Path

import numpy as np
import pytest
from support.cli import Finished, fac_here
from support.reduced import measured

from experiments.harness.config import read_config
from experiments.harness.graph import Graph
from experiments.harness.results import Table
from experiments.lookup import EXPERIMENT, named
from experiments.pages.lookup import most_active
from fac.interpret import Interpretation


def lookup(folder: Path, *settings: str) -> Finished:
    fixed = ["experiment=lookup", "experiment.tasks=[toxicity]", "tracking.enabled=false"]
    return fac_here(*fixed, *measured("toxicity"), *settings, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lookup")
    done = lookup(folder, "out=most")
    assert done.code == 0, done.err
    return folder


def told(folder: Path) -> dict[str, str]:
    notes = Table.from_json((folder / "table.json").read_text()).notes
    return dict(note.split(": ", 1) for note in notes if note.startswith("Toxicity "))


@pytest.mark.slow
def test_without_ids_relevant_features_and_others_are_shown_that_most_texts_activate(folder: Path):
    table = Table.from_json((folder / "most/table.json").read_text())
    said = list(told(folder / "most").values())
    assert len(said) == len(table.rows) == 5
    assert all("relevant: No" not in note for note in said[:3])
    assert all("relevant: No" in note for note in said[3:])
    counts = [cell.mean for row in table.rows if (cell := table.cell(row, "anchor"))]
    assert counts[:3] == sorted(counts[:3], reverse=True)
    assert (folder / "most/report.html").read_text().count('class="entry"') == 5


@pytest.mark.slow
def test_given_ids_are_explained_alone_verified_and_say_the_same(folder: Path):
    table = Table.from_json((folder / "most/table.json").read_text())
    ids = [int(row.partition("/")[2]) for row in table.rows]
    silent = next(i for i in range(2048) if i not in ids and is_silent(folder, i))
    done = lookup(folder, f"experiment.ids={[*ids, silent]}".replace(" ", ""), "out=given")
    assert done.code == 0, done.err
    assert done.err.count("built in") == 1  # the explanations of six features, and nothing measured again
    before, after = told(folder / "most"), told(folder / "given")
    assert after.pop(f"Toxicity {silent}") == "no text of the anchor activates it."
    assert list(before) == list(after)
    for name, note in after.items():
        assert "fits its spans: " in note
        assert note.split("” (")[0] == before[name].split("” (")[0]


def is_silent(folder: Path, feature: int) -> bool:
    from fac.corpus_features import CorpusFeatures

    stages = (folder / "outputs/store/features").glob("*/stage.json")
    return all(CorpusFeatures.load(stage.parent).pooled.maxima()[feature] == 0 for stage in stages)


@pytest.mark.slow
def test_an_id_that_the_sae_does_not_have_is_named(folder: Path):
    said = lookup(folder, "experiment.ids=[2048]", "out=beyond").failure
    assert "experiment.ids=2048 will not do: the SAE has 2048 features, from 0 to 2047" in said


def test_the_paper_s_features_stand_for_its_model_and_sae_alone():
    run = read_config(["experiment=table2", "scale=paper"])
    ids = named(run)
    assert (ids["toxicity"], ids["survival"]) == ([2039, 6840, 17612, 46477, 47260], [43123, 36])
    with Graph(run, print) as graph:
        steps = EXPERIMENT.plan(run, graph).steps
    assert [s.params["only"] for s in steps if s.name == "interpret"] == [sorted(v) for v in ids.values()]
    other = read_config(["experiment=lookup", "scale=paper", "sae.release=x", "sae.id=y"])
    assert not any(named(other).values())
    assert not any(named(read_config(["experiment=lookup", "scale=paper", "model=qwen2_7b"])).values())


def test_those_that_most_texts_activate_come_first():
    verdicts = {1: "Yes", 2: "No", 3: "Maybe", 4: "", 5: "Probably", 6: "Yes", 7: "No", 8: "No"}
    told = {f: Interpretation(f, ("a",), "x", "", verdict) for f, verdict in verdicts.items()}
    counts = np.array([0, 5, 9, 7, 99, 1, 6, 8, 7])
    assert most_active(told, counts) == [3, 6, 1, 2, 7]
