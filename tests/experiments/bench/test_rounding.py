"""experiments.bench.rounding: classifiers are trained again under other rounding, and only they."""

import json
from pathlib import Path

import pytest

from experiments.bench import rounding

REDUCED = [
    "tasks.toxicity.sizes="
    "{anchor: 60, safe: 40, seed: 20, human: 20, labelled: 40, validation: 20, test: 80, known: 8}",
    *"interpret.spans=2 synthesis.n=1 synthesis.m=1 tasks.toxicity.budget=12 tasks.toxicity.train.epochs=1".split(),
    *"seeds.training=[42,43] workers=1 experiment.methods=[baseline,full] experiment.protocols=[added]".split(),
]


@pytest.mark.slow
def test_the_same_seeds_under_other_rounding_score_nearly_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["rounding", "--out", str(tmp_path / "made" / "rounding.json"), *REDUCED])
    rounding.main()
    found = json.loads((tmp_path / "made" / "rounding.json").read_text())
    assert found["scores"].keys() == {"baseline/auprc_added", "full/auprc_added"}
    assert [len(scores) for scores in found["scores"].values()] == [2, 2]
    moved = [abs(change) for changes in found["changes"].values() for change in changes]
    assert found["largest"] == max(moved) < 1  # two steps of training amplify nothing
    assert found["changed_to"]["ATEN_CPU_CAPABILITY"] == "avx2"
    assert found["run"] == REDUCED
    assert "4 scores under avx2: at most" in capsys.readouterr().out
