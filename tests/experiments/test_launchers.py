"""Jobs of a sweep by Hydra's launcher for SLURM, through its executor for one machine."""

from pathlib import Path

import pytest
from support.cli import run_fac
from support.own_data import own_files

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="not installed: pip install -e .[launchers]")


@pytest.mark.slow
def test_jobs_of_a_sweep_are_handed_to_submitit(tmp_path: Path):
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=30", "hydra.launcher.cpus_per_task=1"]
    told = [*own_files(tmp_path), "tracking.enabled=false", "workers=1", "out=results/${thresholds.default}"]
    done = run_fac("-m", *launcher, "experiment=coverage", *told, "thresholds.default=0.3max,0.5max", cwd=tmp_path)
    assert done.code == 0, done.err
    assert {path.parent.name for path in tmp_path.glob("results/*/table.json")} == {"0.3max", "0.5max"}
    assert list(tmp_path.glob("outputs/multirun/.submitit/*/*_log.out"))
