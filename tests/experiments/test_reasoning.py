"""experiments.reasoning: GSM8K from a file, how replies are scored, and the reduced lab before and after training."""

import json
from pathlib import Path

import pytest
from support.cli import fac_here

from eval.tasks.gsm8k.utils import load, process
from experiments.harness.config import read_config
from experiments.pages.reasoning import _printed
from fac.errors import FacError

ROWS = [
    {"question": f"Ann has {n} boats and buys one. How many?", "answer": f"She has {n} + 1.\n#### {n + 1}"}
    for n in (2, 5)
]


@pytest.mark.parametrize(
    ("reply", "score"),
    [("2 + 1 = 3", 1), ("so #### 3", 1), ("It is 3.00 boats.", 1), ("3 or 4", 0), ("none", 0), ("1,003", 0), ("-3", 0)],
)
def test_the_last_number_of_a_reply_counts(reply: str, score: float):
    assert process(ROWS[0], [reply]) == {"exact_match": score}
    assert process({"question": "", "answer": "#### 1,003"}, ["1003"]) == {"exact_match": 1}


def test_a_row_without_an_answer_is_named(tmp_path: Path):
    file = tmp_path / "gsm8k.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in [ROWS[0], {"question": "how many?", "answer": "three"}]))
    with pytest.raises(FacError, match="gsm8k.jsonl, line 2: there is no question with an answer that ends in ####"):
        load(str(file))


def test_in_the_lab_a_file_is_needed(tmp_path: Path):
    assert "set experiment.gsm8k=FILE" in fac_here("experiment=table15", "dry_run=true", cwd=tmp_path).failure


def test_the_paper_s_numbers_stand_beside_its_setting_alone():
    assert read_config(["experiment=table15"]).name == "reasoning"
    assert (number := _printed("paper", "qwen2_7b", "gsm8k_after")) is not None
    assert number.mean == 85.60
    assert _printed("own", "qwen2_7b", "gsm8k_after") is None
