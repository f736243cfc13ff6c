"""Seconds and memory of work on a device."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

Figures = dict[str, float]


@dataclass(frozen=True)
class Clock:
    """Times work on one device, once it has done all that was asked of it."""

    device: torch.device

    def now(self) -> float:
        """Seconds, after the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def watched(self, figures: Figures, name: str) -> Iterator[None]:
        """Adds the seconds of the body and the most GPU memory that it held."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = self.now()
        yield
        figures[f"{name}_s"] = self.now() - start
        if self.device.type == "cuda":
            figures[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30

    def median(self, work: Callable[[], object], repeats: int = 10) -> float:
        """Median seconds of `work`, warmed up."""
        for _ in range(3):
            work()
        seconds = []
        for _ in range(repeats):
            start = self.now()
            work()
            seconds.append(self.now() - start)
        return statistics.median(seconds)


def peak_mib() -> float:
    """The most resident memory that this process has held.

    Of the kernel's own count: getrusage's starts at what the process had before it became this program.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure_peak(clock: Clock, side: int) -> Figures:
    """Rates that nothing exceeds: products of matrices of random numbers, and a copy (bytes read and written)."""
    figures = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(side, side, device=clock.device, dtype=dtype) for _ in range(2))
        figures[f"{name}_tflops"] = 2 * side**3 / clock.median(lambda a=a, b=b: a @ b) / 1e12
    source = torch.randn(16 * side * side, device=clock.device)
    target = torch.empty_like(source)
    figures["copy_gb_per_s"] = 2 * source.nbytes / clock.median(lambda: target.copy_(source)) / 1e9
    return figures
