"""scale=paper with real rows and the lab's small models: every task from data sets on disk to its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import fac_here
from support.openai_server import FaultyServer

from experiments.harness.results import Table

METHODS = "experiment.methods=[base,baseline,full,fac]"
SMALL = [
    "scale=paper",
    "model.path=lab:llama",
    "model.revision=null",
    "model.sae=lab:llama/sae",
    "annotator=writer",
    "features.batch_tokens=4096",
    "features.encode_elements=33554432",
    "features.max_tokens=24",
    "interpret.spans=1",
    "interpret.span_tokens=4",
    "interpret.max_new_tokens=12",
    "synthesis.n=1",
    "synthesis.m=1",
    "synthesis.ratio=0.05",
    "seeds.training=[42]",
    "workers=1",
    "tracking.enabled=false",
    "out=out",
]


def toxicity(root: Callable[[str], Path]) -> list[str]:
    chat, red_team = root("toxicchat"), root("hh_rlhf") / "harmless-base_test.jsonl.gz"
    labels = "annotations.toxicity.majority_human"
    train = [
        f"tasks.toxicity.data.{role}={{path: {chat}/toxic_chat_train.json, text: instance, label: {labels}}}"
        for role in ("anchor", "safe", "labelled")
    ]
    return [
        *train,
        f"tasks.toxicity.data.anchor_red_team.path={red_team}",
        f"tasks.toxicity.data.anchor_helpsteer2={{path: {root('ultrafeedback')}/train_clean.jsonl, dedup: false}}",
        f"tasks.toxicity.data.seed.path={red_team}",
        "tasks.toxicity.data.seed_red_team=null",
        "+tasks.toxicity.data.safe.where={annotations.toxicity.majority_human: 0}",
        f"tasks.toxicity.data.toxic.path={red_team}",
        f"tasks.toxicity.data.human.path={red_team}",
        f"tasks.toxicity.data.test={{path: {chat}/toxic_chat_test.json, text: instance, label: {labels}, where: null}}",
        "tasks.toxicity.data.validation=null",
        "tasks.toxicity.sample={anchor: 6, seed: 4, safe: 24, toxic: 12, human: 30, test: 60, labelled: 20}",
    ]


def reward(root: Callable[[str], Path]) -> list[str]:
    pairs, harmless = root("ultrafeedback") / "train_clean.jsonl", root("hh_rlhf") / "harmless-base_test.jsonl.gz"
    return [
        f"tasks.reward.data.anchor.path={pairs}",
        f"+tasks.reward.data.anchor_harmless={{path: {harmless}, on_error: skip}}",
        f"tasks.reward.data.seed.path={harmless}",
        f"tasks.reward.data.human.path={pairs}",
        f"tasks.reward.data.test.path={root('llmbar')}/LLMBar/Natural/dataset.json",
        f"+tasks.reward.data.test_rm_bench={{path: {root('rm_bench')}/chat_filtered.json}}",
        "tasks.reward.data.validation=null",
        "tasks.reward.sample={anchor: 4, seed: 4, human: 8, test: 16}",
    ]


def steering(task: str, name: str) -> Callable[[Callable[[str], Path]], list[str]]:
    def overrides(root: Callable[[str], Path]) -> list[str]:
        generate = root("caa") / "generate" / name / "generate_dataset.json"
        return [
            *(f"tasks.{task}.data.{role}.path={generate}" for role in ("anchor", "seed", "human")),
            f"tasks.{task}.data.test.path={root('caa')}/test/{name}/test_dataset_ab.json",
            f"tasks.{task}.sample={{anchor: 10, seed: 2, human: 6, test: 4}}",
            f"tasks.{task}.train.layer=2",
            "features.max_tokens=64",  # CAA's questions begin alike
        ]

    return overrides


def instruction(root: Callable[[str], Path]) -> list[str]:
    return [
        "model.base=lab:llama/base",
        f"tasks.instruction.data.anchor.path={root('alpaca')}/alpaca_5000.json",
        f"tasks.instruction.data.anchor_helpsteer2.path={root('ultrafeedback')}/train_clean.jsonl",
        f"tasks.instruction.data.seed.path={root('alpaca')}/alpaca_5000.json",
        f"tasks.instruction.data.human.path={root('lima')}/lima.json",
        f"tasks.instruction.data.test.path={root('alpaca_eval')}/model_outputs/gpt4_1106_preview.json",
        "tasks.instruction.sample={anchor: 6, seed: 6, human: 8, test: 6}",
        "tasks.instruction.evaluation={annotator: compare, answer_tokens: 16, judge_tokens: 12, benchmarks: []}",
        "tasks.instruction.evaluation.prompts=lab/instruction",
        *(f"annotator.roles.compare.{setting}=null" for setting in ("key_env", "budget_usd")),
    ]


TASKS = {
    "toxicity": toxicity,
    "reward": reward,
    "sycophancy": steering("sycophancy", "sycophancy"),
    "survival": steering("survival", "survival-instinct"),
    "instruction": instruction,
}


def tiny(task: str) -> list[str]:
    """Little training, in the lab's own prompts, which its model can answer."""
    longest = 400 if task == "instruction" else 96
    trained = ["epochs=1", f"max_tokens={longest}", "batch_size=8", "gradient_accumulation=1"]
    return [
        f"tasks.{task}.prompts=lab/{task}",
        f"tasks.{task}.max_new_tokens=60",
        f"tasks.{task}.budget=4",
        *(f"tasks.{task}.train.{setting}" for setting in trained if task not in ("sycophancy", "survival")),
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What several of the tests need, made once: a setting of the command line."""
    return f"paths.store={tmp_path_factory.mktemp('shared') / 'store'}"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_real_rows_make_a_table(task: str, store: str, real_data: Callable[[str], Path], tmp_path: Path):
    overrides = [store, *SMALL, *TASKS[task](real_data), *tiny(task)]
    with FaultyServer(lambda body: "[[first]]") as judge:  # the tiny model gives no verdicts on real answers
        overrides += [f"annotator.roles.compare.url={judge.url}"] if task == "instruction" else []
        done = fac_here("experiment=main_results", METHODS, f"experiment.tasks=[{task}]", *overrides, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert table.scale == "paper"
    assert "data seed 0" in table.title
    for row in table.rows:
        if row == "base" and task != "instruction":
            continue
        cell = table.cell(row, task)
        assert cell is not None, row
        assert (-100 if task in ("sycophancy", "survival") else 0) <= cell.mean <= 100
        assert task != "instruction" or cell.paper is None  # of another judge
    if task == "instruction":
        said = f"judged by openai:gpt-4-1106-preview@{judge.url} with lab/instruction/compare.jinja"
        assert table.names["instruction"] == f"Instruction following WR, alone, {said}"
        assert any("The writer's answers are drawn at temperature 0.8, top-p 0.9" in note for note in table.notes)
        assert any("LC is there where AlpacaEval's own annotator judged" in note for note in table.notes)
        assert "instruction_lc" not in table.columns


@pytest.mark.slow
def test_what_one_model_writes_from_real_rows_trains_another_run_s(
    store: str, real_data: Callable[[str], Path], tmp_path: Path
):
    name = "lab_llama"  # whose weights stand in
    alone = [f"experiment.{role}=[{name}]" for role in ("sources", "writers", "trained")]
    rows = [store, *TASKS["sycophancy"](real_data), *tiny("sycophancy")]
    done = fac_here("experiment=cross_model", "experiment.task=sycophancy", *alone, *SMALL, *rows, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert table.rows == ("baseline", f"{name}+{name}")
    assert table.columns == (name, f"{name}_gain", "written_rows", "written_fac", "written_ratio")
    assert "data seed 0" in table.title
