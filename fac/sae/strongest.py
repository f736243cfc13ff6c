"""What a Top-K SAE keeps at each token, without the [tokens, width] matrix that holds it among zeros.

    pre = (x - b_dec) W_enc + b_enc;   kept are the K largest of a token, those above 0

The product is one of bfloat16 that is summed and given out in float32, where residual and device allow that, otherwise
one of float32. Top-K is exact and reads the wide matrix once: the K blocks with the largest maxima hold the K largest
entries, since each of these is the maximum of its block or lies below K - 1 others at most.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from fac.sae.settings import Product

_LARGEST = {"cpu": 64, "cuda": 256}  # entries of a block: what was fastest on a Xeon and on an H100
_SMALLEST = 16  # with smaller blocks nothing is gained


class Preactivations:
    """The product of residuals with the encoder of a Top-K SAE, in float32; weights are converted once.

    "auto": bfloat16 for residuals in bfloat16 where the device sums and gives out float32, so that nothing is rounded
    but what comes in and the weights; otherwise float32. "bfloat16" also where the device gives out bfloat16.
    """

    def __init__(self, module: Any, product: Product = "auto") -> None:
        self._module, self._product = module, product
        self._held: dict[torch.dtype, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, residual: torch.Tensor) -> torch.Tensor:
        """[tokens, d_in] to [tokens, width], float32."""
        dtype = self._dtype(residual)
        weight, bias = self._weights(dtype)
        centred = self._module.process_sae_in(residual.to(self._module.W_enc.dtype)).to(dtype)
        if dtype == torch.float32:
            return torch.addmm(bias, centred, weight)
        if sums_in_float32(residual.device):
            return torch.mm(centred, weight, out_dtype=torch.float32).add_(bias)
        return (centred @ weight).float().add_(bias)

    def _dtype(self, residual: torch.Tensor) -> torch.dtype:
        if self._product == "auto":
            half = residual.dtype == torch.bfloat16 and sums_in_float32(residual.device)
            return torch.bfloat16 if half else torch.float32
        return torch.bfloat16 if self._product == "bfloat16" else torch.float32

    def _weights(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [d_in, width] in `dtype`, bias [width] in float32, with the decoder's norms if they are to count."""
        if dtype not in self._held:
            module = self._module
            weight, bias = module.W_enc.detach().float(), module.b_enc.detach().float()
            if module.cfg.rescale_acts_by_decoder_norm:
                norm = module.W_dec.detach().float().norm(dim=-1)
                weight, bias = weight * norm, bias * norm
            self._held[dtype] = weight.to(dtype), bias
        return self._held[dtype]


@cache
def sums_in_float32(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 into one of float32."""
    one = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
    try:
        return torch.mm(one, one, out_dtype=torch.float32).dtype == torch.float32
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False


def strongest(pre: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The K largest entries of each row of [tokens, width] and their columns: both [tokens, k], in no order.

    Among entries equal to the K-th largest it is open which are taken, as with `torch.topk`; the values are the same.
    """
    tokens, width = pre.shape
    size = block_size(width, k, _LARGEST.get(pre.device.type, 256))
    if size is None:
        kept = pre.topk(k, dim=-1, sorted=False)
        return kept.values, kept.indices
    blocks = pre.view(tokens, width // size, size)
    holding = blocks.amax(dim=-1).topk(k, dim=-1, sorted=False).indices  # [tokens, k]
    inside = blocks.gather(1, holding[:, :, None].expand(-1, -1, size)).flatten(1)
    values, place = inside.topk(k, dim=-1, sorted=False)
    return values, holding.gather(1, place // size) * size + place % size


def block_size(width: int, k: int, largest: int) -> int | None:
    """Entries of a block: the largest power of two of which K blocks are a quarter of the width; None: no blocks."""
    size = largest
    while size >= _SMALLEST and (width % size or 4 * k * size > width):
        size //= 2
    return size if size >= _SMALLEST else None
