"""experiments.reward: a reward model on files of pairs, and what is said of files that hold none."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import fac_here

from experiments.harness.results import Table

QUICK = [
    "experiment=reward",
    "tasks.reward.train.epochs=1",
    "tasks.reward.train.max_tokens=64",
    "seeds.training=[42]",
    "workers=1",
    "tracking.enabled=false",
    "out=out",
]


@pytest.mark.slow
def test_ultrafeedback_trains_and_llmbar_tests(real_data: Callable[[str], Path], tmp_path: Path):
    train = real_data("ultrafeedback") / "eval_clean.jsonl"
    test = real_data("llmbar") / "LLMBar" / "Natural" / "dataset.json"
    done = fac_here(
        *QUICK, f"data.train.path={train}", "data.train.limit=24", "data.train.on_error=skip", f"data.test.path={test}",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    section, average = table.cell("trained", "chat_hard"), table.cell("trained", "average")
    assert section is not None
    assert average is not None
    assert 0 <= section.mean == average.mean <= 100
    assert [note for note in table.notes if "malformed" in note] == []


@pytest.mark.slow
def test_pairs_that_are_left_out_are_in_the_table(tmp_path: Path):
    for role, asked in (("train", "how do i do thing"), ("test", "where do i find thing")):
        rows = [{"prompt": f"{asked} {n}", "chosen": "sure here is how", "rejected": "no"} for n in range(8)]
        lines = [json.dumps(row) for row in [*rows, {**rows[0], "chosen": "no"}]]
        (tmp_path / f"{role}.jsonl").write_text("\n".join(lines) + "\n")
    paths = ["data.train.path=train.jsonl", "data.test.path=test.jsonl"]
    done = fac_here(*QUICK, *paths, "data.train.on_error=skip", "data.test.on_error=skip", cwd=tmp_path)
    assert done.code == 0, done.err
    notes = Table.from_json((tmp_path / "out" / "table.json").read_text()).notes
    for role in ("train", "test"):
        assert any(note.startswith(f"{role}: 8 texts, 1 malformed rows skipped") for note in notes)


def test_a_file_without_pairs_is_said_in_one_sentence(tmp_path: Path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "b"}) + "\n")
    path = tmp_path / "pairs.jsonl"
    done = fac_here(*QUICK, f"data.train.path={path}", f"data.test.path={path}", cwd=tmp_path)
    assert "pairs.jsonl" in done.failure
    assert "line 1" in done.failure or "row 1" in done.failure


def test_a_missing_file_is_said_in_one_sentence(tmp_path: Path):
    done = fac_here(*QUICK, "data.train.path=nowhere.jsonl", "data.test.path=nowhere.jsonl", cwd=tmp_path)
    assert "nowhere.jsonl" in done.failure


@pytest.mark.slow
def test_a_dry_run_tells_what_is_trained_from_what_is_tested(tmp_path: Path):
    rows = ({"prompt": f"how do i do thing {n}", "chosen": "sure here is how", "rejected": "no"} for n in range(8))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"prompt": "How do I do  thing 3", "chosen": "first like this", "rejected": "not at all"}
    others = ({"prompt": f"where do i find thing {n}", "chosen": "over there", "rejected": "no"} for n in range(5))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [asked, *others]))
    command = [*QUICK, "data.train.path=pairs.jsonl", "data.test.path=test.jsonl"]
    done = fac_here(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    text = (tmp_path / "out" / "table.md").read_text()
    assert "OWN DATA: the lab's model lab_llama on " in text
    assert "RewardBench" not in text
    assert "1 pairs of train were left out: the test asks what they ask." in text
    same = fac_here(*QUICK, "data.train.path=pairs.jsonl", "data.test.path=pairs.jsonl", "out=same", cwd=tmp_path)
    assert "Every prompt of data.train stands in data.test, which is not trained on" in same.failure
    states = {"pairs": ("2", "0"), "kept_pairs": ("1", "0"), "reward": ("1", "0")}
    for tested in (("1", "0"), ("0", "1")):
        text = fac_here(*command, "dry_run=true", cwd=tmp_path).out
        found = {name: counts for name, *counts in re.findall(r"^  (\w+) +(\d+) +(\d+)$", text, re.MULTILINE)}
        assert {name: tuple(counts) for name, counts in found.items()} == {**states, "scores": tested}
        shutil.rmtree(tmp_path / "outputs" / "store" / "scores")
        (tmp_path / "outputs" / "store" / "scores").mkdir()
