"""Ids of chats, made once in a process: trials share their test, and most of what they are trained on."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from fac.chat import Message, encode_many

MOST = 50_000  # chats that are remembered; before they become more, all are forgotten

_Key = tuple[str, tuple[tuple[str, str], ...]]
_SEEN: dict[_Key, array[int]] = {}


def ids_of(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
    """`fac.chat.encode`'s ids of each chat, whole. Raises FacError as it does."""
    kind = _fingerprint(tokenizer)
    keys = [(kind, tuple((message["role"], message["content"]) for message in chat)) for chat in chats]
    if len(_SEEN) + len(chats) > MOST:
        _SEEN.clear()
    new = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in _SEEN}
    for key, encoded in zip(new, encode_many(tokenizer, list(new.values())), strict=True):
        _SEEN[key] = array("i", encoded.ids)
    return [_SEEN[key].tolist() for key in keys]


def _fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of all that decides ids: one saved with what was trained is the same tokenizer as the model's own."""
    core = tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
    return hashlib.sha256(f"{core}\0{tokenizer.chat_template}\0{tokenizer.special_tokens_map}".encode()).hexdigest()
