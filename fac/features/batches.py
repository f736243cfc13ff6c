"""Texts to batches of their tokens: windows of the corpus, sorted by length, cut by a budget of padded tokens.

A window holds so many tokens that batches of one length fill it: sorting the whole corpus would save nothing more.
While one is measured, the next is made in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fac.backbone import Backbone, on_device
from fac.chat import Encoded, Message
from fac.features.settings import FeatureSettings
from fac.features.texts import encode_all

WINDOW_TOKENS = 1 << 19  # held at a time
TOGETHER = 256  # chats that the tokenizer gets at a time

T = TypeVar("T")
Ints = NDArray[np.int64]


class Batch(NamedTuple):
    """Texts that go through the model together, and their content tokens, text by text."""

    texts: Ints  # [rows], of the corpus
    ids: list[NDArray[np.int32]]
    row: Ints  # [tokens]
    position: Ints  # [tokens], in the encoded chat

    def content(self, backbone: Backbone) -> Content:
        """The residuals of the content tokens; on a GPU it returns before they are there."""
        residual = backbone.residual(self.ids)
        longest = residual.shape[1]
        row, position, place = on_device(
            np.stack([self.row, self.position, self.row * longest + self.position]), backbone.device
        )
        return Content(residual.flatten(0, 1).index_select(0, place), row, position)


class Content(NamedTuple):
    """Residuals of content tokens [tokens, d_model], and where they stand: row of the batch, place in the chat."""

    residual: torch.Tensor
    row: torch.Tensor
    position: torch.Tensor


@dataclass(frozen=True)
class Window:
    """Consecutive texts of a corpus: text `first + i` owns tokens `starts[i]:starts[i + 1]`."""

    first: int
    starts: Ints  # [texts + 1]
    ids: NDArray[np.int32]  # [tokens]
    content: NDArray[np.bool_]  # [tokens]
    cut: int  # texts whose content goes on behind what is measured

    def lengths(self) -> NDArray[np.int32]:
        """Content tokens of each text."""
        before = np.concatenate([[0], np.cumsum(self.content, dtype=np.int32)], dtype=np.int32)
        return np.diff(before[self.starts]).astype(np.int32)

    def batches(self, budget: int, most: int | None = None) -> Iterator[Batch]:
        """The texts that have content, sorted by length: at most `budget` padded tokens and `most` texts a batch."""
        sizes = np.diff(self.starts)
        order = np.argsort(sizes, kind="stable")
        order = order[self.lengths()[order] > 0]
        for batch in token_batches(order.tolist(), sizes.tolist(), budget, most):
            yield self._batch(batch)

    def _batch(self, texts: Sequence[int]) -> Batch:
        pieces = [slice(int(self.starts[text]), int(self.starts[text + 1])) for text in texts]
        positions = [np.flatnonzero(self.content[piece]) for piece in pieces]
        row = np.repeat(np.arange(len(texts)), [len(places) for places in positions])
        ids = [self.ids[piece] for piece in pieces]
        return Batch(self.first + np.array(texts, np.int64), ids, row, np.concatenate(positions))


def windows(backbone: Backbone, chats: Iterable[Sequence[Message]], settings: FeatureSettings) -> Iterator[Window]:
    """The chats in order, in windows of about `WINDOW_TOKENS`; while one is in use, a thread makes the next.

    What stands behind the last content token of a chat is left out, where no content token sees it.
    """
    trimmed = backbone.is_causal  # found out here, as the thread must not use the device

    def encoded() -> Iterator[Window]:
        source, first = iter(chats), 0
        while some := list(islice(source, TOGETHER)):
            measured = encode_all(backbone.tokenizer, some, settings)
            cut = sum(text.cut for text in measured)
            yield window_of([text.encoded for text in measured], first, cut, trimmed)
            first += len(some)

    return ahead(_joined(encoded()))


def window_of(encoded: Sequence[Encoded], first: int = 0, cut: int = 0, trimmed: bool = False) -> Window:
    """One window of encoded chats; `trimmed`: without what stands behind their last content token."""
    ids, content, sizes = [], [], [0]
    for text in encoded:
        inside = np.array(text.content, np.bool_)
        size = int(inside.nonzero()[0][-1]) + 1 if trimmed and inside.any() else len(inside)
        ids.append(np.array(text.ids[:size], np.int32))
        content.append(inside[:size])
        sizes.append(size)
    return Window(first, np.cumsum(sizes), np.concatenate(ids), np.concatenate(content), cut)


def _joined(parts: Iterator[Window]) -> Iterator[Window]:
    """Windows of at least WINDOW_TOKENS, but for the last."""
    held: list[Window] = []
    tokens = 0
    for part in parts:
        held.append(part)
        tokens += len(part.ids)
        if tokens >= WINDOW_TOKENS:
            yield _join(held)
            held, tokens = [], 0
    if held:
        yield _join(held)


def _join(parts: Sequence[Window]) -> Window:
    sizes = np.concatenate([np.diff(part.starts) for part in parts])
    ids, content = (np.concatenate(arrays) for arrays in zip(*((p.ids, p.content) for p in parts), strict=True))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Window(parts[0].first, starts, ids, content, sum(part.cut for part in parts))


def ahead(source: Iterator[T]) -> Iterator[T]:
    """The items of `source`, each made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as thread:
        end = object()
        coming = thread.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, source, end)
            yield item  # type: ignore[misc]


def token_batches(
    order: Iterable[int], lengths: Sequence[int], budget: int, most: int | None = None
) -> Iterator[list[int]]:
    """Split `order` (sorted by length) into batches of at most `budget` padded tokens, and `most` texts, but of one."""
    batch: list[int] = []
    for index in order:
        if batch and ((len(batch) + 1) * lengths[index] > budget or len(batch) == most):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
