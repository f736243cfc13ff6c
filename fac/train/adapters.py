"""LoRA layers with their arithmetic in one piece: y = x W + s (x A) B, as peft's, in fewer passes over memory.

peft keeps, names and saves the adapters; here is only how a linear layer that has one computes while it is trained.
What it adds goes right into the product of the frozen weights, and nothing is widened to float32 on the way. Values are
peft's to rounding, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn


class _Adapted(torch.autograd.Function):
    """The frozen product and the adapter's; no gradient for frozen weights."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, dropped: Tensor | None, weight: Tensor, bias: Tensor | None,
        down: Tensor, up: Tensor, scale: float,
    ) -> Tensor:  # fmt: skip
        """`x` [..., in] with `dropped` after dropout (None: without), `down` [rank, in], `up` [out, rank]."""
        entered = (x if dropped is None else dropped).reshape(-1, x.shape[-1])
        out = nn.functional.linear(x.reshape(-1, x.shape[-1]), weight, bias)
        hidden = entered @ down.T
        out.addmm_(hidden, up.T, alpha=scale)
        ctx.save_for_backward(entered, hidden, weight, down, up)
        ctx.scale, ctx.shape, ctx.drops = scale, x.shape, dropped is not None
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        entered, hidden, weight, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        of_hidden = (grad @ up) * ctx.scale
        of_up = (grad.T @ hidden) * ctx.scale
        of_down = of_hidden.T @ entered
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = grad @ weight
            if not ctx.drops:
                of_x.addmm_(of_hidden, down)
            of_x = of_x.view(ctx.shape)
        if ctx.needs_input_grad[1]:
            of_dropped = (of_hidden @ down).view(ctx.shape)
        return of_x, of_dropped, None, None, of_down, of_up, None


@contextmanager
def in_one_piece(model: nn.Module) -> Iterator[None]:
    """Within the context, peft's plain LoRA layers in `model` compute so; other kinds as peft does."""
    plain = [module for module in model.modules() if _is_plain(module)]
    for module in plain:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in plain:
            del module.forward


def _is_plain(module: Any) -> bool:
    """One adapter of vanilla LoRA, trained, on a linear layer as torch has it."""
    return (
        type(module) is Linear
        and type(module.base_layer) is nn.Linear
        and len(module.active_adapters) == 1
        and module.active_adapters[0] in module.lora_A
        and not (module.merged or module.disable_adapters or module.fan_in_fan_out or module.lora_variant)
        and not any(held.bias is not None for held in module.lora_B.values())
    )


def _forward(module: Any, x: Tensor) -> Tensor:
    (name,) = module.active_adapters
    base, dropout = module.base_layer, module.lora_dropout[name]
    if x.dtype != base.weight.dtype:  # autocast will have to do something about it
        return Linear.forward(module, x)
    dropped = dropout(x) if module.training and isinstance(dropout, nn.Dropout) else None
    down, up = (held[name].weight.to(x.dtype) for held in (module.lora_A, module.lora_B))
    return _Adapted.apply(x, dropped, base.weight, base.bias, down, up, module.scaling[name])
