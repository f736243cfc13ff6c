"""What every test may rely on: one thread, no network, and real data where it lies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

for variable, value in {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():  # before anything heavy is imported
    os.environ.setdefault(variable, value)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("fac", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("fac")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs behind them; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """`real_data("toxicchat")` is the folder of a real data set; the test is skipped where it is not at hand."""
    root = Path(os.environ.get("FAC_DATA", REPO.parent / "shared" / "data"))

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no real data set {name!r} under {root}: set FAC_DATA to the folder that holds it")
        return root / name

    return folder
