"""Reward modelling: pairs of replies are written, a Bradley-Terry model is trained on them, scored by section."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.job import Job
from experiments.tasks.base import Labelled, Task, keep_replicates, load_examples
from fac.data.examples import LoadReport
from fac.data.pairs import read_pairs
from fac.data.schemas import PAIR
from fac.data.source import Source
from fac.train.reward import RewardSettings


def train(job: Job, folder: Path) -> None:
    """A reward model on all pairs."""
    from fac.train.reward import train_reward

    log = train_reward(job.model, load_examples(PAIR, job.train), job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Job, trained: Path, folder: Path) -> dict[str, float]:
    """Accuracy by section, and their mean."""
    from eval.reward import evaluate
    from fac.train.reward import load_reward

    model = load_reward(trained, job.model)
    metrics, replicates = evaluate(model, load_examples(PAIR, [job.test]))
    keep_replicates(folder, replicates)
    return metrics


def read(source: Source, report: LoadReport) -> Iterator[Labelled]:
    """The preference pairs of a data set."""
    return ((pair, None) for pair in read_pairs(source, report=report))


TASK = Task(
    "reward",
    "average",
    "reward",
    "Reward accuracy",
    PAIR,
    RewardSettings,
    "reward",
    train,
    test,
    read,
)
