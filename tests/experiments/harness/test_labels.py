"""experiments.harness.labels: whose a table's numbers are, and beside which the paper's may stand."""

from pathlib import Path
from typing import Any

import pytest

from experiments.harness import labels
from experiments.harness.config import read_config
from experiments.harness.paper_numbers import paper_table
from experiments.harness.results import LAB_LABEL
from experiments.tasks import TASKS
from fac.data.source import Source
from fac.train.classifier import ClassifierSettings


def kinds(*overrides: str) -> dict[str, str]:
    run = read_config(["experiment=main_results", *overrides])
    return {task: labels.kind_of(run, task, [run.model.name]) for task in run.experiment.tasks}


@pytest.fixture
def caa(real_data: Any) -> list[str]:
    """CAA's own test files, wherever they lie."""
    names = {"sycophancy": "sycophancy", "survival": "survival-instinct"}
    root = real_data("caa") / "test"
    return [f"tasks.{task}.data.test.path={root}/{name}/test_dataset_ab.json" for task, name in names.items()]


def test_a_result_of_the_lab_is_of_its_models_on_its_world():
    assert set(kinds().values()) == {"lab"}
    assert set(kinds("model=lab_qwen").values()) == {"lab"}
    assert set(kinds("model.path=/models/mine").values()) == {"own"}
    assert set(kinds("llm=openai", "llm.model=gpt-4o-mini-2024-07-18").values()) == {"own"}
    assert set(kinds("llm.path=lab:mistral").values()) == {"lab"}
    assert labels.label(["lab"]) == LAB_LABEL


def test_the_paper_s_setting_is_its_model_on_its_test_set(caa: list[str]):
    assert kinds("scale=paper", *caa) == dict.fromkeys(TASKS, "paper")
    assert set(kinds("scale=paper", "model=qwen2_7b", *caa).values()) == {"paper"}
    assert set(kinds("scale=paper", "model.path=/models/mine", *caa).values()) == {"own"}
    local = ("model=local", "model.path=/models/mine", "sae.release=r")
    assert set(kinds("scale=paper", *local, *caa).values()) == {"own"}
    assert labels.label(["paper"]) == ""
    assert labels.label(["paper", "own"]) == labels.OWN_LABEL


@pytest.mark.parametrize(
    ("task", "change", "kind"),
    [
        ("toxicity", "tasks.toxicity.data.test.path=mine.csv", "own"),
        ("toxicity", "tasks.toxicity.data.test.split=train", "own"),
        ("toxicity", "tasks.toxicity.data.test.label=jailbreaking", "own"),
        ("toxicity", "tasks.toxicity.data.test.limit=100", "own"),
        ("toxicity", "tasks.toxicity.sample.test=100", "own"),
        ("toxicity", "tasks.toxicity.data.test.where=null", "paper"),  # the whole half: the other reading of 4.4
        ("toxicity", "tasks.toxicity.data.test_train={path: 'hub:lmsys/toxic-chat', split: train}", "paper"),
        ("toxicity", "tasks.toxicity.data.test_train={path: mine.csv}", "own"),
        ("toxicity", "tasks.toxicity.data.seed.path=mine.csv", "paper"),  # trained on one's own, tested on the paper's
        ("reward", "tasks.reward.data.test.path=mine.jsonl", "own"),
        ("reward", "tasks.reward.data.test.split=raw", "own"),
        ("sycophancy", "tasks.sycophancy.data.test.limit=10", "own"),
        ("instruction", "tasks.instruction.data.test.path=mine.json", "own"),
    ],
)
def test_a_test_set_of_one_s_own_is_not_the_paper_s(task: str, change: str, kind: str, caa: list[str]):
    found = kinds("scale=paper", *caa, change)
    assert found == dict.fromkeys(TASKS, "paper") | {task: kind}


def test_caa_s_questions_are_known_by_their_bytes(real_data: Any, tmp_path: Path):
    file = real_data("caa") / "test" / "sycophancy" / "test_dataset_ab.json"
    assert labels.is_caa_test("sycophancy", file)
    assert not labels.is_caa_test("survival-instinct", file)
    moved = tmp_path / "test_dataset_ab.json"
    moved.write_bytes(file.read_bytes())
    assert labels.is_caa_test("sycophancy", moved)
    moved.write_bytes(file.read_bytes().replace(b"conservative", b"progressive", 1))
    assert not labels.is_caa_test("sycophancy", moved)
    assert not labels.is_caa_test("sycophancy", tmp_path / "gone.json")


def test_table_1_stands_beside_its_own_model_on_its_own_test_only():
    assert labels.stands_beside("paper", "llama31_8b")
    assert labels.stands_beside("lab", "lab_llama")
    assert not labels.stands_beside("own", "llama31_8b")
    assert not labels.stands_beside("paper", "qwen2_7b")
    assert not labels.stands_beside("lab", "lab_mistral")
    assert not labels.stands_beside("paper", "llama31_8b", "validation")


def test_numbers_of_heads_and_of_adapters_are_never_mixed():
    toxicity, reward = TASKS["toxicity"], TASKS["reward"]
    for task, row, mode, mean in (
        (toxicity, "fac", "lora", 62.60),
        (toxicity, "fac", "head", 49.12),
        (reward, "fac", "lora", 76.22),
        (reward, "fac", "head", 74.76),
        (toxicity, "random_features", "lora", 50.61),
    ):
        found = labels.table_1(task, row, ClassifierSettings(mode=mode))
        assert found is not None
        assert found.mean == mean
    assert labels.table_1(toxicity, "random_features", ClassifierSettings(mode="head")) is None
    assert labels.table_1(TASKS["survival"], "full") == paper_table("table1").get("full", "survival")
    assert labels.table_1(TASKS["instruction"], "fac") is None  # of another judge


def test_the_paper_s_corpus_is_all_of_its_parts():
    run = read_config(["experiment=sae", "scale=paper", "+corpus@data.parts=paper"])
    parts = {name: part.source for name, part in run.parts.items()}
    assert labels.is_papers_corpus(parts)
    assert not labels.is_papers_corpus({**parts, "sharegpt": Source(Path("mine.json"))})
    assert not labels.is_papers_corpus(dict(list(parts.items())[1:]))
    assert not labels.is_papers_corpus({"corpus": Source(Path("mine.txt"))})
