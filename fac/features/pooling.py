"""Maximum of each feature over the content tokens of each text of a batch, without a [texts, width] array on the host.

A maximum and its position are one integer: the bits of the value, which for values above 0 are ordered as the values
are, before the position, counted down so that the earliest of equal maxima wins. So one integer maximum takes both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from fac.features.batches import Content
from fac.sae.load import Sae

_LOW = (1 << 32) - 1


def packed(values: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Integers that are ordered by value, then by smaller `below` (from 0, under 2^32); 0 for values that are not > 0.

    `values` is float32, `below` of integers and of a shape that fits; the result is int64.
    """
    bits = values.contiguous().view(torch.int32).long() << 32
    return torch.where(values > 0, bits | (_LOW - below), 0)


def unpacked(pack: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(values float32, below int64) that were packed; the second means nothing where the value is 0."""
    return (pack >> 32).int().view(torch.float32), _LOW - (pack & _LOW)


class Entries(NamedTuple):
    """What is above 0 of a batch, by row and in it by feature."""

    row: torch.Tensor  # [entries]
    feature: torch.Tensor  # [entries]
    pack: torch.Tensor  # [entries], value and position


def pooled(sae: Sae, content: Content, rows: int, elements: int) -> torch.Tensor:
    """Value and position of the maxima, packed: int64 [rows, width]. At most `elements` activations are held."""
    best = torch.zeros(rows, sae.width, dtype=torch.int64, device=content.residual.device)
    step = max(elements // sae.width, 1)
    for start in range(0, len(content.residual), step):
        part = Content(*(held[start : start + step] for held in content))
        kept = sae.strongest(part.residual)
        if kept is None:
            _pool_dense(best, sae.activations(part.residual), part)
        else:
            values, features = kept
            place = part.row[:, None] * sae.width + features
            pack = packed(values, part.position[:, None])
            best.view(-1).scatter_reduce_(0, place.flatten(), pack.flatten(), "amax")
    return best


def _pool_dense(best: torch.Tensor, activations: torch.Tensor, part: Content) -> None:
    """Pool activations [tokens, width] of consecutive rows."""
    rows, counts = (held.tolist() for held in part.row.unique_consecutive(return_counts=True))
    for row, held, position in zip(rows, activations.split(counts), part.position.split(counts), strict=True):
        maxima, token = held.max(dim=0)
        best[row] = torch.maximum(best[row], packed(maxima, position[token]))


def entries(best: torch.Tensor) -> Entries:
    """What is above 0. On a GPU it waits for the batch."""
    row, feature = best.nonzero(as_tuple=True)
    return Entries(row, feature, best[row, feature])
