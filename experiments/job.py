"""What a cell of a table is, before it is done: one thing to train on some rows with one seed, and to test.

Knows: what decides a cell. Does not know: how it is trained and tested (`experiments.tasks`), or where
(`experiments.cells`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.engines import Judge
from fac.backbone import ModelRef
from fac.store import Artifact


@dataclass(frozen=True)
class Job:
    """One cell; all that a worker needs."""

    task: str  # a key of experiments.tasks.TASKS
    row: str
    seed: int
    store: Path
    model: ModelRef  # what is trained or steered
    settings: Any  # the task's own dataclass
    train: tuple[Artifact, ...]  # one after the other
    test: Artifact
    others: Mapping[str, Artifact] = field(default_factory=dict)  # what else the test needs
    group: str = ""  # tells apart what shares row and seed: a protocol, a source of features
    judge: ModelRef | Judge | None = None  # who is asked about answers, where the test asks

    @property
    def params(self) -> dict[str, object]:
        """What decides the trained thing, beside its data."""
        return {"model": self.model.identity(), "seed": self.seed, **asdict(self.settings)}
