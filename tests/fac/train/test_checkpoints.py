"""fac.train.checkpoints: a training that is killed midway and goes on ends as one that was not, to the bit."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.models import tiny_model

from fac.chat import as_chat, exchange
from fac.data.pairs import Pair
from fac.model_ref import ModelRef
from fac.train import checkpoints
from fac.train.classifier import train_classifier
from fac.train.reward import train_reward
from fac.train.settings import ClassifierSettings, RewardSettings, SftSettings
from fac.train.sft import train_sft

STEPS, STOP = 6, 4  # of a training; and the one at which it is stopped
EXAMPLES = [(as_chat(f"text {n} " + "again " * (n % 5)), n % 2) for n in range(12)]
PAIRS = [Pair(as_chat(f"question {n}"), "yes " * (n % 3 + 1), "no") for n in range(12)]
CHATS = [exchange(f"Say it {n} times", "again and " * (n % 5 + 1)) for n in range(12)]
COMMON = {"epochs": 2, "batch_size": 2, "gradient_accumulation": 2, "rank": 2, "dropout": 0.1}

TRAININGS = {
    "classifier": lambda *how: train_classifier(
        ModelRef(str(how[0])), EXAMPLES, ClassifierSettings(**COMMON), *how[1:]
    ),
    "grouped": lambda *how: train_classifier(
        ModelRef(str(how[0])), EXAMPLES, ClassifierSettings(**COMMON, group_by_length=True), *how[1:]
    ),
    "head": lambda *how: train_classifier(
        ModelRef(str(how[0])), EXAMPLES, ClassifierSettings("head", **COMMON), *how[1:]
    ),
    "reward": lambda *how: train_reward(ModelRef(str(how[0])), PAIRS, RewardSettings(**COMMON), *how[1:]),
    "sft": lambda *how: train_sft(ModelRef(str(how[0])), CHATS, SftSettings(**COMMON), *how[1:]),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)


class Stopped(Exception):
    pass


def stop(done: int, _total: int) -> None:
    if done == STOP:
        raise Stopped


def weights(folder: Path):
    (file,) = folder.glob("*.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(kind: str, model: Path, tmp_path: Path, every_step: None):
    train, whole, broken = TRAININGS[kind], tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    log = train(model, 7, whole, None)
    assert log.steps == len(log.losses) == STEPS
    with pytest.raises(Stopped):
        train(model, 7, broken, stop)
    left = checkpoints.last_checkpoint(broken / checkpoints.FOLDER)
    assert left is not None
    assert left.name == f"checkpoint-{STOP - 1}"
    seen: list[int] = []
    again = train(model, 7, broken, lambda done, _total: seen.append(done))
    assert seen == list(range(STOP, STEPS + 1))  # the first steps were not done again
    assert again.losses == log.losses
    assert weights(broken) == weights(whole)
    assert not (broken / checkpoints.FOLDER).exists()


def test_a_short_training_writes_no_checkpoint(model: Path, tmp_path: Path):
    with pytest.raises(Stopped):
        TRAININGS["classifier"](model, 7, tmp_path, stop)
    assert checkpoints.last_checkpoint(tmp_path / checkpoints.FOLDER) is None


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(tmp_path: Path):
    for step, state in ((2, {"global_step": 2}), (10, {"global_step": 10}), (11, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "checkpoint-12").mkdir()
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"global_st')
    assert checkpoints.last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert checkpoints.last_checkpoint(tmp_path / "none") is None


KILLED = textwrap.dedent("""
    import os, signal, sys
    sys.path[:0] = sys.argv[3:]
    from pathlib import Path
    from fac.train import checkpoints
    from test_checkpoints import STOP, TRAININGS
    checkpoints.SECONDS = 0.0
    kill = lambda done, _total: os.kill(os.getpid(), signal.SIGKILL) if done == STOP else None
    TRAININGS["classifier"](Path(sys.argv[1]), 7, Path(sys.argv[2]), kill)
""")


@pytest.mark.slow
def test_so_does_one_that_was_killed(model: Path, tmp_path: Path, every_step: None):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(model), str(broken), str(here), str(here.parents[1])]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    TRAININGS["classifier"](model, 7, whole, None)
    TRAININGS["classifier"](model, 7, broken, None)
    assert weights(broken) == weights(whole)


@pytest.mark.parametrize("kind", ["classifier", "head", "reward", "sft"])
def test_activations_that_are_computed_again_give_the_same_weights(
    kind: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So gradient checkpointing, which saves memory, has no place in a key."""
    kept, again = tmp_path / "kept", tmp_path / "again"
    for folder, switch in ((kept, False), (again, True)):
        folder.mkdir()
        monkeypatch.setitem(COMMON, "gradient_checkpointing", switch)
        TRAININGS[kind](model, 7, folder, None)
    assert weights(again) == weights(kept)
