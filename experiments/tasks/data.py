"""Where a task's data come from: what every experiment is given, drawn from the lab's world.

Knows: the roles of a task's data. Does not know: models, methods, settings of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.tasks.base import Task, rows_artifact
from fac.data.corpus import Corpus
from fac.data.examples import Example
from fac.lab.world.corpora import ROLES as WORLD_ROLES
from fac.lab.world.corpora import Sizes, draw_corpus, world_digest
from fac.lab.world.tasks import TaskSizes, draw_rows
from fac.pipeline import computed_corpus
from fac.store import Artifact, Store


@dataclass(frozen=True)
class TaskData:
    """The data of one task."""

    anchor: Artifact  # corpus that the relevant features are found on
    known: Artifact  # corpus of the seed data: what training starts from, as the SAE reads it
    base: tuple[Artifact, ...]  # what every row trains on
    seed_rows: Sequence[str]
    human_rows: Sequence[str]
    test: Artifact
    labelled: Artifact | None = None  # for the statistical judge


def lab_data(store: Store, task: Task, seed: int, sizes: Sizes | TaskSizes, test: str = "test") -> TaskData:
    """The data of a task in one world of the lab; `test` may name the validation set instead."""
    if isinstance(sizes, Sizes):
        world = draw_world(store, sizes, seed)
        seed_rows, human_rows = ([e.text for e in Corpus.load(world[role].path)] for role in ("seed", "human"))
        base = (world["safe"], world["seed"])
        return TaskData(
            world["anchor"], world["seed data"], base, seed_rows, human_rows, world[test], world["labelled"]
        )
    rows = {role: draw_rows(task.name, role, seed, sizes) for role in ("anchor", "seed", "human", test)}
    anchor, known, tested = (rows_artifact(store, task.form, rows[role]) for role in ("anchor", "seed", test))
    return TaskData(anchor, known, (known,), rows["seed"], rows["human"], tested)


def draw_world(store: Store, sizes: Sizes, seed: int) -> dict[str, Artifact]:
    """The toxicity corpora of one world seed by role, and "seed data": all that the seed-only row trains on."""
    params = {"world": world_digest(), "seed": seed, "sizes": sizes}
    world = {
        role: computed_corpus(
            store, "world", lambda role=role: draw_corpus(role, seed, sizes), {**params, "role": role}
        )
        for role in WORLD_ROLES
    }

    def both() -> list[Example]:
        return [e for role in ("safe", "seed") for e in Corpus.load(world[role].path)]

    world["seed data"] = computed_corpus(store, "world", both, {**params, "role": "seed data"})
    return world
