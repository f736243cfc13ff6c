"""RMS norms as one operation each: what models write out as six is a tenth of their time on a GPU."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.functional import rms_norm


@torch.inference_mode()
def fuse_norms(model: nn.Module) -> int:
    """Let torch compute x / sqrt(mean x^2 + eps) * weight wherever that is what a module gives; returns how many do.

    The sums are those of float32; in bfloat16 the result is rounded once, where the written-out form rounds twice.
    """
    fused = 0
    for module in model.modules():
        weight, eps = getattr(module, "weight", None), _epsilon(module)
        if not type(module).__name__.endswith("RMSNorm") or eps is None or weight is None or weight.dim() != 1:
            continue
        if list(inspect.signature(module.forward).parameters) != ["hidden_states"]:
            continue  # one with a gate
        forward = _Fused(weight, eps)
        x = torch.linspace(-3, 5, 4 * len(weight), device=weight.device).view(4, -1).to(weight.dtype)
        rounding = 4 * torch.finfo(weight.dtype).eps
        if torch.allclose(forward(x).float(), module(x).float(), rtol=rounding, atol=rounding):
            module.forward = forward
            fused += 1
    return fused


class _Fused:
    """A module's forward pass."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self._weight, self._eps = weight, eps

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden_states, self._weight.shape, self._weight, self._eps)


def _epsilon(module: Any) -> float | None:
    return next((getattr(module, name) for name in ("variance_epsilon", "eps") if hasattr(module, name)), None)
