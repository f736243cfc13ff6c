"""What trl's and transformers' Trainer are told here, and how they run: quiet, on one GPU, with checkpoints."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from fac.train import checkpoints
from fac.train.loop import Progress, TrainLog
from fac.train.settings import uses_bf16


@contextmanager
def training_arguments(settings: Any, seed: int, folder: Path | None) -> Iterator[dict[str, Any]]:
    """What a Trainer is told of a training's settings: nothing is printed or reported.

    Checkpoints of a long training go to `folder` (None: to a scratch folder that goes with the context).
    """
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as scratch:
        yield {
            "output_dir": scratch if folder is None else str(folder / checkpoints.FOLDER),
            "num_train_epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": settings.schedule,
            "warmup_steps": settings.warmup,
            "weight_decay": settings.weight_decay,
            "per_device_train_batch_size": settings.batch_size,
            "gradient_accumulation_steps": settings.gradient_accumulation,
            "bf16": uses_bf16(settings),
            "use_cpu": not on_gpu,
            "gradient_checkpointing": settings.gradient_checkpointing,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "seed": seed,
            "logging_steps": 1,
            "save_strategy": "no",  # but see `run`
            "save_total_limit": 1,
            "report_to": [],
            "disable_tqdm": True,
            "dataloader_pin_memory": on_gpu,
        }


def on_one_gpu(arguments: Any) -> Any:
    """The same TrainingArguments: DataParallel over all visible GPUs would multiply the batch size."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def run(trainer: Trainer, progress: Progress | None) -> TrainLog:
    """Train, from the checkpoint in its `output_dir` if there is one, and leave the model in evaluation mode."""
    trainer.remove_callback(PrinterCallback)
    if progress:
        trainer.add_callback(_Report(progress))
    trainer.add_callback(_EveryFewMinutes())
    checkpoint = checkpoints.last_checkpoint(Path(str(trainer.args.output_dir)))
    trainer.floating_point_ops = lambda inputs: 0  # counts all parameters anew for every batch
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.perf_counter() - start
    model: Any = trainer.model
    model.eval()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return TrainLog(losses, trainer.state.global_step, seconds)


class _Report(TrainerCallback):
    """Hands the Trainer's progress on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)


class _EveryFewMinutes(TrainerCallback):
    """Asks for a checkpoint."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if time.monotonic() - self._last >= checkpoints.SECONDS and state.global_step < state.max_steps:
            control.should_save = True
            self._last = time.monotonic()
