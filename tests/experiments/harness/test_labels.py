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
from fac.train.settings import ClassifierSettings


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
    assert set(kinds("model.path=/models/mine").values()) == {"own model"}
    assert set(kinds("sae.path=/models/mine/sae").values()) == {"own model"}
    assert set(kinds("sae.release=r", "sae.id=i").values()) == {"own model"}
    assert set(kinds("sae=train").values()) == {"lab"}  # on the lab's own texts
    assert set(kinds("llm=openai", "llm.model=gpt-4o-mini-2024-07-18").values()) == {"own model"}
    assert set(kinds("llm.path=lab:mistral").values()) == {"lab"}


def test_the_paper_s_setting_is_its_model_on_its_test_set(caa: list[str]):
    assert kinds("scale=paper", *caa) == dict.fromkeys(TASKS, "paper")
    assert set(kinds("scale=paper", "model=qwen2_7b", *caa).values()) == {"paper"}
    assert set(kinds("scale=paper", "model.path=/models/mine", *caa).values()) == {"own model"}
    local = ("model=local", "model.path=/models/mine", "sae.release=r")
    assert set(kinds("scale=paper", *local, *caa).values()) == {"own model"}
    assert set(kinds("scale=paper", "model=lab_llama", *caa).values()) == {"own model"}


@pytest.mark.parametrize(
    ("task", "change", "kind"),
    [
        ("toxicity", "tasks.toxicity.data.test.path=mine.csv", "own data"),
        ("toxicity", "tasks.toxicity.data.test.split=train", "own data"),
        ("toxicity", "tasks.toxicity.data.test.label=jailbreaking", "own data"),
        ("toxicity", "tasks.toxicity.data.test.limit=100", "own data"),
        ("toxicity", "tasks.toxicity.sample.test=100", "own data"),
        ("toxicity", "tasks.toxicity.data.test.where=null", "paper"),  # the whole half: the other reading of 4.4
        ("toxicity", "tasks.toxicity.data.test_train={path: 'hub:lmsys/toxic-chat', split: train}", "paper"),
        ("toxicity", "tasks.toxicity.data.test_train={path: mine.csv}", "own data"),
        ("toxicity", "tasks.toxicity.data.seed.path=mine.csv", "paper"),  # trained on one's own, tested on the paper's
        ("reward", "tasks.reward.data.test.path=mine.jsonl", "own data"),
        ("reward", "tasks.reward.data.test.split=raw", "own data"),
        ("sycophancy", "tasks.sycophancy.data.test.limit=10", "own data"),
        ("instruction", "tasks.instruction.data.test.path=mine.json", "own data"),
    ],
)
def test_a_test_set_of_one_s_own_is_not_the_paper_s(task: str, change: str, kind: str, caa: list[str]):
    found = kinds("scale=paper", *caa, change)
    assert found == dict.fromkeys(TASKS, "paper") | {task: kind}


NOT_THEIRS = "neither the lab's nor the paper's setting, so the paper's numbers do not stand beside these"
TOLD = {
    "lab": ([], LAB_LABEL),
    "own model": (["model.path=/models/Mine-7B"], f"OWN MODEL: model Mine-7B on the lab's world; {NOT_THEIRS}"),
    "another SAE": (
        ["sae.release=r", "sae.id=i"],
        f"OWN MODEL: the lab's model lab_llama with an SAE of one's own on the lab's world; {NOT_THEIRS}",
    ),
    "another writer": (
        ["llm=openai", "llm.model=gpt-4o-mini-2024-07-18"],
        f"OWN MODEL: the lab's model lab_llama with gpt-4o-mini-2024-07-18 on the lab's world; {NOT_THEIRS}",
    ),
    "paper": (["scale=paper"], ""),
    "own model at the paper's scale": (
        ["scale=paper", "model.path=/models/mine"],
        f"OWN MODEL: model mine on toxic-chat, reward-bench; {NOT_THEIRS}",
    ),
    "own test": (
        ["scale=paper", "tasks.toxicity.data.test.path=mine.csv", "tasks.reward.data.test.path=b.jsonl"],
        f"OWN DATA: model llama31_8b on mine.csv, b.jsonl; {NOT_THEIRS}",
    ),
    "own test of one task": (
        ["scale=paper", "tasks.toxicity.data.test.path=mine.csv"],
        "OWN DATA: model llama31_8b on mine.csv, reward-bench; in part not the paper's setting, and there its numbers "
        "do not stand beside these",
    ),
    "own model on own test": (
        ["scale=paper", "model=local", "model.path=mine", "sae.release=r",
         "tasks.toxicity.data.test.path=a.csv", "tasks.reward.data.test.path=b.jsonl"],
        f"OWN DATA AND MODEL: model mine on a.csv, b.jsonl; {NOT_THEIRS}",
    ),
    "the lab's model at the paper's scale": (
        ["scale=paper", "model=lab_llama"],
        f"OWN MODEL: the lab's model lab_llama on toxic-chat, reward-bench; {NOT_THEIRS}",
    ),
    "own training data": (
        ["scale=paper", "tasks.toxicity.data.seed.path=mine.csv"],
        "OWN DATA: trained on mine.csv (tasks.toxicity.data.seed), and tested as in the paper",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_a_label_names_the_model_and_the_data_as_what_they_are(case: str):
    overrides, told = TOLD[case]
    run = read_config(["experiment=main_results", "experiment.tasks=[toxicity,reward]", *overrides])
    kinds: list[labels.Kind] = [labels.kind_of(run, task, [run.model.name]) for task in run.experiment.tasks]
    assert labels.label(kinds, run) == told
    assert ("LAB RESULT" in told) == (case == "lab")


def test_a_model_of_one_s_own_is_not_called_as_the_file_whose_path_it_took():
    for overrides, name in {
        ("model.path=/models/Mine-7B/",): "Mine-7B",
        ("model=local", "model.path=someone/their-model", "sae.release=r"): "their-model",
        ("model.path=lab:mistral",): "lab_mistral",
        ("model.path=lab:llama",): "lab_llama",
        ("scale=paper", "model.path=meta-llama/Llama-3.1-8B-Instruct"): "llama31_8b",
        ("model.path=/models/mine", "model.name=first"): "first",
    }.items():
        run = read_config(["experiment=lab", *overrides])
        assert run.model.name == run.values["model"]["name"] == name
        assert run.for_model(name) is run
    local = read_config(["experiment=lab", "model=local", "model.path=/models/mine", "sae.release=r"])
    assert local.for_model("local") is local
    own = read_config(["experiment=lab", "model.path=/models/mine"])
    assert labels.is_shipped(own.for_model("lab_llama").model.ref)


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
    for own in labels.OWN:
        assert not labels.stands_beside(own, "llama31_8b")
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
