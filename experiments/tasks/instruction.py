"""Instruction following: instructions are written and answered, a base model is fine-tuned on them, and judged.

In the lab an answer is checked by the rules that stand beside each test instruction, and compared with the instruct
model's own answer by the instruct model as judge, as AlpacaEval compares with GPT-4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.cells import Job
from experiments.tasks.base import Task, load_rows
from experiments.tasks.data import TaskData
from fac.backbone import ModelRef
from fac.chat import as_chat, exchange
from fac.lab.world.grammar import names_in
from fac.lab.world.instructions import Rule
from fac.llm.base import ChatModel, Request, Sampling, ask, request_seed
from fac.llm.transformers import TransformersChat
from fac.prompts import Prompts
from fac.store import Artifact, Store
from fac.synthesis.forms import INSTRUCTION
from fac.synthesis.two_step import Settings
from fac.train.sft import SftSettings

ANSWERS = "answers.json"
GREEDY = Sampling(temperature=0.0, max_new_tokens=60)
JUDGING = Sampling(temperature=0.0, max_new_tokens=12)
JUDGE_SEED = 0


def train(job: Job, folder: Path) -> None:
    """A LoRA adapter of the base model."""
    from fac.train.sft import train_sft

    rows = [json.loads(row) for row in load_rows(job.train)]
    chats = [exchange(row["instruction"], row["output"]) for row in rows if row["output"].strip()]
    log = train_sft(job.model.path, job.model.revision, chats, job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Job, trained: Path, folder: Path) -> dict[str, float]:
    """Share of instructions followed to the letter, and the win rate over the reference answers."""
    from eval.alpaca import annotate, win_rate
    from fac.train.sft import load_sft

    assert job.judge is not None
    rows = [json.loads(row) for row in load_rows([job.test])]
    answers = answer(TransformersChat(load_sft(trained, job.model.path)), [row["instruction"] for row in rows], folder)
    reference = json.loads((job.others["reference"].path / ANSWERS).read_text())
    compared = [
        {"instruction": row["instruction"], "output_1": theirs, "output_2": ours,
         "generator_1": "instruct model", "generator_2": "trained"}
        for row, theirs, ours in zip(rows, reference, answers, strict=True)
    ]  # fmt: skip
    judged = annotate(
        TransformersChat(job.judge), compared, Prompts("lab/instruction"), seed=JUDGE_SEED,
        log=folder / "judge.jsonl", sampling=JUDGING, both_orders=True,
    )  # fmt: skip
    return {
        "win_rate": win_rate(judged.annotations).rate / 100,
        "unreadable": judged.unreadable / len(rows),
        "followed": sum(is_followed(row, text) for row, text in zip(rows, answers, strict=True)) / len(rows),
        "reference_followed": sum(is_followed(r, text) for r, text in zip(rows, reference, strict=True)) / len(rows),
    }


def answer(model: ChatModel, instructions: Sequence[str], folder: Path) -> list[str]:
    """Greedy answers, in order."""
    requests = [Request(str(i), as_chat(text), request_seed(0, i)) for i, text in enumerate(instructions)]
    replies = ask(model, requests, GREEDY, folder / "replies.jsonl", "answering instructions")
    return [replies[request.id].text for request in requests]


def is_followed(row: dict, answer: str) -> bool:
    """Whether an answer follows every rule of a test row and names all that is asked for."""
    rules = [Rule(rule["start"], rule["end"], tuple(rule["hold"])) for rule in row["rules"]]
    return all(rule.holds(answer) for rule in rules) and set(row["subjects"]) <= names_in(answer)


def finish(store: Store, rows: Sequence[str], writer: ChatModel, settings: Settings) -> list[str]:
    """Rows with the writer's answer where there is none yet (paper section 5: step b of the synthesis prompt)."""
    open_rows = [json.loads(row) for row in rows if not json.loads(row)["output"]]
    if not open_rows:
        return list(rows)
    instructions = [row["instruction"] for row in open_rows]
    found = answered(store, writer, instructions)
    answers = dict(zip(instructions, json.loads((found.path / ANSWERS).read_text()), strict=True))
    done = [{**row, "output": row["output"] or answers[row["instruction"]]} for row in map(json.loads, rows)]
    return [json.dumps(row) for row in done]


def others(store: Store, data: TaskData, model: ModelRef) -> dict[str, Artifact]:
    """The reference: the instruct model's own answers to the test instructions."""
    instructions = [json.loads(row)["instruction"] for row in load_rows([data.test])]
    return {"reference": answered(store, TransformersChat(model), instructions)}


def answered(store: Store, model: ChatModel, instructions: Sequence[str]) -> Artifact:
    """A model's greedy answers, through the store."""

    def build(folder: Path) -> None:
        (folder / ANSWERS).write_text(json.dumps(answer(model, instructions, folder)))

    params = {"model": model.identity, "instructions": instructions, "sampling": GREEDY}
    return store.stage("answers", build, params=params, resumable=True)


TASK = Task(
    "instruction",
    "win_rate",
    "wr",
    "Instruction following WR",
    INSTRUCTION,
    SftSettings,
    "sft",
    train,
    test,
    note="win rate over the instruct model's answers, judged by that model in both orders (the paper's: AlpacaEval "
    "2's WR against GPT-4-Turbo); followed: the share of instructions whose rules, checked by code, the answer keeps.",
    also={"followed": "followed"},
    from_base=True,
    finish=finish,
    others=others,
)
