"""Reward modelling: pairs of replies are written, a Bradley-Terry model is trained on them, scored by section."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.cells import Job
from experiments.tasks.base import Task, load_rows
from fac.synthesis.forms import PAIR, pair_of
from fac.train.reward import RewardSettings


def train(job: Job, folder: Path) -> None:
    """A reward model on the pairs of all rows."""
    from fac.train.reward import train_reward

    pairs = [pair_of(row) for row in load_rows(job.train)]
    log = train_reward(job.model.path, job.model.revision, pairs, job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Job, trained: Path, _: Path) -> dict[str, float]:
    """Accuracy by section, and their mean."""
    from eval.reward import evaluate
    from fac.train.reward import load_reward

    return evaluate(load_reward(trained, job.model.path), [pair_of(row) for row in load_rows([job.test])])


TASK = Task("reward", "average", "reward", "Reward accuracy", PAIR, RewardSettings, "reward", train, test)
