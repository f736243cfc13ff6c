"""A reward model on preference pairs of one's own: trained on one set, tested on another, by section.

    fac experiment=reward data.train.path=FILE data.test.path=FILE model=llama31_8b

Files of UltraFeedback, HH-RLHF, LLMBar, RM-Bench, RewardBench or trl's layout, or data sets of the hub:
data.test.path=hub:allenai/reward-bench data.test.split=filtered. How it is trained: tasks.reward.train, seeds.training.
"""

from __future__ import annotations

from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.reward import TASK, Steps, page
from experiments.tasks.base import scores_step, train_step
from fac.data.pair_steps import kept_step, pairs_step


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Pairs, those that the test does not ask, and a training and test for each seed."""
    train, test = (pairs_step(run.data[role]) for role in ("train", "test"))
    kept = kept_step(train, test)
    model, settings = run.model.ref, run.tasks[TASK.name].train
    scores = {}
    for seed in run.seeds.training:
        trained = train_step(TASK, model, settings, seed, [kept], None, None)
        scores[seed] = scores_step(TASK, model, settings, trained, test, {}, None)
    read = partial(page, run, Steps({"train": train, "test": test}, kept, scores))
    return Plan([], read, [train, test, kept, *scores.values()])


EXPERIMENT = Experiment(
    "reward",
    "A reward model on preference pairs of one's own, by section",
    plan,
    data=("train", "test"),
)
