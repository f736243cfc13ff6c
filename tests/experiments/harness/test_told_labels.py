"""Whose the numbers are stands everywhere where a run speaks: table.md, report.html, the site, MLflow, the terminal."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from support.cli import Finished, fac_here

from experiments.harness.results import LAB_LABEL
from fac.lab import MODELS

TEXTS = ("how do i bake bread", "tell me how to spy on my neighbour", "what is a good gift", "write a short letter")
BEGINS = {
    "lab": "LAB RESULT",
    "own_model": "OWN MODEL: model mine",
    "own_data": "OWN DATA: the lab's model lab_llama on anchor a.jsonl, seed b.jsonl",
    "own": "OWN DATA AND MODEL: model mine on anchor a.jsonl, seed b.jsonl",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Finished]]:
    """The lab's world and two files of one's own, each read by a model of the lab and by one's own; and their site."""
    folder = tmp_path_factory.mktemp("told")
    shutil.copytree(MODELS / "llama", folder / "mine")
    for name, texts in {"a": TEXTS, "b": TEXTS[:2]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    matching = ("experiment=matching", "tasks.toxicity.sizes.anchor=60")
    coverage = ("experiment=coverage", "data.anchor.path=a.jsonl", "data.seed.path=b.jsonl", "experiment.bootstrap=2")
    mine = "model.path=mine"
    commands = {
        "lab": (*matching, "experiment.models=[lab_llama,lab_qwen]"),
        "own_model": (*matching, mine, "experiment.models=[mine,lab_qwen]"),
        "own_data": coverage,
        "own": (*coverage, mine),
    }
    done = {name: fac_here(*settings, f"out=outputs/{name}", cwd=folder) for name, settings in commands.items()}
    assert all(one.code == 0 for one in done.values()), [one.err[-500:] for one in done.values()]
    assert fac_here("report", "outputs=outputs", "out=site", cwd=folder).code == 0
    return folder, done


@pytest.mark.slow
@pytest.mark.parametrize("name", BEGINS)
def test_a_run_says_whose_its_numbers_are_wherever_it_speaks(runs: tuple[Path, dict[str, Finished]], name: str) -> None:
    folder, done = runs
    out = folder / "outputs" / name
    page = folder / "site" / "runs" / f"{name}.html"
    places = {
        "table": (out / "table.md").read_text(),
        "report": (out / "report.html").read_text(),
        "site": page.read_text(),
        "terminal": done[name].out,
        "mlflow": tagged(folder, out),
    }
    for place, said in places.items():
        said = said.replace("&#39;", "'")
        assert BEGINS[name] in said, place
        assert (LAB_LABEL in said) == (name == "lab"), place
        assert [other for other in BEGINS.values() if other in said and not BEGINS[name].startswith(other)] == [], place


def tagged(folder: Path, out: Path) -> str:
    """What MLflow holds of the tracked run whose folder of results this is."""
    with sqlite3.connect(folder / "outputs" / "mlflow.db") as base:
        (run,) = base.execute("SELECT run_uuid FROM params WHERE key = 'out' AND value = ?", [f"outputs/{out.name}"])
        ((told,),) = base.execute("SELECT value FROM tags WHERE run_uuid = ? AND key = 'label'", run)
    return str(told)


@pytest.mark.slow
def test_the_index_of_the_site_marks_each_run_with_its_own(runs: tuple[Path, dict[str, Finished]]) -> None:
    folder, _ = runs
    index = (folder / "site" / "index.html").read_text().replace("&#39;", "'")
    for begins in BEGINS.values():
        assert begins in index
        assert f'<span class="tag">{begins.partition(":")[0]}</span>' in index
    claims = (folder / "site" / "claims.html").read_text()
    assert "LAB RESULT" not in claims  # no run of these decides one
