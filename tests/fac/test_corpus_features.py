"""What was measured is read without a model."""

from __future__ import annotations

import subprocess
import sys

from fac.provenance import REPOSITORY


def test_reading_what_was_measured_mined_and_written_loads_no_library_of_models() -> None:
    script = "import sys, fac.gap, fac.synthesis.generate; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {"torch", "transformers", "sklearn", "hydra"}
