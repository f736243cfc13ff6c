"""fac.data.instructions: every layout gives the question and its answer, as they stand."""

import json
from pathlib import Path

import pytest

from fac.data.examples import LoadReport
from fac.data.instructions import Instruction, read_instructions
from fac.data.source import Source
from fac.errors import FacError

SAID = (("system", "Be kind."), ("user", "how"), ("assistant", "so"))
CHAT = [{"role": role, "content": words} for role, words in SAID]


def read(tmp_path: Path, *rows: dict, **options) -> list[Instruction]:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_instructions(Source(file, name="seed", **options)))


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"instruction": "how", "input": "", "output": "so"}, "how", "so"),
        ({"instruction": "add", "input": "1 2", "output": "3"}, "add\n\n1 2", "3"),
        ({"instruction": "how ", "output": " so\n", "generator": "x"}, "how ", " so\n"),  # AlpacaEval counts characters
        ({"instruction": "how"}, "how", ""),
        ({"instruction": "how", "input": None, "output": None}, "how", ""),
        ({"messages": CHAT}, "how", "so"),
        ({"messages": CHAT[:2]}, "how", ""),
        ({"messages": [*CHAT[1:], {"role": "user", "content": "more"}]}, "how", "so"),
        ({"conversations": [{"from": "human", "value": "how"}, {"from": "gpt", "value": "so"}]}, "how", "so"),
        ({"conversations": ["how", "so", "and", "then"]}, "how", "so"),
        ({"chosen": "\n\nHuman: how\n\nAssistant: so\n\nHuman: and", "rejected": "x"}, "how", "so"),
        ({"prompt": "how", "response": "so", "helpfulness": 4}, "how", "so"),
        ({"prompt": "how", "chosen": "so", "rejected": "no"}, "how", ""),
        ({"question": "how", "answer": "so"}, "how", "so"),
    ],
)
def test_every_layout(tmp_path: Path, row: dict, question: str, answer: str):
    assert read(tmp_path, row) == [Instruction(question, answer)]


def test_a_column_may_be_named(tmp_path: Path):
    row = {"ask": "how", "more": "now", "output": "so", "data": ["one", "two", "three"], "instruction": "not this"}
    assert read(tmp_path, row, text="ask") == [Instruction("how", "so")]
    assert read(tmp_path, row, text=("ask", "more")) == [Instruction("how\n\nnow", "so")]
    assert read(tmp_path, row, text="data") == [Instruction("one", "two")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": " ", "output": "so"}, "the instruction is empty"),
        ({"answer": "so"}, "no instruction, conversation or prompt .found: answer"),
        ({"messages": CHAT[2:]}, "the user says nothing"),
        ({"conversations": ["alone"]}, "turn 1 is not an object"),
        ({"instruction": "how", "input": 3}, "input is not a text but int"),
    ],
)
def test_malformed_rows_are_named_or_skipped(tmp_path: Path, row: dict, said: str):
    with pytest.raises(FacError, match=rf"line 1: .*{said}"):
        read(tmp_path, row)
    report = LoadReport()
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps({"instruction": "how"}) + "\n")
    assert list(read_instructions(Source(file, on_error="skip"), report)) == [Instruction("how")]
    assert (report.rows, report.skipped) == (1, 1)


@pytest.mark.parametrize(
    ("name", "file", "rows", "answers"),
    [
        ("lima", "lima.json", 1029, 1029),
        ("alpaca", "alpaca_5000.json", 5000, 4998),
        ("alpaca_eval", "model_outputs/gpt4_1106_preview.json", 805, 805),
        ("ifeval", "ifeval.jsonl", 541, 0),
        ("ultrafeedback", "train_clean.jsonl", 1000, 0),
    ],
)
def test_real_data_sets(real_data, name: str, file: str, rows: int, answers: int):
    found = list(read_instructions(Source(real_data(name) / file)))
    assert (len(found), sum(bool(i.output) for i in found)) == (rows, answers)
