"""Heads on kept states: the model runs once over a set of examples, and the numbers are those of a head on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.reduced import reduced

from experiments.harness.config import read_config
from experiments.harness.listing import experiments
from experiments.harness.records import load
from experiments.harness.run import execute
from experiments.tasks import TASKS
from fac.errors import FacError
from fac.train.settings import ClassifierSettings


def settings(task: str, out: Path, *more: str) -> list[str]:
    heads = [f"tasks.{task}.train.{key}" for key in ("mode=head", "float64=false", "learning_rate=0.02")]
    return [
        "experiment=main_results", f"experiment.tasks=[{task}]", "experiment.methods=[baseline,full]", "workers=1",
        f"paths.outputs={out}", f"out={out}/out", "tracking.enabled=false", *reduced(task), *heads, *more,
    ]  # fmt: skip


def metrics(task: str, out: Path, *more: str) -> list[float]:
    run = read_config(settings(task, out, *more))
    execute(experiments()[run.name], run)
    return [record.metrics[TASKS[task].metric] for record in load(out / "out" / "records.json")]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["toxicity", "reward"])
def test_a_head_on_kept_states_is_as_good_as_one_on_the_model(task: str, tmp_path: Path):
    more = [f"tasks.{task}.train.epochs=20", "seeds.training=[42,43]"]
    kept = metrics(task, tmp_path, *more, f"+tasks.{task}.train.kept_states=true")
    plain = metrics(task, tmp_path, *more)
    assert kept == pytest.approx(plain, abs=0.06)  # another draw of the head's first weights
    states = [folder for folder in (tmp_path / "store" / "states").iterdir() if not folder.name.startswith(".")]
    assert len(states) == {"toxicity": 4, "reward": 3}[task]  # safe, seed, full, test: once, not once a row and seed


def test_only_heads_have_states_to_keep():
    with pytest.raises(FacError, match="kept_states=true goes with mode=head"):
        ClassifierSettings("lora", kept_states=True)


def test_a_setting_that_is_off_changes_no_key():
    assert "kept_states" not in ClassifierSettings("head").identity()
    assert ClassifierSettings("head", kept_states=True).identity()["kept_states"] is True
