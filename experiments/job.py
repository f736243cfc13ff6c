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
    test: Artifact
    base: tuple[Artifact, ...] = ()  # what every row trains on, such as toxicity's safe texts
    seed_rows: Artifact | None = None  # the seed's own rows; None where they are not trained on
    added: Artifact | None = None  # what the method adds; None where it adds nothing
    others: Mapping[str, Artifact] = field(default_factory=dict)  # what else the test needs
    group: str = ""  # tells apart what shares row and seed: a protocol, a source of features
    untrained: bool = False  # the model is tested as it is
    judge: ModelRef | Judge | None = None  # who is asked about answers, where the test asks

    @property
    def train(self) -> tuple[Artifact, ...]:
        """All that is trained on, one after the other."""
        return (*self.base, *(part for part in (self.seed_rows, self.added) if part is not None))

    @property
    def params(self) -> dict[str, object]:
        """What decides the trained thing, beside its data: also which of them are the seed's, which are added."""
        parts = [("seed", self.seed_rows), ("added", self.added)]
        named = [name for name, part in parts if part is not None]
        settings = self.settings
        decided = settings.identity() if hasattr(settings, "identity") else asdict(settings)
        told = {"task": self.task, "model": self.model.identity(), "seed": self.seed, "trained_on": named}
        return {**told, **decided}
