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
from fac.model_ref import ModelRef
from fac.store import Step
from fac.train.settings import RewardSettings


def train(job: Training, folder: Path) -> None:
    """A reward model on all pairs."""
    from fac.train.reward import train_reward
    from fac.train.states import load_parts, train_on_states

    pairs = load_examples(PAIR, job.parts)
    if job.settings.kept_states:
        states = load_parts(job.parts).unflatten(0, (-1, 2))
        log = train_on_states(states, [0] * len(pairs), 1, job.settings, job.seed, folder)
    else:
        log = train_reward(job.model, pairs, job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Testing, folder: Path) -> dict[str, float]:
    """Accuracy by section, and their mean."""
    from eval.reward import evaluate, rated
    from fac.train.reward import load_reward
    from fac.train.states import load_parts, scores_of_states

    pairs = load_examples(PAIR, [job.test])
    if job.settings.kept_states:
        scores = scores_of_states(job.folder, load_parts([job.test]))[:, 0].numpy()
        metrics, replicates = rated(pairs, scores[::2], scores[1::2])
    else:
        metrics, replicates = evaluate(load_reward(job.folder, job.model), pairs)
    keep_replicates(folder, replicates)
    return metrics


def states(model: ModelRef, settings: RewardSettings, examples: Step) -> Step:
    """What a frozen model says of both replies of each pair."""
    from fac.train.reward import rows_of
    from fac.train.states import states_step

    return states_step(model, settings, rows_of, "pairs", examples)


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
    states=states,
    read=read,
    drawn_in_lab=drawn_in_lab,
    fingerprint=pairs_fingerprint,
)
