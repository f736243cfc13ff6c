"""Long trainings survive a kill: what the Trainer needs to go on is kept beside what it is making, every few minutes.

A training that was stopped and goes on ends with the weights of one that was not: on a CPU to the bit, since order,
dropout, optimizer and schedule go on where they were.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

FOLDER = "checkpoints"  # in the folder of what is trained; gone when it is finished
SECONDS = 300.0  # between two checkpoints: shorter trainings write none
_STATE = "trainer_state.json"  # what the Trainer writes last


def keep_checkpoints(trainer: Trainer) -> str | None:
    """Let `trainer` write checkpoints to its `output_dir`; returns the one to go on from, if there is one."""
    trainer.add_callback(_EveryFewMinutes())
    found = last_checkpoint(Path(str(trainer.args.output_dir)))
    return None if found is None else str(found)


def last_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint in `folder`; one that a kill cut short has no readable state."""
    whole = {step: path for path in folder.glob("checkpoint-*") if (step := _step_of(path)) is not None}
    return whole[max(whole)] if whole else None


def remove_checkpoints(folder: Path) -> None:
    """To be called when what was trained is whole in `folder`."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _step_of(checkpoint: Path) -> int | None:
    try:
        return int(json.loads((checkpoint / _STATE).read_text())["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _EveryFewMinutes(TrainerCallback):
    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if time.monotonic() - self._last >= SECONDS and state.global_step < state.max_steps:
            control.should_save = True
            self._last = time.monotonic()
