"""Data of one's own that the lab's models can read: texts of the lab's world in files, as a user would have them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from fac.data.examples import Example
from fac.lab.world.corpora import Sizes, draw_corpus

SIZES = Sizes(anchor=150, safe=10, seed=24, human=80, labelled=60, validation=10, test=10, known=6)


def write_texts(file: Path, texts: Iterable[Example], **more: object) -> Path:
    """One text a line, with its label."""
    rows = ({"prompt": text.text, "toxic": text.label, **more} for text in texts)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def own_files(folder: Path) -> list[str]:
    """An anchor, a seed that knows six of its concepts, and a pool, with what names them on the command line."""
    for role, corpus in (("anchor", "anchor"), ("seed", "seed"), ("pool", "human")):
        write_texts(folder / f"{role}.jsonl", draw_corpus(corpus, 0, SIZES), source=role)
    return [f"data.{role}.path={folder}/{role}.jsonl" for role in ("anchor", "seed")]
