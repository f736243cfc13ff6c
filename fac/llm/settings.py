"""How the engines run that hold a model themselves; `fac.llm.openai` has its own."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from fac.errors import FacError


@dataclass(frozen=True)
class TransformersSettings:
    """How the transformers engine runs."""

    batch: int = 64

    def check(self) -> None:
        """No requirements."""


@dataclass(frozen=True)
class VllmSettings:
    """How vLLM runs. Only `max_model_len`, where replies end, changes more than the last bits of its arithmetic."""

    batch: int = 1024  # requests handed over at once: what a killed run computes again
    max_model_len: int = 8192  # tokens of prompt and reply; the model's own limit if that is less
    tensor_parallel_size: int = 1  # GPUs
    gpu_memory_utilization: float = 0.5  # share of a GPU; the rest is for features and training beside it
    cpu_cache_gib: float = 0.25  # key-value cache on a CPU

    def check(self) -> None:
        """Raise FacError if what the engine needs is not at hand."""
        if importlib.util.find_spec("vllm") is None:
            raise FacError("vLLM is not installed: run `make vllm`, or choose the engine transformers.")
