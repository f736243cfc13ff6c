"""experiments.harness.new: a folder of prompts to edit, which the prompts of own data are found in as they stand."""

from pathlib import Path

import pytest
from support.cli import fac_here

from experiments.harness.new import TOLD
from fac.prompts import Prompts

KNOWN = {"description": "questions that angry customers ask a bank", "harmful": False}
FILLED = {
    "explain": {"spans": ["a span"]},
    "verify": {"summary": "a summary", "spans": ["a span"]},
    "judge": {"summary": "a summary"},
    "write": {"summary": "a summary", "spans": ["a span"]},
    "contrast": {"summary": "a summary", "good": {"text": "t", "span": "s", "score": 9.0}, "bad": None},
}


def test_a_new_task_asks_what_the_generic_prompts_ask_until_it_is_edited(tmp_path: Path):
    done = fac_here("new", "task", "bank", cwd=tmp_path)
    assert done.code == 0, done.err
    assert sorted(file.name for file in (tmp_path / "bank").iterdir()) == sorted(TOLD)
    assert "task.prompts=bank" in done.out
    own, generic = Prompts(tmp_path / "bank", KNOWN), Prompts("paper/own", KNOWN)
    for role, values in FILLED.items():
        assert own.render(role, **values) == generic.render(role, **values)
        assert own.digest(role) == generic.digest(role)
    assert own.rules == generic.rules
    with (tmp_path / "bank" / "write.jinja").open("a") as stream:
        stream.write("\nIn German.")
    assert Prompts(tmp_path / "bank", KNOWN).render("write", **FILLED["write"]).endswith("In German.")


def test_nothing_is_overwritten(tmp_path: Path):
    (tmp_path / "bank").mkdir()
    said = fac_here("new", "task", "bank", cwd=tmp_path).failure
    assert said == "fac: bank exists, and nothing in it is overwritten: name another folder, or move it away."
    assert not list((tmp_path / "bank").iterdir())


@pytest.mark.parametrize("arguments", [[], ["task"], ["tusk", "a"], ["task", "a", "b"], ["task", "--help"]])
def test_what_else_is_asked_for_is_one_sentence(arguments: list[str], tmp_path: Path):
    assert "fac new task NAME" in fac_here("new", *arguments, cwd=tmp_path).failure
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fac_here("new", "task", "file/bank", cwd=tmp_path).failure
