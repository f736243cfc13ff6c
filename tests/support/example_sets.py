"""Sets of examples where steps and tasks look for them: as folders, and as steps."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fac.data.example_set import save_examples
from fac.data.schemas import Schema
from fac.store import Step


def examples_folder(
    folder: Path, schema: Schema[Any], examples: Sequence[Any], labels: Sequence[int | None] | None = None
) -> Path:
    """The examples in a new folder."""
    folder.mkdir(parents=True)
    save_examples(schema, examples, folder, labels)
    return folder


def examples_step(schema: Schema[Any], examples: Sequence[Any]) -> Step:
    """The examples as what a draw gives."""
    dumped = [schema.dump(example) for example in examples]
    return Step("examples", partial(_save, schema, examples), {"schema": schema.name, "examples": dumped})


def _save(schema: Schema[Any], examples: Sequence[Any], folder: Path) -> None:
    save_examples(schema, examples, folder)
