"""A cell is trained and scored at the commit that its model is pinned to, and where the model lies now."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.caa import caa_rows
from support.example_sets import examples_folder
from support.hub_cache import cached_model
from support.models import tiny_model

from experiments.tasks import TASKS, base
from experiments.tasks.instruction import _model
from experiments.tasks.steering import SteeringSettings
from fac.chat import as_chat
from fac.data.choices import to_choice
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR, QUERY, Query
from fac.model_ref import ModelRef
from fac.train.settings import ClassifierSettings, RewardSettings, SftSettings

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


def queries(folder: Path) -> Path:
    texts = [Query(f"how do I take {n} of them") for n in range(12)]
    return examples_folder(folder, QUERY, texts, [n % 2 for n in range(12)])


def preferences(folder: Path) -> Path:
    pairs = [Pair(as_chat(f"question {n}"), f"yes {n} times", f"no {7 * n}", f"part {n}") for n in range(12)]
    return examples_folder(folder, PAIR, pairs)


def questions(folder: Path) -> Path:
    return examples_folder(folder, CHOICE, [to_choice(row) for row in caa_rows(8)])


KINDS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "toxicity": (queries, ClassifierSettings("head", **HOW)),
    "reward": (preferences, RewardSettings("head", **HOW)),
    "survival": (questions, SteeringSettings(layer=2, norm=8.0)),
}


def trained(task: str, model: ModelRef, folder: Path) -> tuple[Path, Path]:
    """What was trained, and the data that it was trained on."""
    examples, settings = KINDS[task]
    data = examples(folder / "data")
    (folder / "made").mkdir()
    TASKS[task].train(base.Training(model, settings, 42, seed_examples=data), folder / "made")
    return folder / "made", data


def scores(task: str, model: ModelRef, made: Path, data: Path) -> dict[str, float]:
    folder = made.parent / f"scores-{len(list(made.parent.iterdir()))}"
    folder.mkdir()
    return TASKS[task].test(base.Testing(model, KINDS[task][1], made, data), folder)


@pytest.mark.parametrize("task", KINDS)
def test_a_task_trains_and_scores_at_the_pinned_commit(
    versions: Mapping[str, Path], hub: None, tmp_path: Path, task: str
):
    pinned, local, newer = ModelRef(NAME, PINNED), ModelRef(str(versions[PINNED])), ModelRef(str(versions[NEWER]))
    right, found, other = (
        scores(task, model, *trained(task, model, tmp_path / name))
        for name, model in (("right", local), ("pinned", pinned), ("newer", newer))
    )
    assert found == right
    assert other != right


@pytest.mark.parametrize("task", KINDS)
def test_a_model_that_moved_since_training_is_scored_where_it_is_now(tmp_path: Path, task: str):
    """Its identity is that of its files, so its training is found in the store and not done again."""
    here = tiny_model(tmp_path / "here", seed=0)
    made, data = trained(task, ModelRef(str(here)), tmp_path / "run")
    right = scores(task, ModelRef(str(here)), made, data)
    moved = ModelRef(str(here.rename(tmp_path / "elsewhere")))
    assert scores(task, moved, made, data) == right


def test_answers_are_those_of_the_pinned_commit_tuned_or_not(versions: Mapping[str, Path], hub: None, tmp_path: Path):
    lessons = [Instruction(f"say {n}", f"so it is {n}") for n in range(4)]
    data, pinned = examples_folder(tmp_path / "data", INSTRUCTION, lessons), ModelRef(NAME, PINNED)
    settings = SftSettings(**HOW)
    (tmp_path / "made").mkdir()
    TASKS["instruction"].train(base.Training(pinned, settings, 42, seed_examples=data), tmp_path / "made")
    for made in (tmp_path / "made", None):
        model = _model(base.Testing(pinned, settings, made, data))
        assert (model.path, model.revision) == (NAME, PINNED)
    moved = base.Testing(ModelRef(str(versions[PINNED])), settings, tmp_path / "made", data)
    assert _model(moved).path == str(versions[PINNED])
