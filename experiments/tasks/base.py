"""What a task brings: how its examples are drawn, read, trained on and tested.

A new task is a module that defines a `Task`, its line in `TASKS`, its prompts, and its settings in conf/tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from eval.statistics import Replicates
from experiments.job import Job
from fac.backbone import ModelRef
from fac.data.corpus import write_examples
from fac.data.examples import Example, LoadReport
from fac.data.held_out import HeldOut
from fac.data.schemas import Schema
from fac.data.source import Source
from fac.llm.base import ChatModel
from fac.prompts import Prompts
from fac.store import Artifact, Store
from fac.synthesis.replies import ParsedReply
from fac.synthesis.settings import Settings

ROWS = "rows.jsonl"
REPLICATES = "replicates.npz"  # beside a cell's metrics: those of `Task.metric` and `Task.also` that have them
ROLES = ("anchor", "seed", "human", "test")

Protocol = Literal["added", "alone"]
"""Whether what a method writes is added to the seed's rows or stands in their place."""

PLAIN: Mapping[str, str] = {"n": "count", "pairs": "count", "norm": "norm"}
"""Metrics of a test that are no fractions, with their units."""

Labelled = tuple[Any, int | None]  # an example of the task's schema, and the label that its data set gives it
E = TypeVar("E")


@dataclass(frozen=True)
class TaskData:
    """The data of one task."""

    anchor: Artifact  # corpus that the relevant features are found on
    known: Artifact  # corpus of the seed data: what training starts from, as the SAE reads it
    base: tuple[Artifact, ...]  # what every row trains on beside the seed's rows or its own: toxicity's safe texts
    seed: Artifact  # the seed's own examples, to train on
    seed_examples: Sequence[Any]  # ... in memory
    human_examples: Sequence[Any]
    test: Artifact
    held_out: HeldOut  # what the test, the validation set and AlpacaEval ask
    labelled: Artifact | None = None  # for the statistical judge
    evaluation: Any = None  # how data sets are tested: the task's own dataclass
    notes: Sequence[str] = ()  # what was read, and what was left out of it
    losses: Sequence[str] = ()  # those of the notes that say that rows were left out: a table carries them


@dataclass(frozen=True)
class Task:
    """One column of Table 1."""

    name: str
    metric: str  # key of what `test` returns that the table shows
    column: str  # of the paper's Table 1
    title: str
    schema: Schema[Any]
    settings: type  # dataclass of the training settings
    stage: str  # name of the training stage
    train: Callable[[Job, Path], None]  # writes what was trained to the folder
    # (job, trained, own folder) -> metrics, as fractions but for PLAIN
    test: Callable[[Job, Path, Path], dict[str, float]]
    read: Callable[[Source, LoadReport], Iterable[Labelled]]  # a data set as examples
    unit: str = "percent"
    note: str = ""  # printed below the table
    note_on_data: str = ""  # ... in its place, where the rows come from data sets and not from the lab
    also: Mapping[str, str] = field(default_factory=dict)  # further metrics that the table shows, with their titles
    from_base: bool = False  # trains the base model, not the instruct model
    untrained: bool = False  # the model can be tested as it is, without training: the row "base"
    # Written examples as they are trained on, in order, or why one cannot be.
    finish: Callable[[Store, Sequence[Any], ChatModel, Prompts, Settings], list[ParsedReply]] | None = None
    others: Callable[[Store, TaskData, ModelRef], dict[str, Artifact]] | None = None  # what the test needs besides
    roles: tuple[str, ...] = ROLES  # the data sets that it needs
    may_have: tuple[str, ...] = ("validation",)  # those that it can do without
    evaluation: type | None = None  # dataclass of how it is tested on data sets, where there is a choice


def trained_on(data: TaskData, added: Artifact | None, protocol: Protocol) -> dict[str, Any]:
    """What a row trains on, by the names of Job's fields. A row that adds nothing has the seed's rows either way."""
    alone = added is not None and protocol == "alone"
    return {"base": data.base, "seed_rows": None if alone else data.seed, "added": added}


def examples_artifact(store: Store, schema: Schema[E], examples: Sequence[E]) -> Artifact:
    """Training examples, and their chats that the SAE reads as a corpus, in one artifact."""
    digest = hashlib.sha256("\n".join(map(schema.line, examples)).encode()).hexdigest()
    params = {"schema": schema.name, "sha256": digest}
    return store.stage("rows", lambda folder: save_examples(schema, examples, folder), params=params)


def save_examples(schema: Schema[E], examples: Sequence[E], folder: Path) -> None:
    """What `examples_artifact` holds."""
    schema.write(examples, folder / ROWS)
    chats = (chat for example in examples for chat in schema.chats(example))
    write_examples((Example(chat, 1, str(i)) for i, chat in enumerate(chats, start=1)), folder)


def keep_replicates(folder: Path, replicates: Replicates) -> None:
    """Bootstrap replicates of the metrics over the test's items, [draws] each; every cell has the same draws."""
    np.savez(folder / REPLICATES, **replicates)  # type: ignore[arg-type]


def load_replicates(folder: Path) -> Replicates:
    """What `keep_replicates` wrote; nothing where a test keeps none."""
    if not (folder / REPLICATES).is_file():
        return {}
    with np.load(folder / REPLICATES) as held:
        return dict(held)


def load_examples(schema: Schema[E], artifacts: Iterable[Artifact]) -> list[E]:
    """The examples of several artifacts, one after the other."""
    return [example for part in artifacts for example in schema.read(part.path / ROWS)]
