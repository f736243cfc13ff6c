"""A cell is trained and scored at the commit that its model is pinned to, and where the model lies now."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.caa import caa_rows
from support.hub_cache import cached_model
from support.models import tiny_model

from experiments.job import Job
from experiments.tasks import TASKS
from experiments.tasks.base import examples_artifact
from experiments.tasks.instruction import _model
from experiments.tasks.steering import SteeringSettings
from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.data.choices import to_choice
from fac.data.corpus import write_examples
from fac.data.examples import Example
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR
from fac.store import Artifact, Store
from fac.train.classifier import ClassifierSettings
from fac.train.reward import RewardSettings
from fac.train.sft import SftSettings

NAME, PINNED, NEWER = "owner/model", "a" * 40, "b" * 40
HOW: dict[str, Any] = {"rank": 2, "epochs": 1, "learning_rate": 1e-4, "gradient_accumulation": 1}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model as it was pinned, and as its main branch is now."""
    root = tmp_path_factory.mktemp("versions")
    return {PINNED: tiny_model(root / "pinned", seed=0), NEWER: tiny_model(root / "newer", seed=1)}


@pytest.fixture
def hub(versions: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached_model(tmp_path / "hub", NAME, versions, main=NEWER)


def queries(store: Store) -> Artifact:
    examples = [Example(as_chat(f"how do I take {n} of them"), n % 2, str(n)) for n in range(12)]
    return store.stage("corpus", lambda folder: write_examples(examples, folder))


def preferences(store: Store) -> Artifact:
    pairs = [Pair(as_chat(f"question {n}"), f"yes {n} times", f"no {7 * n}", f"part {n}") for n in range(12)]
    return examples_artifact(store, PAIR, pairs)


def questions(store: Store) -> Artifact:
    return examples_artifact(store, CHOICE, [to_choice(row) for row in caa_rows(8)])


KINDS: dict[str, tuple[Callable[[Store], Artifact], Any]] = {
    "toxicity": (queries, ClassifierSettings("head", **HOW)),
    "reward": (preferences, RewardSettings("head", **HOW)),
    "survival": (questions, SteeringSettings(layer=2, norm=8.0)),
}


def scores(task: str, model: ModelRef, folder: Path) -> dict[str, float]:
    (rows, settings), store = KINDS[task], Store(folder / "store")
    data = rows(store)
    job = Job(task, "baseline", 42, store.root, model, settings, data, seed_rows=data)
    (folder / "made").mkdir()
    TASKS[task].train(job, folder / "made")
    return TASKS[task].test(job, folder / "made", folder)


@pytest.mark.parametrize("task", KINDS)
def test_a_task_trains_and_scores_at_the_pinned_commit(
    versions: Mapping[str, Path], hub: None, tmp_path: Path, task: str
):
    pinned, local = ModelRef(NAME, PINNED), ModelRef(str(versions[PINNED]))
    right = scores(task, local, tmp_path / "right")
    assert scores(task, pinned, tmp_path / "pinned") == right
    newer = ModelRef(str(versions[NEWER]))
    assert scores(task, newer, tmp_path / "newer") != right


@pytest.mark.parametrize("task", KINDS)
def test_a_model_that_moved_since_training_is_scored_where_it_is_now(tmp_path: Path, task: str):
    """Its identity is that of its files, so its training is found in the store and not done again."""
    (rows, settings), store = KINDS[task], Store(tmp_path / "store")
    here, data = tiny_model(tmp_path / "here", seed=0), rows(store)
    job = Job(task, "baseline", 42, store.root, ModelRef(str(here)), settings, data, seed_rows=data)
    (tmp_path / "made").mkdir()
    TASKS[task].train(job, tmp_path / "made")
    right = TASKS[task].test(job, tmp_path / "made", tmp_path)
    moved = ModelRef(str(here.rename(tmp_path / "elsewhere")))
    assert TASKS[task].test(replace(job, model=moved), tmp_path / "made", tmp_path) == right


def test_answers_are_those_of_the_pinned_commit_tuned_or_not(versions: Mapping[str, Path], hub: None, tmp_path: Path):
    store = Store(tmp_path / "store")
    data = examples_artifact(store, INSTRUCTION, [Instruction(f"say {n}", f"so it is {n}") for n in range(4)])
    pinned = ModelRef(NAME, PINNED)
    job = Job("instruction", "baseline", 42, store.root, pinned, SftSettings(**HOW), data, seed_rows=data)
    (tmp_path / "made").mkdir()
    TASKS["instruction"].train(job, tmp_path / "made")
    for model in (_model(job, tmp_path / "made"), _model(replace(job, untrained=True), tmp_path / "made")):
        assert (model.path, model.revision) == (NAME, PINNED)
    moved = replace(job, model=ModelRef(str(versions[PINNED])))
    assert _model(moved, tmp_path / "made").path == str(versions[PINNED])
