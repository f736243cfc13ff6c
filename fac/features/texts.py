"""Chats as they are measured: their token ids, which of them are content, and spans of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from fac.chat import Encoded, Message, encode, encode_many
from fac.features.settings import FeatureSettings


class Measured(NamedTuple):
    """A chat as it is measured, and whether content of it was cut off."""

    encoded: Encoded
    cut: bool


def encode_measured(tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message], settings: FeatureSettings) -> Encoded:
    """`fac.chat.encode` of a chat that is measured, with what `settings` says about BOS and content."""
    return _measured(tokenizer, encode(tokenizer, chat), settings).encoded


def encode_all(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Message]], settings: FeatureSettings
) -> list[Measured]:
    """Each chat as it is measured; an empty one has no tokens."""
    some = iter(encode_many(tokenizer, [chat for chat in chats if chat]))
    empty = Encoded([], [])
    return [_measured(tokenizer, next(some) if chat else empty, settings) for chat in chats]


def _measured(tokenizer: PreTrainedTokenizerBase, encoded: Encoded, settings: FeatureSettings) -> Measured:
    ids, content = encoded
    if settings.double_bos and ids and ids[0] == tokenizer.bos_token_id:
        ids, content = [ids[0], *ids], [False, *content]
    if settings.shift is not None:
        content = [position >= settings.shift for position in range(len(ids))]
    most = settings.max_tokens
    return Measured(Encoded(ids[:most], content[:most]), any(content[most:]))


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
