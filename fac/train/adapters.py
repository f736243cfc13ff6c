"""LoRA layers with their arithmetic in one piece: y = x W + s (x A) B, as peft's, in fewer passes over memory.

peft keeps, names and saves the adapters; here is only how a linear layer that has one computes. While it is trained,
what it adds goes right into the product of the frozen weights, and nothing is widened to float32 on the way; while it
answers, it is one product with W + s A B. Values are peft's to rounding, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn


class _Adapted(torch.autograd.Function):
    """The frozen product and the adapter's; no gradient for frozen weights. Of a dropout only the mask is kept."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float, dropout: float
    ) -> Tensor:
        """`x` [..., in], `weight` [out, in], `down` [rank, in], `up` [out, rank]."""
        flat = x.reshape(-1, x.shape[-1])
        out = nn.functional.linear(flat, weight, bias)
        entered, mask = torch.native_dropout(flat, dropout, True) if dropout else (flat, None)
        hidden = entered @ down.T
        out.addmm_(hidden, up.T, alpha=scale)
        ctx.save_for_backward(flat, mask, hidden, weight, down, up)
        ctx.scale, ctx.kept, ctx.shape = scale, 1 / (1 - dropout), x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        entered, mask, hidden, weight, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        if mask is not None:
            entered = torch.ops.aten.native_dropout_backward(entered, mask, ctx.kept)
        of_hidden = (grad @ up).mul_(ctx.scale)
        of_up, of_down, of_x = (grad.T @ hidden).mul_(ctx.scale), of_hidden.T @ entered, None
        if ctx.needs_input_grad[0]:
            of_x = grad @ weight
            if mask is None:
                of_x.addmm_(of_hidden, down)
            else:
                of_x.add_(torch.ops.aten.native_dropout_backward(of_hidden @ down, mask, ctx.kept))
            of_x = of_x.view(ctx.shape)
        return of_x, None, None, of_down, of_up, None, None


@contextmanager
def in_one_piece(model: nn.Module) -> Iterator[None]:
    """Within the context, peft's plain LoRA layers in `model` compute so; other kinds as peft does."""
    with _forwards({module: partial(_forward, module) for module in _plain(model)}):
        yield


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within the context, peft's plain LoRA layers in `model` answer by one product; no weight of the model is changed.

    Layers in bfloat16, whose sum with an adapter would lose most of it, answer in two.
    """
    whole = {module: _merged(module) for module in _plain(model)}
    with _forwards(whole):
        yield


@contextmanager
def _forwards(forwards: Mapping[Any, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward


def _merged(module: Any) -> Callable[[Tensor], Tensor]:
    (name,), base = module.active_adapters, module.base_layer
    if base.weight.dtype not in (torch.float32, torch.float64):
        return partial(_forward, module)
    down, up = (held[name].weight.detach() for held in (module.lora_A, module.lora_B))
    return partial(nn.functional.linear, weight=base.weight + module.scaling[name] * (up @ down), bias=base.bias)


def _plain(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if _is_plain(module)]


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
    dropped = dropout.p if module.training and isinstance(dropout, nn.Dropout) else 0.0
    down, up = (held[name].weight.to(x.dtype) for held in (module.lora_A, module.lora_B))
    return _Adapted.apply(x, base.weight, base.bias, down, up, module.scaling[name], dropped)
