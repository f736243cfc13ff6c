"""Long trainings survive a kill: what they need to go on is kept beside what they are making, every few minutes.

A training that was stopped and goes on ends with the weights of one that was not: on a CPU to the bit, since order,
dropout, optimizer and schedule go on where they were.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

FOLDER = "checkpoints"  # in the folder of what is trained; gone when it is finished
SECONDS = 300.0  # between two checkpoints: shorter trainings write none
STATE = "trainer_state.json"  # what is written last


def last_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint in `folder`; one that a kill cut short has no readable state."""
    whole = {step: path for path in folder.glob("checkpoint-*") if (step := _step_of(path)) is not None}
    return whole[max(whole)] if whole else None


def remove_checkpoints(folder: Path) -> None:
    """To be called when what was trained is whole in `folder`."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _step_of(checkpoint: Path) -> int | None:
    try:
        return int(json.loads((checkpoint / STATE).read_text())["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
