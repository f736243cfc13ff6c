"""The lab's whole toxicity loop as a process of its own, for benches that look at a run from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.harness.results import Table
from fac.provenance import REPOSITORY


def lab_run(
    folder: Path, overrides: Sequence[str], environment: Mapping[str, str] | None = None, quiet: bool = False
) -> Table:
    """The table of `fac experiment=lab` with these settings, which keeps its store and results in `folder`.

    What stands in the store there is found again. Raises CalledProcessError if the run fails.
    """
    command = [sys.executable, "-m", "experiments.harness.cli", "experiment=lab", *overrides]
    command += [f"out={folder}/out", f"paths.outputs={folder}", "tracking.enabled=false"]
    subprocess.run(
        command,
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        env=os.environ | (environment or {}),
    )
    return Table.from_json(Path(folder, "out", "table.json").read_text())
