"""Chats of unlike length in one forward pass without padding: laid end to end in lines as long as the longest.

Positions begin anew with every chat; from that transformers knows that no token may look into the chat before its own.
A chat's states are those that it has alone, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

PROBED = ((3, 5, 4, 7), (6, 2, 5))  # two rows of ids that any vocabulary has
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}  # parts of a layer as LLaMA's
MULTIPLE = 64  # of a line's tokens on a GPU
APART = 0.05  # of its length: further from what it is alone, a state has seen the chat before its own


@dataclass(frozen=True)
class Packed:
    """Rows of ids in one batch."""

    ids: Tensor  # [lines, width]
    positions: Tensor  # [lines, width]: from 0 in every row
    last: Tensor  # [rows]: where each row's last token stands in the flattened batch

    def laid(self, rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        """What stands beside each row's ids, such as labels, where they stand: [lines, width]."""
        found = torch.full_like(self.ids, fill)
        for row, last in zip(rows, self.last.tolist(), strict=True):
            found.view(-1)[last + 1 - len(row) : last + 1] = torch.tensor(row)
        return found

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], together: bool = True, multiple: int = 1) -> Packed:
        """`together`: several rows to a line, the longest first, each where there is still room; else one.

        Lines are as long as the longest row, made up to a multiple: a GPU prepares itself anew for every shape.
        """
        width = -(-max(map(len, rows)) // multiple) * multiple
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


def multiple_on(device: torch.device) -> int:
    """Of a line's tokens."""
    return MULTIPLE if device.type == "cuda" else 1


def prepared_attention() -> Any:
    """A context without cuDNN's attention, which makes a plan for every shape of a batch, in a second or so."""
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


class Reader:
    """Reads a model's states at the last token of rows, in as little work as it allows (`reader`).

    `together`: rows share lines. `short`: the last layer's MLP runs for last tokens only. A context manager, within
    which the model is another one.
    """

    def __init__(self, network: Any, together: bool, short: bool) -> None:
        self._network, self._together, self._short = network, together, short
        self._last = torch.empty(0)
        self._attention = prepared_attention()

    def __enter__(self) -> Reader:
        self._attention.__enter__()
        if self._short:
            _last_layer(self._network).forward = self._only_last
        return self

    def __exit__(self, *raised: Any) -> None:
        self._attention.__exit__(*raised)
        if self._short:
            del _last_layer(self._network).forward

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The backbone's output at the last token of each row: [rows, hidden], in the network's dtype."""
        packed = Packed.of(rows, self._together, multiple_on(self._network.device))
        self._last = packed.last.to(self._network.device, non_blocking=True)
        states = _states(self._network, packed)
        return states if self._short else states.flatten(0, 1)[self._last]

    def _only_last(self, hidden_states: Tensor, **given: Any) -> Tensor:
        """The last layer, of whose other tokens nobody asks anything behind its attention: [rows, hidden]."""
        layer = _last_layer(self._network)
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **given)
        kept = (hidden_states + attended).flatten(0, 1)[self._last]
        return kept + layer.mlp(layer.post_attention_layernorm(kept))


def reader(network: Any) -> Reader:
    """What of `Reader` gives this model's states as each row alone does: tried once for each architecture."""
    return Reader(network, *_allowed(network))


def keeps_apart(network: Any) -> bool:
    """Whether this model tells rows on one line apart by their positions."""
    return _allowed(network)[0]


_ALLOWED: dict[tuple[type, str], tuple[bool, bool]] = {}


def _allowed(network: Any) -> tuple[bool, bool]:
    """Whether rows may share a line, and whether the last layer may be cut short."""
    kind = (type(network), str(network.config))
    if kind not in _ALLOWED:
        was = network.training
        network.eval()
        _ALLOWED[kind] = _tried(network)
        network.train(was)
    return _ALLOWED[kind]


@torch.no_grad()
def _tried(network: Any) -> tuple[bool, bool]:
    alone = torch.cat([_states(network, Packed.of([row]))[:, -1] for row in PROBED]).float()

    def same(reader: Reader) -> bool:
        with reader:
            # the second row stands behind the first: a third, as long as both, makes the line
            found = reader([*PROBED, PROBED[0] + PROBED[1]])[: len(PROBED)].float()
        return bool(((found - alone).norm(dim=-1) <= APART * alone.norm(dim=-1)).all())

    layers = getattr(network.base_model, "layers", [nn.Module()])
    as_llama = {name for name, _ in layers[-1].named_children()} == LAYER
    return same(Reader(network, True, False)), as_llama and same(Reader(network, False, True))


def _states(network: Any, packed: Packed) -> Tensor:
    ids, positions = (held.to(network.device, non_blocking=True) for held in (packed.ids, packed.positions))
    return network.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state


def _last_layer(network: Any) -> Any:
    return network.base_model.layers[-1]
