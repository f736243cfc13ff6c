"""experiments.sae_sweep: which SAEs are trained, which stand beside the paper's, and the reduced lab."""

from pathlib import Path

import pytest
from support.cli import fac_here
from support.reduced import reduced

from experiments.harness.config import read_config
from experiments.harness.results import Table
from experiments.sae_sweep import settings_of


def test_one_of_width_k_and_layer_is_changed_at_a_time():
    run = read_config(["experiment=table7"])
    assert list(settings_of(run)) == [
        "2048_k8", "1024_k8", "4096_k8", "2048_k4", "2048_k16", "2048_k8_layer1", "2048_k8_layer3",
    ]  # fmt: skip
    paper = settings_of(read_config(["experiment=figure8", "scale=paper"]))
    assert list(paper)[:5] == ["65536_k20", "16384_k20", "131072_k20", "65536_k10", "65536_k40"]
    some = settings_of(read_config(["experiment=sae_sweep", "experiment.swept=[ks]", "experiment.ks=[2]"]))
    assert list(some) == ["2048_k8", "2048_k2"]


@pytest.mark.slow
def test_every_sae_is_trained_measured_and_written_by(tmp_path: Path):
    small = ["sae.train.steps=400", "sae.train.width=512", "experiment.swept=[widths,layers]"]
    sizes = ["experiment.widths=[256]", "experiment.layers=[1]"]
    command = ["experiment=sae_sweep", *small, *sizes, *reduced("toxicity"), "tracking.enabled=false", "out=out"]
    done = fac_here(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out/table.json").read_text())
    rows = ("512_k8", "256_k8", "512_k8_layer1")
    assert table.rows == ("baseline", *rows)
    for column in ("toxicity", "toxicity_l0", "toxicity_l2", "toxicity_rows"):
        assert all(table.cell(row, column) for row in rows), column
    errors = {cell.mean for row in rows if (cell := table.cell(row, "toxicity_l2"))}
    assert len(errors) == 3
    assert all(cell.paper is None for cell in table.cells)  # other sizes than the lab's own
    assert "Fig. 8" in (tmp_path / "out/report.html").read_text()
