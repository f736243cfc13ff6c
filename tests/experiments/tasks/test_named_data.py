"""The data sets and models that the paper's scale names, for every task, experiment and model."""

import json
from pathlib import Path

import pytest

from experiments.harness.config import RunConfig, read_config
from experiments.tasks import TASKS
from experiments.tasks.sources import sets_of
from fac.data.source import Source

COUNTS = {"toxicity": {"seed": 8637, "safe": 1000, "toxic": 200}, "reward": {"seed": 4000}}


def read(*settings: str) -> RunConfig:
    return read_config(["experiment=main_results", "scale=paper", *settings])


def test_every_task_s_data_are_named_at_paper_scale():
    run = read("interpret.judge=statistical")
    for name, task in TASKS.items():
        config = run.tasks[name]
        assert config.sizes is None
        assert set(task.roles) <= {told.split("_")[0] for told in config.data}
        assert all(str(source.path).startswith(("hub:", "CAA/")) for source in config.data.values())
        for role, count in COUNTS.get(name, {}).items():
            assert config.sample[role] == count  # App. J and the released code
        assert config.prompts.startswith("paper/")
    assert [config.full for config in run.tasks.values()] == ["budget", "all", "all", "all", "all"]


def test_a_set_is_named_anew_or_left_out_on_the_command_line(tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"text": "hello"}))
    config = read(
        f"tasks.toxicity.data.test.path={file}",
        "tasks.toxicity.data.test.where=null",
        "tasks.toxicity.data.anchor_helpsteer2=null",
        "tasks.toxicity.sample.anchor=8637",
        "+tasks.toxicity.data.anchor_mine={path: x.txt, limit: 3}",
    ).tasks["toxicity"]
    assert config.data["test"] == Source(file, "test", "user_input", "toxicity")
    assert list(sets_of(config, "anchor")) == ["anchor", "anchor_red_team", "anchor_mine"]
    assert config.sample["anchor"] == 8637


PAPER_MODELS = {  # with their SAEs
    "llama31_8b": ("meta-llama/Llama-3.1-8B-Instruct", "sae_llama_l16_h65536"),
    "mistral_7b": ("mistralai/Mistral-7B-Instruct-v0.2", "sae_mistral_l16_h65536"),
    "qwen2_7b": ("Qwen/Qwen2-7B-Instruct", "sae_qwen_l14_h65536"),
}
OPEN = {  # what must be given
    "coverage": ("data.anchor.path=x", "data.seed.path=y"),
    "reward": ("data.train.path=x", "data.test.path=y"),
    "steering": ("experiment.behavior=sycophancy",),
}
OTHERS = ("cross_model", "lab", "coverage", "matching", "reward", "steering", "sae")


@pytest.mark.parametrize(
    ("experiment", "model"),
    [*(("main_results", model) for model in PAPER_MODELS), *((name, "llama31_8b") for name in OTHERS)],
)
def test_the_paper_s_scale_composes_for_every_experiment_and_model(experiment: str, model: str):
    run = read(f"experiment={experiment}", f"model={model}", *OPEN.get(experiment, ()))
    assert run.model.path == PAPER_MODELS[model][0]
    assert str(run.sae).count(PAPER_MODELS[model][1]) == 1
    assert run.thresholds.default == "0.0"
    assert run.synthesis("toxicity").temperature == 0.8
    annotators = run.llms.annotators
    assert getattr(annotators["judge"].settings, "model", "") == "gpt-4o-mini-2024-07-18"
    assert getattr(annotators["compare"].settings, "model", "") == "gpt-4-1106-preview"
