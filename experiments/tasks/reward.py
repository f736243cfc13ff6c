"""Reward modelling: pairs of replies are written, a Bradley-Terry model is trained on them, scored by section."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.tasks.base import Labelled, Task, Testing, Training, keep_replicates
from fac.data.example_set import load_examples
from fac.data.examples import LoadReport
from fac.data.pairs import pairs_fingerprint, read_pairs
from fac.data.schemas import PAIR
from fac.data.source import Source
from fac.lab.world.tasks import TaskSizes, draw_examples
from fac.train.reward import RewardSettings


def train(job: Training, folder: Path) -> None:
    """A reward model on all pairs."""
    from fac.train.reward import train_reward

    log = train_reward(job.model, load_examples(PAIR, job.parts), job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Testing, folder: Path) -> dict[str, float]:
    """Accuracy by section, and their mean."""
    from eval.reward import evaluate
    from fac.train.reward import load_reward

    model = load_reward(job.folder, job.model)
    metrics, replicates = evaluate(model, load_examples(PAIR, [job.test]))
    keep_replicates(folder, replicates)
    return metrics


def read(source: Source, report: LoadReport) -> Iterator[Labelled]:
    """The preference pairs of a data set."""
    return ((pair, None) for pair in read_pairs(source, report=report))


def drawn_in_lab(role: str, world: int, sizes: TaskSizes) -> list[Labelled]:
    """The pairs of one role of the lab's world."""
    return [(pair, None) for pair in draw_examples("reward", role, world, sizes)]


TASK = Task(
    name="reward",
    title="Reward",
    metric="average",
    metric_title="accuracy",
    paper={"table1": "reward", "table13": "average", "table8": "reward"},
    schema=PAIR,
    settings=RewardSettings,
    sizes=TaskSizes,
    stage="reward",
    train=train,
    test=test,
    read=read,
    drawn_in_lab=drawn_in_lab,
    fingerprint=pairs_fingerprint,
)
