"""A set of training or test examples on disk: one JSON value a line, and their chats as a corpus that the SAE reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from fac.data.corpus import write_examples
from fac.data.examples import Example
from fac.data.schemas import Schema

EXAMPLES = "examples.jsonl"
E = TypeVar("E")


def save_examples(
    schema: Schema[E], examples: Sequence[E], folder: Path, labels: Sequence[int | None] | None = None
) -> None:
    """Write the examples and, as `Corpus`, every chat of them with its example's label (1 if there are no labels)."""
    schema.write(examples, folder / EXAMPLES)
    told = labels or [1] * len(examples)
    chats = ((chat, label) for example, label in zip(examples, told, strict=True) for chat in schema.chats(example))
    write_examples((Example(chat, label, str(i)) for i, (chat, label) in enumerate(chats, start=1)), folder)


def load_examples(schema: Schema[E], folders: Iterable[Path]) -> list[E]:
    """The examples of several sets, one after the other."""
    return [example for folder in folders for example in schema.read(folder / EXAMPLES)]
