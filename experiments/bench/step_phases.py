"""Where the time of a training step goes: its forward passes, backward passes and optimizer, as asked for and as done.

Every phase ends with a wait for the device, so phases do not overlap as they else do: together they exceed a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class Phases:
    """Seconds by phase: those until the device was told all (`asked`), and those until it had done it (`done`)."""

    def __init__(self, wait: Callable[[], float]) -> None:
        self._wait = wait  # for the device; returns the time
        self._since = 0.0
        self.on = False
        self.asked: dict[str, float] = {}
        self.done: dict[str, float] = {}

    def ends(self, name: str) -> None:
        """A phase ends here, and the next begins."""
        if not self.on:
            return
        told, done = time.perf_counter(), self._wait()
        self.asked[name] = self.asked.get(name, 0.0) + told - self._since
        self.done[name] = self.done.get(name, 0.0) + done - self._since
        self._since = done

    def begin(self) -> None:
        """From here on phases are timed."""
        self.on, self._since = True, self._wait()

    def figures(self, steps: int) -> dict[str, float]:
        """Milliseconds a step."""
        asked = {f"{name}_asked_ms": 1e3 * seconds / steps for name, seconds in self.asked.items()}
        return {f"{name}_ms": 1e3 * seconds / steps for name, seconds in self.done.items()} | asked

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the context every backward pass and every optimizer step ends a phase, and one ends before it."""
        backward = torch.Tensor.backward

        def timed(tensor: torch.Tensor, *given: Any, **named: Any) -> None:
            self.ends("data_and_forward")
            backward(tensor, *given, **named)
            self.ends("backward")

        before = register_optimizer_step_pre_hook(lambda *_: self.ends("clip"))
        after = register_optimizer_step_post_hook(lambda *_: self.ends("optimizer"))
        torch.Tensor.backward = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.Tensor.backward = backward  # type: ignore[method-assign]
            before.remove()
            after.remove()
