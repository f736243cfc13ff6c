"""The loop that trains models with a head: order of the data, optimizer, schedule, checkpoints.

An optimizer step is the mean loss of one effective batch, in as few forward passes as memory allows. Order, optimizer
(AdamW, fused), decay, schedule and clipping are those of transformers' Trainer: in float64 its losses, to rounding.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import set_seed
from transformers.optimization import get_scheduler
from transformers.trainer_pt_utils import get_length_grouped_indices

from fac.jsonl import write_json_atomic
from fac.train import checkpoints

Progress = Callable[[int, int], None]  # (optimizer steps done, steps in all)
CLIP = 1.0  # largest norm of a gradient
STATE = "state.pt"  # in a checkpoint
SHOWN_AFTER = 60.0  # seconds: shorter trainings show no progress bar


class Schedule(Protocol):
    """What the loop reads of a training's settings."""

    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def gradient_accumulation(self) -> int: ...
    @property
    def schedule(self) -> str: ...
    @property
    def warmup(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


@dataclass(frozen=True)
class TrainLog:
    """What happened in one training run."""

    losses: list[float]  # mean loss of each optimizer step, in nats
    steps: int
    seconds: float  # wall time of the optimisation, without loading and saving, since it last went on


def optimise(
    trained: Sequence[nn.Parameter],
    losses: Callable[[list[int]], Iterable[Tensor]],
    lengths: Sequence[int],
    settings: Schedule,
    seed: int,
    progress: Progress | None = None,
    folder: Path | None = None,
    grouped: bool = False,
) -> TrainLog:
    """Train the parameters in place.

    `losses` gives, for the items of one effective batch, the summands of its mean loss, one for each forward pass;
    `lengths` [items] are their tokens, by which `grouped` puts items of like length into a batch. A long training that
    was stopped goes on from the checkpoint that it left in `folder`.
    """
    set_seed(seed)
    run = _Run(trained, settings, seed, lengths, grouped)
    kept = None if folder is None else folder / checkpoints.FOLDER
    if kept is not None and (found := checkpoints.last_checkpoint(kept)) is not None:
        run.load(found)
    start = saved = time.monotonic()
    with tqdm(desc="training", unit="step", initial=run.step, total=run.steps, delay=SHOWN_AFTER, leave=False) as bar:
        for batch in run.batches():
            run.losses.append(_step(run, losses(batch)))
            bar.update()
            if progress is not None:
                progress(run.step, run.steps)
            if kept is not None and run.step < run.steps and time.monotonic() - saved >= checkpoints.SECONDS:
                run.save(kept)
                saved = time.monotonic()
    return TrainLog([float(loss) for loss in run.losses], run.step, time.monotonic() - start)


def _step(run: _Run, losses: Iterable[Tensor]) -> Tensor:
    """One optimizer step; its loss stays on the device, so that nothing waits for it."""
    total: Tensor | float = 0.0
    for loss in losses:
        loss.backward()
        total = total + loss.detach()
    nn.utils.clip_grad_norm_(run.trained, CLIP)
    run.optimizer.step()
    run.scheduler.step()
    run.optimizer.zero_grad()
    run.step += 1
    return torch.as_tensor(total)


class _Run:
    """A training under way: all that a checkpoint holds."""

    def __init__(
        self, trained: Sequence[nn.Parameter], how: Schedule, seed: int, lengths: Sequence[int], grouped: bool
    ) -> None:
        self.trained, self.seed, self.lengths, self.grouped = list(trained), seed, lengths, grouped
        self.batch, self.epochs = how.batch_size * how.gradient_accumulation, how.epochs
        self.in_epoch = math.ceil(len(lengths) / self.batch)
        self.steps = self.in_epoch * self.epochs
        self.step = 0
        self.losses: list[Any] = []
        self._drawn = torch.get_rng_state()  # when the order of the epoch was drawn
        groups = [
            {"params": [held for held in self.trained if (held.dim() < 2) is flat], "weight_decay": decay}
            for flat, decay in ((False, how.weight_decay), (True, 0.0))  # norms and biases do not decay
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, how.learning_rate, fused=True)
        warm = math.ceil(self.steps * how.warmup)
        self.scheduler = get_scheduler(how.schedule, self.optimizer, warm, self.steps)

    def batches(self) -> Iterable[list[int]]:
        """The items of each step that is still to be done."""
        while self.step < self.steps:
            epoch, done = divmod(self.step, self.in_epoch)
            now = torch.get_rng_state()
            if done:  # of an epoch that a checkpoint is in the middle of
                torch.set_rng_state(self._drawn)
            self._drawn = torch.get_rng_state()
            order = self._order(epoch)
            if done:
                torch.set_rng_state(now)
            for first in range(done * self.batch, len(order), self.batch):
                yield order[first : first + self.batch]

    def _order(self, epoch: int) -> list[int]:
        """Of the items in one epoch, as the Trainer's loader draws it."""
        torch.empty((), dtype=torch.int64).random_()  # the loader's own seed
        if self.grouped:
            return get_length_grouped_indices(self.lengths, self.batch)
        drawn = torch.Generator().manual_seed(self.seed + epoch)
        return torch.randperm(len(self.lengths), generator=drawn).tolist()

    def save(self, folder: Path) -> None:
        """Write a checkpoint to `folder`, whole or not at all, and drop the one before."""
        place = folder / f"checkpoint-{self.step}"
        place.mkdir(parents=True, exist_ok=True)
        state = {
            "trained": [held.detach() for held in self.trained],
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "losses": [float(loss) for loss in self.losses],
            "drawn": self._drawn,
            "rng": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        torch.save(state, place / STATE)
        write_json_atomic(place / checkpoints.STATE, {"global_step": self.step})  # last: only now is it whole
        for older in folder.glob("checkpoint-*"):
            if older != place:
                shutil.rmtree(older, ignore_errors=True)

    def load(self, place: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(place / STATE, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for held, kept in zip(self.trained, state["trained"], strict=True):
                held.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.losses, self._drawn = state["losses"], state["drawn"]
        self.step = len(self.losses)
        torch.set_rng_state(state["rng"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
