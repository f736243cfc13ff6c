"""What a `fac` command has loaded when it ends: what is only shown is there at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fac

LISTED = ["methods", "metrics", "models", "tasks", "experiments", "paper", "--help", "experiment=lab --cfg job"]


def loaded_by(arguments: list[str], folder: Path) -> set[str]:
    """The libraries that a `fac` command has loaded."""
    script = "import sys; from experiments.harness.cli import main; main(); print(*sys.modules)"
    path = {**os.environ, "PYTHONPATH": str(Path(fac.__file__).parents[1])}
    command = [sys.executable, "-c", script, *arguments]
    run = subprocess.run(command, cwd=folder, env=path, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("command", LISTED)
def test_what_is_only_shown_loads_no_library_of_models(command: str, tmp_path: Path):
    assert not loaded_by(command.split(), tmp_path) & {"torch", "transformers", "scipy", "sklearn", "datasets"}


@pytest.mark.slow
def test_measuring_loads_nothing_that_only_training_needs(tmp_path: Path):
    texts = [f"how do i bake bread number {n}" for n in range(12)]
    for role, count in (("anchor", 12), ("seed", 4)):
        (tmp_path / f"{role}.txt").write_text("\n".join(texts[:count]))
    data = [f"data.{role}.path={role}.txt" for role in ("anchor", "seed")]
    found = loaded_by(["experiment=coverage", *data, "tracking.enabled=false", "workers=1"], tmp_path)
    assert "torch" in found
    assert not found & {"peft", "trl", "mlflow", "lm_eval"}
