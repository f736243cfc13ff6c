"""experiments.cross_model, reduced: every combination has its cell, and the families' gaps are compared."""

from pathlib import Path

import pytest
from support.cli import fac_here

from experiments.harness.results import Table

REDUCED = [
    "experiment=cross_model",
    "tasks.toxicity.sizes={anchor: 30, safe: 30, seed: 16, human: 10, labelled: 20, validation: 9, test: 60, known: 6}",
    "tasks.toxicity.budget=8",
    "tasks.toxicity.seeds=[42]",
    "tasks.toxicity.train.epochs=1",
    "interpret.spans=2",
    "synthesis.n=1",
    "synthesis.m=1",
    "workers=1",
    "tracking.enabled=false",
    "out=out",
]


@pytest.mark.slow
def test_one_model_alone(tmp_path: Path):
    alone = [f"experiment.{role}=[llama]" for role in ("sources", "writers", "trained")]
    done = fac_here(*REDUCED, *alone, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert (table.rows, table.columns) == (("baseline", "llama+llama"), ("llama", "llama_gain", "rows", "fac", "ratio"))
    transferred = table.cell("llama+llama", "llama")
    assert transferred is not None
    assert transferred.paper is None  # Table 3 trains heads only
    assert "does not stand beside" in " ".join(table.notes)
    assert not (tmp_path / "out" / "agreement.json").exists()


@pytest.mark.slow
def test_all_combinations_of_the_models_named(tmp_path: Path):
    done = fac_here(*REDUCED, "experiment.writers=[qwen]", "experiment.trained=[mistral,qwen]", cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert table.rows == ("baseline", "llama+qwen", "mistral+qwen", "qwen+qwen")
    for row in table.rows:
        for target in ("mistral", "qwen"):
            cell = table.cell(row, target)
            assert cell is not None
            assert 0 <= cell.mean <= 100
            assert (table.cell(row, f"{target}_gain") is None) == (row == "baseline")
    agreement = Table.from_json((tmp_path / "out" / "agreement.json").read_text())
    assert agreement.rows == ("llama+mistral", "llama+qwen", "mistral+qwen")
    assert all(0 <= cell.mean <= 100 for cell in agreement.cells)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("experiment.sources=[llama,lama]", "There is no model=lama: did you mean llama"),
        ("experiment.trained=[]", "experiment.trained needs at least one model"),
        ("experiment.tasks=[toxicity,reward]", "names one task"),
        ("experiment.tasks=[instruction]", "names one task"),
    ],
)
def test_wrong_names_are_said_in_one_sentence(override: str, sentence: str, tmp_path: Path):
    assert sentence in fac_here(*REDUCED, override, cwd=tmp_path).failure
