"""experiments.noise on the reduced lab: every row is filled, and the row without noise is that of Table 1."""

from pathlib import Path

import pytest
from support.cli import fac_here
from support.reduced import reduced

from experiments.harness.config import read_config
from experiments.harness.experiment import grid
from experiments.harness.results import Table
from experiments.noise import EXPERIMENT, SETTINGS


def test_the_row_without_noise_is_the_trial_that_other_tables_have():
    run = read_config(["experiment=table6"])
    trials = EXPERIMENT.plan(run, None).trials  # type: ignore[arg-type]
    assert set(grid(run, task="toxicity", method=("baseline", "fac"))) < set(trials)
    assert len(trials) == 6 * len(run.seeds.training)


@pytest.mark.slow
def test_noise_changes_what_is_missing_or_what_is_told_of_it(tmp_path: Path):
    command = ["experiment=noise", *reduced("toxicity", budget=8), "tracking.enabled=false", "out=out"]
    done = fac_here(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out/table.json").read_text())
    assert table.rows == ("baseline", *SETTINGS)
    found = {row: table.cell(row, "toxicity_jaccard") for row in SETTINGS}
    numbers = {row: cell.mean for row, cell in found.items() if cell}
    assert numbers.keys() == SETTINGS.keys()
    assert numbers["original"] == numbers["truncation_20"] == numbers["mismatch_20"] == 100
    assert 100 > numbers["mislabel_10"] > numbers["mislabel_20"] > 50
    assert all(table.cell(row, column) for row in table.rows for column in ("toxicity", "toxicity_rows"))
    assert all(table.cell(row, "toxicity_fac") for row in SETTINGS)
    assert (cell := table.cell("mismatch_20", "toxicity")) is not None
    assert cell.paper is not None
    assert cell.paper.mean == 58.85
    assert (original := table.cell("original", "toxicity_jaccard")) is not None
    assert original.paper is not None
    planned = fac_here(*command, "dry_run=true", cwd=tmp_path)
    assert "everything is stored" in planned.out
