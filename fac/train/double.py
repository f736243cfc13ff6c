"""A network in float64: so that a training comes back on another machine.

With a high learning rate the training of a tiny model is chaotic: what two CPUs round differently grows by a factor of
1.5 at every step, and after forty steps a training in float32 is another training (the same seed moves an AUPRC by two
to nine points). In float64 the first difference is 1e-16 instead of 1e-7, and a training of some seventy steps ends
before it can be seen. It costs a few per cent more time for models of a million parameters; for large ones it is no
choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Rotary(nn.Module):
    """cos and sin of rotary positions, [batch, tokens, head] each; transformers' own computes in float32."""

    def __init__(self, config: Any, scaling: float) -> None:
        super().__init__()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        self.frequencies: Tensor
        self.register_buffer("frequencies", config.rope_parameters["rope_theta"] ** -exponents, persistent=False)
        self._scaling = scaling

    def forward(self, _states: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[:, :, None].double() * self.frequencies
        both = torch.cat((angles, angles), dim=-1)
        return both.cos() * self._scaling, both.sin() * self._scaling


class _Norm(nn.Module):
    """An RMS norm in the dtype of its input: transformers' own computes in float32, torch's in twice the passes."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, states: Tensor) -> Tensor:
        return _Normed.apply(states, self.weight, self.eps)


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        """`states` [..., width], `weight` [width]."""
        norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
        scale = (norm.square_() / states.shape[-1]).add_(eps).rsqrt_()
        unit = states * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        unit, scale, weight = ctx.saved_tensors
        of_weight = (grad * unit).flatten(0, -2).sum(dim=0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None
        grad = grad * weight
        along = torch.linalg.vecdot(grad, unit).unsqueeze_(-1) / unit.shape[-1]
        return grad.addcmul_(unit, along, value=-1).mul_(scale), of_weight, None


def in_double(network: Any) -> Any:
    """`network`, a transformers model with RMS norms, in float64 throughout; changed in place and returned.

    Its norms and rotary positions are replaced by equal ones, since transformers computes both in float32. Rotary
    positions that are scaled in another way than by default stay as they are.
    """
    for name, norm in _norms(network.double()):
        network.set_submodule(name, _Norm(norm.weight, norm.variance_epsilon))
    rotary = getattr(network.base_model, "rotary_emb", None)
    if rotary is not None and getattr(rotary, "rope_type", None) == "default":
        network.base_model.rotary_emb = _Rotary(rotary.config, rotary.attention_scaling)
    return network


def norms_of_torch(network: nn.Module) -> None:
    """Put torch's RMS norms in the place of transformers': one pass over memory for six. Equal but for rounding."""
    for name, held in _norms(network):
        norm = nn.RMSNorm(held.weight.shape, eps=held.variance_epsilon, dtype=held.weight.dtype)
        norm.weight = held.weight
        network.set_submodule(name, norm)


def _norms(network: nn.Module) -> list[tuple[str, Any]]:
    """The RMS norms that multiply by their weight, as LLaMA's do."""
    return [
        (name, module)
        for name, module in network.named_modules()
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
    ]


def at_least_float32(values: Tensor) -> Tensor:
    """float64 as it is, anything else as float32."""
    return values if values.dtype == torch.float64 else values.float()
