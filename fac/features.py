"""Texts to features: one streaming pass gives g_i(x) for every text and feature, and each feature's top spans.

Texts are batched by a token budget and pooled over their content tokens (paper §5.1, App. D eq. 30). One window of
texts is held at a time, so memory does not depend on the length of the corpus. Thresholds and coverage (`fac.coverage`)
read the pooled values, so one pass serves every threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from fac.backbone import Backbone
from fac.chat import Encoded, Message, encode
from fac.corpus_features import LENGTHS
from fac.pooled import PooledWriter
from fac.sae import Sae, finite

_WINDOW = 2048  # texts sorted by length together, at most
_WINDOW_ELEMENTS = 1 << 24  # texts x width of pooled values held at a time


@dataclass(frozen=True)
class FeatureSettings:
    """How texts are measured. `batch_tokens` and `encode_elements` do not change results."""

    max_tokens: int = 512  # longer texts are cut on the right, as the released code does
    rule: str = "paper"  # "paper": Top-K kept; "official": off, as the released code measures
    top_spans: int = 10  # texts kept per feature (paper App. K)
    batch_tokens: int = 4096  # padded tokens per forward pass
    encode_elements: int = 1 << 25  # largest tokens x width block of activations held at a time
    # Ways of the released code (conf/parity says where they are found):
    shift: int | None = None  # None: content is what the messages say; n: every token from index n on
    double_bos: bool = False  # a second BOS before the template's own
    span_end: Literal["at", "before"] = "at"  # a span ends with the activating token, or just before it


class Watched(NamedTuple):
    """g_i of each text's own watched feature, and the position of its strongest token in the encoded chat."""

    values: list[float]
    tokens: list[int]


class Extractor:
    """Measures chats with one backbone and SAE."""

    def __init__(self, backbone: Backbone, sae: Sae, settings: FeatureSettings) -> None:
        self.backbone, self.sae, self.settings = backbone, sae, settings

    def extract(
        self,
        chats: Iterable[Sequence[Message]],
        folder: Path,
        total: int | None = None,
        watch: Sequence[int] | None = None,
    ) -> Watched:
        """Write the pooled matrix (`Pooled.load`), the tops (`Tops.load`) and `LENGTHS` of `chats` to `folder`.

        LENGTHS holds how many content tokens of each text were measured, int32 [texts]; the pooled matrix's record says
        of how many texts some were not (`cut`), being behind `max_tokens`. An empty chat activates nothing. With
        `watch`, one feature per chat, that feature's g_i and the position of its strongest token are returned as well.
        """
        width = self.sae.width
        writer = PooledWriter(folder, width, {"rule": self.sae.rule, "max_tokens": self.settings.max_tokens})
        best = _TopKeeper(width, self.settings.top_spans)
        watched: list[tuple[float, int]] = []
        lengths: list[int] = []
        cut = 0
        source, first = iter(chats), 0
        with tqdm(total=total, desc="measuring texts", unit="text", leave=False) as bar:
            while window := list(islice(source, self.window)):
                values = np.zeros((len(window), width), np.float32)
                where = np.zeros((len(window), width), np.int32)
                encoded = [self._encode(chat) for chat in window]
                lengths += [sum(content) for (_, content), _ in encoded]
                cut += sum(was_cut for _, was_cut in encoded)
                for row, (maxima, positions) in self._pool([measured for measured, _ in encoded]):
                    values[row], where[row] = maxima, positions
                    bar.update()
                writer.append(values)
                best.update(values, where, first)
                if watch is not None:
                    features = watch[first : first + len(window)]
                    watched += [(float(values[r, f]), int(where[r, f])) for r, f in enumerate(features)]
                first += len(window)
        writer.close(cut=cut)
        np.save(folder / LENGTHS, np.array(lengths, np.int32))
        np.savez(folder / "tops.npz", values=best.values, texts=best.texts, tokens=best.tokens)
        return Watched([g for g, _ in watched], [token for _, token in watched])

    @property
    def window(self) -> int:
        """How many texts are held, and sorted by length, at a time."""
        return max(min(_WINDOW, _WINDOW_ELEMENTS // self.sae.width), 1)

    def span(self, chat: Sequence[Message], token: int, length: int) -> Span:
        """Up to `length` tokens that end with the activating one; see `span_of`."""
        return span_of(self.backbone.tokenizer, chat, token, length, self.settings)

    def encode(self, chat: Sequence[Message]) -> Encoded:
        return encode_measured(self.backbone.tokenizer, chat, self.settings)

    def _encode(self, chat: Sequence[Message]) -> tuple[Encoded, bool]:
        """A chat as it is measured, and whether content of it was cut off."""
        return _encode_and_cut(self.backbone.tokenizer, chat, self.settings) if chat else (Encoded([], []), False)

    def _pool(self, encoded: Sequence[Encoded]) -> Iterator[tuple[int, tuple[NDArray[np.float32], NDArray[np.int32]]]]:
        """(index, (maxima [width], positions [width])) of each chat, in the order of computation."""
        order = sorted((i for i, (ids, _) in enumerate(encoded) if ids), key=lambda i: len(encoded[i].ids))
        for batch in token_batches(order, [len(e.ids) for e in encoded], self.settings.batch_tokens):
            residual = self.backbone.residual([encoded[i].ids for i in batch])
            for block in self._blocks(batch, encoded):
                yield from self._pool_block(block, residual, batch, encoded)

    def _blocks(self, batch: Sequence[int], encoded: Sequence[Encoded]) -> Iterator[list[int]]:
        """Consecutive chats of a batch whose activations fit into `encode_elements`."""
        most = max(self.settings.encode_elements // self.sae.width, 1)
        block: list[int] = []
        tokens = 0
        for index in batch:
            count = sum(encoded[index].content)
            if block and tokens + count > most:
                yield block
                block, tokens = [], 0
            block.append(index)
            tokens += count
        yield block

    def _pool_block(
        self, block: list[int], residual: torch.Tensor, batch: Sequence[int], encoded: Sequence[Encoded]
    ) -> Iterator[tuple[int, tuple[NDArray[np.float32], NDArray[np.int32]]]]:
        positions = [np.flatnonzero(encoded[i].content) for i in block]
        row_in_batch = {index: row for row, index in enumerate(batch)}
        rows = [residual[row_in_batch[i], torch.as_tensor(p)] for i, p in zip(block, positions, strict=True)]
        activations = self.sae.encode(finite(torch.cat(rows), self.backbone))
        start = 0
        for index, place in zip(block, positions, strict=True):
            if not len(place):
                continue  # a text without content tokens activates nothing
            maxima, token = activations[start : start + len(place)].max(dim=0)
            start += len(place)
            yield index, (maxima.clamp(min=0).cpu().numpy(), place[token.cpu().numpy()].astype(np.int32))


def encode_measured(tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message], settings: FeatureSettings) -> Encoded:
    """`fac.chat.encode` of a chat that is measured, with what `settings` says about BOS and content."""
    return _encode_and_cut(tokenizer, chat, settings)[0]


def _encode_and_cut(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message], settings: FeatureSettings
) -> tuple[Encoded, bool]:
    """The first `max_tokens` of a chat, and whether content stands behind them."""
    ids, content = encode(tokenizer, chat)
    if settings.double_bos and ids and ids[0] == tokenizer.bos_token_id:
        ids, content = [ids[0], *ids], [False, *content]
    if settings.shift is not None:
        content = [position >= settings.shift for position in range(len(ids))]
    most = settings.max_tokens
    return Encoded(ids[:most], content[:most]), any(content[most:])


class Span(NamedTuple):
    """A stretch of content; `text[start:]` is the activating token, or "" if the span ends before it."""

    text: str
    start: int


def span_of(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message], token: int, length: int, settings: FeatureSettings
) -> Span:
    """The content tokens among the `length` tokens that end at position `token` of the encoded chat.

    With `span_end` "before" they end at the position before it.
    """
    encoded = encode_measured(tokenizer, chat, settings)
    end = token + 1 if settings.span_end == "at" else token
    first = max(end - length, 0)
    shown = zip(encoded.ids[first:end], encoded.content[first:end], strict=True)
    ids = [i for i, content in shown if content]
    text = str(tokenizer.decode(ids)).strip()
    if settings.span_end == "before":
        return Span(text, len(text))
    before = str(tokenizer.decode(ids[:-1])).strip()
    start = len(before) if text.startswith(before) else 0
    return Span(text, start + len(text[start:]) - len(text[start:].lstrip()))


def content_means(
    backbone: Backbone, chats: Sequence[Sequence[Message]], settings: FeatureSettings
) -> NDArray[np.float32]:
    """Mean residual of each chat's content tokens, an embedding for diversity metrics; shape [chats, d_model]."""
    encoded = [encode_measured(backbone.tokenizer, chat, settings) for chat in chats]
    order = sorted(range(len(chats)), key=lambda i: len(encoded[i].ids))
    means = np.zeros((len(chats), backbone.d_model), np.float32)
    for batch in token_batches(order, [len(e.ids) for e in encoded], settings.batch_tokens):
        residual = backbone.residual([encoded[i].ids for i in batch])
        for row, index in enumerate(batch):
            content = residual[row, torch.as_tensor(np.flatnonzero(encoded[index].content))]
            means[index] = finite(content, backbone).float().mean(dim=0).cpu().numpy() if len(content) else 0.0
    return means


def token_batches(order: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Split `order` (sorted by length) into batches of at most `budget` padded tokens, at least one text each."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class _TopKeeper:
    """Keeps each feature's n strongest (value, text, token) over a stream of windows; earlier texts win ties."""

    def __init__(self, width: int, n: int) -> None:
        self.values = np.zeros((width, n), np.float32)
        self.texts = np.full((width, n), -1, np.int64)
        self.tokens = np.zeros((width, n), np.int32)

    def update(self, values: NDArray[np.float32], where: NDArray[np.int32], first: int) -> None:
        n = self.values.shape[1]
        rows = min(n, len(values))
        # Stable sort: among equals the earlier text stays first.
        strongest = np.argsort(-values, axis=0, kind="stable")[:rows].T  # [width, rows]
        new = np.take_along_axis(values.T, strongest, axis=1)
        merged = np.concatenate([self.values, new], axis=1)
        texts = np.concatenate([self.texts, np.where(new > 0, strongest + first, -1)], axis=1)
        tokens = np.concatenate([self.tokens, np.take_along_axis(where.T, strongest, axis=1)], axis=1)
        keep = np.argsort(-merged, axis=1, kind="stable")[:, :n]
        self.values = np.take_along_axis(merged, keep, axis=1)
        self.texts = np.take_along_axis(texts, keep, axis=1)
        self.tokens = np.take_along_axis(tokens, keep, axis=1)
