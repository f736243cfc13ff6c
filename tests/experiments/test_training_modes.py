"""experiments.training_modes: what each mode changes, and the reduced lab in all four."""

import math
from pathlib import Path

import pytest
from support.cli import fac_here
from support.reduced import reduced

from experiments.harness.config import read_config
from experiments.harness.results import Table
from experiments.training_modes import EXPERIMENT, row_of


def test_lora_is_the_trial_of_other_tables_and_every_mode_has_its_own_training():
    run = read_config(["experiment=figure12", "seeds.training=[42]"])
    trials = {row_of(trial): trial for trial in EXPERIMENT.plan(run, None).trials}  # type: ignore[arg-type]
    assert list(trials) == ["head", "lora", "partial", "full"]
    assert trials["lora"].settings == ()
    for mode in ("head", "partial", "full"):
        assert run.with_(dict(trials[mode].settings)).tasks["toxicity"].train.mode == mode


@pytest.mark.slow
def test_more_of_the_model_is_trained_from_row_to_row(tmp_path: Path):
    command = ["experiment=training_modes", *reduced("toxicity"), "tracking.enabled=false", "out=out"]
    done = fac_here(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out/table.json").read_text())
    counts = [cell.mean for row in table.rows if (cell := table.cell(row, "toxicity_parameters"))]
    assert len(counts) == 4
    assert counts == sorted(counts)
    assert (score := table.cell("full", "toxicity")) is not None
    assert (pes := table.cell("full", "toxicity_pes")) is not None
    assert pes.mean == pytest.approx(score.mean / math.log10(counts[-1]), abs=1e-4)
