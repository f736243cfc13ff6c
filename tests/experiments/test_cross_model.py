"""experiments.cross_model, reduced: every combination has its cell, and the families' gaps are compared."""

from pathlib import Path

import pytest
from support.cli import fac_here
from support.plans import plan_of, stored

from experiments.cross_model import EXPERIMENT
from experiments.harness.config import read_config
from experiments.harness.graph import Graph
from experiments.harness.paper_numbers import paper_table
from experiments.harness.results import Table
from experiments.tasks import TASKS

REDUCED = [
    "experiment=cross_model",
    "tasks.toxicity.sizes={anchor: 30, safe: 30, seed: 16, human: 10, labelled: 20, validation: 9, test: 60, known: 6}",
    "tasks.toxicity.budget=8",
    "seeds.training=[42]",
    "tasks.toxicity.train.epochs=1",
    "interpret.spans=2",
    "synthesis.n=1",
    "synthesis.m=1",
    "workers=1",
    "tracking.enabled=false",
    "out=out",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What several of the tests need, made once: a setting of the command line."""
    return f"paths.store={tmp_path_factory.mktemp('shared') / 'store'}"


@pytest.mark.slow
def test_one_model_alone(store: str, tmp_path: Path):
    alone = [f"experiment.{role}=[lab_llama]" for role in ("sources", "writers", "trained")]
    done = fac_here(*REDUCED, *alone, store, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert (table.rows, table.columns) == (
        ("baseline", "lab_llama+lab_llama"),
        ("lab_llama", "lab_llama_gain", "written_rows", "written_tokens", "written_fac", "written_ratio"),
    )
    transferred = table.cell("lab_llama+lab_llama", "lab_llama")
    assert transferred is not None
    assert transferred.paper == paper_table("table3").get("llama", "fine_tuned")
    gain = table.cell("lab_llama+lab_llama", "lab_llama_gain")
    assert gain is not None
    assert gain.paper == paper_table("table3").get("llama", "gap")
    assert "here LoRA is trained" in " ".join(table.notes)  # Table 3 trains heads only
    assert not (tmp_path / "out" / "agreement.json").exists()


@pytest.mark.slow
def test_all_combinations_of_the_models_named(store: str, tmp_path: Path):
    named = ["experiment.writers=[lab_qwen]", "experiment.trained=[lab_mistral,lab_qwen]"]
    folder = Path(store.partition("=")[2])
    planned, already = plan_of([*REDUCED, *named, store]), stored(folder)
    done = fac_here(*REDUCED, *named, store, cwd=tmp_path)
    assert done.code == 0, done.err
    assert not planned.stops
    assert stored(folder).keys() - already.keys() == planned.left
    assert not plan_of([*REDUCED, *named, store]).left
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert table.rows == ("baseline", *(f"lab_{source}+lab_qwen" for source in ("llama", "mistral", "qwen")))
    for row in table.rows:
        for target in ("lab_mistral", "lab_qwen"):
            cell = table.cell(row, target)
            assert cell is not None
            assert 0 <= cell.mean <= 100
            assert (table.cell(row, f"{target}_gain") is None) == (row == "baseline")
    claims = Table.from_json((tmp_path / "out" / "claims.json").read_text())
    assert claims.rows == (
        *(f"lab_mistral/lab_{source}+lab_qwen/lab_mistral+lab_qwen" for source in ("llama", "qwen")),
        *(f"lab_qwen/lab_{source}+lab_qwen/lab_qwen+lab_qwen" for source in ("llama", "mistral")),
    )
    assert "Figs. 16 to 18" in (tmp_path / "out" / "report.html").read_text()
    agreement = Table.from_json((tmp_path / "out" / "agreement.json").read_text())
    assert agreement.rows == ("lab_llama+lab_mistral", "lab_llama+lab_qwen", "lab_mistral+lab_qwen")
    assert all(0 <= cell.mean <= 100 for cell in agreement.cells)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("experiment.sources=[lab_llama,lab_lama]", "There is no model=lab_lama: did you mean lab_llama"),
        ("experiment.trained=[lab_qwen,lab_qwen]", "experiment.trained needs at least one entry, and each only once"),
        ("experiment.task=instruction", "names a task that trains the instruct model, such as reward"),
        ("experiment.task=rewards", "experiment.task cannot be rewards: did you mean reward"),
        ("+experiment.tasks=[toxicity]", "experiment.tasks"),
    ],
)
def test_wrong_names_are_said_in_one_sentence(override: str, sentence: str, tmp_path: Path):
    assert sentence in fac_here(*REDUCED, override, cwd=tmp_path).failure


def test_features_are_mined_with_the_sources_alone():
    """What is only trained, a baseline beside the others, needs no SAE and no interpretations."""
    run = read_config([*REDUCED, "experiment.sources=[lab_llama]", "experiment.trained=[lab_mistral,lab_qwen]"])
    with Graph(run, print) as graph:
        trials = EXPERIMENT.plan(run, graph).trials
        minings = {graph.steps(trial).mining for trial in trials}
        assert {trial.trained for trial in trials if trial.method == "baseline"} == {"lab_mistral", "lab_qwen"}
        assert {mining.interpretations.key for mining in minings if mining} == {
            graph.mining(run, TASKS["toxicity"], graph.data(run, "toxicity", 0, "test")).interpretations.key
        }


@pytest.mark.parametrize(("scale", "mode"), [("lab", "lora"), ("paper", "head")])
def test_heads_alone_are_trained_where_the_model_is_large_enough(scale: str, mode: str):
    """As in Table 3; in the lab a linear head is near chance."""
    assert read_config(["experiment=cross_model", f"scale={scale}"]).tasks["toxicity"].train.mode == mode
