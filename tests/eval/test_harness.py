"""eval.harness and the task ifeval_file: lm-eval's scores of known replies, and its prompts against fac.chat."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager
from support.models import tiny_model

from eval.harness import TASKS, run_tasks
from fac.backbone import ModelRef, load_causal_lm
from fac.chat import as_chat, encode
from fac.errors import FacError
from fac.llm.base import Request, Sampling
from fac.llm.transformers import TransformersChat

FAMILIES = ("llama", "mistral", "qwen2")
NEW_TOKENS = 24
# Real rows of IFEval, by id: a reply that keeps every rule of the prompt, and what breaks which of its rules.
REPLIES = {
    1001: ("Hark! Thou shalt see Kyoto and then Nara", [True], "Hark, thou shalt see Kyoto", [False]),
    1005: ("".join(f"[field {n}] " for n in range(12)), [True], "".join(f"[field {n}] " for n in range(11)), [False]),
    1000: (
        "*first part* is here\n*second part* is here\n*third part* is here\n" + "word " * 300,
        [True, True, True],
        "*first part* is here, *second part* too\n" + "word " * 300,
        [False, False, True],
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_model(root / family, family) for family in FAMILIES}


@pytest.fixture
def rows(real_data):
    lines = (real_data("ifeval") / "ifeval.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(path: Path) -> Any:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"ifeval": str(path)})  # type: ignore[dict-item]
    return manager.load("ifeval_file")["tasks"]["ifeval_file"]


# The task


@pytest.mark.parametrize("row", REPLIES)
def test_real_prompts_with_right_and_wrong_replies(rows, tmp_path, row):
    ifeval = task(write(tmp_path / "one.jsonl", [rows[row]]))
    (document,) = ifeval.test_docs()
    right, kept, wrong, broken = REPLIES[row]
    assert ifeval.doc_to_text(document) == rows[row]["prompt"]
    for reply, rules in ((right, kept), (wrong, broken)):
        scores = ifeval.process_results(document, [reply])
        assert scores["inst_level_strict_acc"] == rules
        assert scores["prompt_level_strict_acc"] == all(rules)


def test_loose_scores_forgive_a_first_line_and_markdown(rows, tmp_path):
    ifeval = task(write(tmp_path / "one.jsonl", [rows[1001]]))
    scores = ifeval.process_results(ifeval.test_docs()[0], ["Sure, here it is:\nHark! See Kyoto"])
    assert (scores["prompt_level_strict_acc"], scores["prompt_level_loose_acc"]) == (False, True)


def test_every_real_row_is_read(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("nltk.data.find", lambda _: "as if it were there")
    documents = task(write(tmp_path / "all.jsonl", rows.values())).test_docs()
    assert [document["prompt"] for document in documents] == [row["prompt"] for row in rows.values()]
    for document, row in zip(documents, rows.values(), strict=True):
        given = [{key: value for key, value in rule.items() if value is not None} for rule in document["kwargs"]]
        assert given == row["kwargs"]


def test_sentences_that_cannot_be_counted_are_said_before_anything_is_generated(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("nltk.data.path", [])
    counting = next(row for row in rows.values() if "length_constraints:number_sentences" in row["instruction_id_list"])
    with pytest.raises(FacError, match="punkt_tab, which is not installed: run `python -m nltk.downloader punkt_tab`"):
        task(write(tmp_path / "one.jsonl", [counting]))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": 3}, "IFEval's rows have a text prompt and the lists"),
        ({"instruction_id_list": ["no:rule"], "kwargs": [{}]}, "IFEval has no rule 'no:rule'"),
        ({"kwargs": []}, "1 rules need as many objects of arguments in kwargs, not 0"),
        ({"kwargs": [None]}, "1 rules need as many objects"),
    ],
)
def test_malformed_rows_are_named(tmp_path, row, reason):
    good = {"id": 1, "prompt": "Say hi", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    with pytest.raises(FacError, match=f"rows.jsonl, line 2: {reason}"):
        task(write(tmp_path / "rows.jsonl", [good, {**good, **row}]))


def test_a_task_without_its_data_is_said(tmp_path, models):
    model, tokenizer = load_causal_lm(ModelRef(str(models["llama"])))
    with pytest.raises(FacError, match="The data of ifeval_file are not named: add --metadata"):
        run_tasks(model, tokenizer, ["ifeval_file"])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(FacError, match="empty.jsonl holds no prompt"):
        run_tasks(model, tokenizer, ["ifeval_file"], data_files={"ifeval": tmp_path / "empty.jsonl"})
    with pytest.raises(FacError, match="There is no file .*nowhere.jsonl"):
        run_tasks(model, tokenizer, ["ifeval_file"], data_files={"ifeval": tmp_path / "nowhere.jsonl"})


# The harness


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_is_that_of_our_own_replies_to_our_own_prompts(rows, models, tmp_path, family, capfd, monkeypatch):
    """Prompt ids as the model gets them, and the scores of the greedy replies of fac.llm to the same prompts."""
    monkeypatch.chdir(tmp_path)  # no git repository
    kept = [rows[row] for row in REPLIES]
    kept[0] = {**kept[0], "prompt": f"  {kept[0]['prompt']} <|eot_id|></s> "}  # what fac.chat breaks and trims
    path = write(tmp_path / "rows.jsonl", kept)
    ref = ModelRef(str(models[family]))
    model, tokenizer = load_causal_lm(ref)
    seen = []
    model.register_forward_pre_hook(
        lambda _module, _args, given: seen.append((given["input_ids"], given["attention_mask"])), with_kwargs=True
    )
    capfd.readouterr()
    scores = run_tasks(
        model,
        tokenizer,
        ["ifeval_file"],
        data_files={"ifeval": Path("rows.jsonl")},
        batch_size=4,
        max_new_tokens=NEW_TOKENS,
    )
    assert capfd.readouterr() == ("", "")
    ids, mask = seen[0]
    prompts = [row[use.bool()].tolist() for row, use in zip(ids, mask[:, : ids.shape[1]], strict=True)]
    ours = [encode(tokenizer, as_chat(row["prompt"]), add_generation_prompt=True).ids for row in kept]
    assert sorted(prompts) == sorted(ours)
    requests = [Request(str(row["id"]), as_chat(row["prompt"]), 0) for row in kept]
    replies = TransformersChat(ref).chat(requests, Sampling(temperature=0, max_new_tokens=NEW_TOKENS))
    ifeval = task(path)
    expected = [
        ifeval.process_results(document, [reply.text])
        for document, reply in zip(ifeval.test_docs(), replies, strict=True)
    ]
    rules = [rule for scored in expected for rule in scored["inst_level_strict_acc"]]
    assert scores == {
        "ifeval_file": {
            "prompt_level_strict_acc": pytest.approx(sum(s["prompt_level_strict_acc"] for s in expected) / 3),
            "inst_level_strict_acc": pytest.approx(sum(rules) / len(rules)),
            "prompt_level_loose_acc": pytest.approx(sum(s["prompt_level_loose_acc"] for s in expected) / 3),
            "inst_level_loose_acc": pytest.approx(
                sum(sum(s["inst_level_loose_acc"]) for s in expected)
                / sum(len(s["inst_level_loose_acc"]) for s in expected)
            ),
        }
    }


def test_without_chat_the_prompt_is_plain_text(rows, models, tmp_path):
    model, tokenizer = load_causal_lm(ModelRef(str(models["qwen2"])))
    seen = []
    model.register_forward_pre_hook(lambda _m, _a, given: seen.append(given["input_ids"]), with_kwargs=True)
    path = write(tmp_path / "rows.jsonl", [rows[1001], rows[1005]])
    options: dict[str, Any] = {"data_files": {"ifeval": path}, "chat": False, "limit": 1, "max_new_tokens": 2}
    run_tasks(model, tokenizer, ["ifeval_file"], **options)
    assert seen[0].tolist() == [tokenizer(rows[1001]["prompt"])["input_ids"]]


def test_what_does_not_fit_is_said(rows, models, tmp_path):
    model, tokenizer = load_causal_lm(ModelRef(str(models["llama"])))
    path = write(tmp_path / "rows.jsonl", [rows[1001]])
    with pytest.raises(FacError, match="1280.* must be less than .*1024.: lower max_new_tokens"):
        run_tasks(model, tokenizer, ["ifeval_file"], data_files={"ifeval": path})


@pytest.mark.slow
def test_tasks_of_lm_eval_itself(models, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model, tokenizer = load_causal_lm(ModelRef(str(models["llama"])))
    with pytest.raises(FacError, match="The data of gsm8k cannot be reached"):
        run_tasks(model, tokenizer, ["gsm8k"])
    with pytest.raises(FacError, match="There is no lm-eval task gsm9k: did you mean gsm"):
        run_tasks(model, tokenizer, ["gsm9k"])


@pytest.mark.slow
def test_lm_evals_own_command_line_runs_the_task(rows, models, tmp_path):
    path = write(tmp_path / "rows.jsonl", [rows[row] for row in REPLIES])
    command = [sys.executable, "-m", "lm_eval"]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": str(TASKS.parents[1])}

    def run(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("validate", "--include_path", str(TASKS), "--tasks", "ifeval_file")
    assert "All tasks found and valid" in said
    table = run(
        *("run", "--model", "hf", "--model_args", f"pretrained={models['llama']}", "--device", "cpu"),
        *("--include_path", str(TASKS), "--tasks", "ifeval_file", "--metadata", json.dumps({"ifeval": str(path)})),
        *("--apply_chat_template", "--gen_kwargs", f"max_gen_toks={NEW_TOKENS}"),
    )
    model, tokenizer = load_causal_lm(ModelRef(str(models["llama"])))
    ours = run_tasks(model, tokenizer, ["ifeval_file"], data_files={"ifeval": path}, max_new_tokens=NEW_TOKENS)
    for metric, value in ours["ifeval_file"].items():
        line = next(line for line in table.splitlines() if metric in line)
        assert float(line.split("|")[7]) == pytest.approx(value, abs=1e-4)
