"""Chats of unlike length in one forward pass without padding: laid end to end in rows as long as the longest.

Positions begin anew with every chat; from that transformers knows that no token may look into the chat before its own.
A chat's states are those that it has alone, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PROBED = ((3, 5, 4, 7), (6, 2, 5))  # two rows of ids that any vocabulary has
APART = 0.05  # of its length: further from what it is alone, a state has seen the chat before its own


@dataclass(frozen=True)
class Packed:
    """Rows of ids in one batch."""

    ids: Tensor  # [lines, longest]
    positions: Tensor  # [lines, longest]: from 0 in every row
    last: Tensor  # [rows]: where each row's last token stands in the flattened batch

    def laid(self, rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        """What stands beside each row's ids, such as labels, where they stand: [lines, longest]."""
        found = torch.full_like(self.ids, fill)
        for row, last in zip(rows, self.last.tolist(), strict=True):
            found.view(-1)[last + 1 - len(row) : last + 1] = torch.tensor(row)
        return found

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], together: bool = True) -> Packed:
        """`together`: several rows to a line, the longest first, each where there is still room; else one."""
        width = max(map(len, rows))
        lines = _lines([len(row) for row in rows], width) if together else [[row] for row in range(len(rows))]
        ids, positions = torch.zeros(2, len(lines), width, dtype=torch.long)
        last = [0] * len(rows)
        for line, held in enumerate(lines):
            start = 0
            for row in held:
                end = start + len(rows[row])
                ids[line, start:end] = torch.tensor(rows[row])
                positions[line, start:end] = torch.arange(end - start)
                last[row], start = line * width + end - 1, end
            positions[line, start:] = torch.arange(width - start)
        return cls(ids, positions, torch.tensor(last))


def _lines(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Which rows share a line: first fit, the longest first."""
    lines: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        line = next((line for line, free in enumerate(room) if free >= lengths[row]), len(room))
        if line == len(room):
            lines.append([])
            room.append(width)
        lines[line].append(row)
        room[line] -= lengths[row]
    return lines


def parts(order: Sequence[int], lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """`order` cut into parts of at most so many tokens together, or of one item that is longer."""
    part: list[int] = []
    held = 0
    for item in order:
        if part and held + lengths[item] > tokens:
            yield part
            part, held = [], 0
        part.append(item)
        held += lengths[item]
    if part:
        yield part


def at_once(batch: int, longest: int, tokens: int) -> int:
    """The most rows of one forward pass, as a divisor of the batch, of which none can have more tokens; at least 1."""
    return max(
        count for count in range(1, batch + 1) if batch % count == 0 and (count == 1 or count * longest <= tokens)
    )


def states_at_last(network: Any, rows: Sequence[Sequence[int]], together: bool) -> Tensor:
    """The backbone's output at the last token of each row: [rows, hidden], in the network's dtype."""
    packed, device = Packed.of(rows, together), network.device
    states = network.base_model(
        input_ids=packed.ids.to(device, non_blocking=True),
        position_ids=packed.positions.to(device, non_blocking=True),
        use_cache=False,
    ).last_hidden_state
    return states.flatten(0, 1)[packed.last.to(device, non_blocking=True)]


@torch.no_grad()
def keeps_apart(network: Any) -> bool:
    """Whether this model tells rows on one line apart by their positions: tried, since not every architecture does."""
    was = network.training
    network.eval()
    alone = torch.cat([states_at_last(network, [row], True) for row in PROBED]).float()
    # the second row stands behind the first: a third, as long as both, makes the line
    beside = states_at_last(network, [*PROBED, PROBED[0] + PROBED[1]], True)[: len(PROBED)].float()
    network.train(was)
    return bool(((beside - alone).norm(dim=-1) <= APART * alone.norm(dim=-1)).all())
