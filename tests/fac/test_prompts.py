"""fac.prompts: one file per task and role, what all tasks of a set share, and what is said of missing files."""

import hashlib
from pathlib import Path

import pytest

from fac.errors import FacError
from fac.lab.topics import TASKS
from fac.prompts import ROOT, Prompts

ROLES = {  # role -> what it is filled with
    "explain": {"spans": ["one span"]},
    "verify": {"summary": "a summary", "spans": ["one span"]},
    "judge": {"summary": "a summary"},
    "write": {"summary": "a summary", "spans": ["one span"]},
    "contrast": {"summary": "a summary", "good": {"text": "one text", "span": "one span"}, "bad": {"text": "another"}},
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A prompt set with one task, whose "write" the set has as well."""
    task = tmp_path / "set" / "task"
    task.mkdir(parents=True)
    (task / "write.jinja").write_text("write for the task: {{ summary }}\n")
    (task.parent / "write.jinja").write_text("write for any task: {{ summary }}\n")
    (task.parent / "explain.jinja").write_text("explain {{ spans | join(', ') }}\n")
    return task


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("role", ROLES)
def test_every_task_of_the_lab_has_every_role(task: str, role: str):
    prompts = Prompts(f"lab/{task}")
    text = prompts.render(role, **ROLES[role])
    for value in ("a summary", "one span", "one text"):
        assert (value in text) == (value in str(ROLES[role]))
    assert "{" not in text
    assert text == text.strip()
    shared, source = ROOT / "lab" / f"{role}.jinja", ROOT / "lab" / task / f"{role}.jinja"
    file = source if source.exists() else shared
    assert prompts.digest(role) == hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def test_what_a_task_does_not_say_itself_its_set_says(own: Path):
    prompts = Prompts(own)
    assert prompts.render("explain", spans=["a", "b"]) == "explain a, b"
    assert prompts.digest("explain") == Prompts(own.parent).digest("explain")


def test_what_a_task_says_itself_goes_first(own: Path):
    prompts, of_the_set = Prompts(own), Prompts(own.parent)
    assert prompts.render("write", summary="x") == "write for the task: x"
    assert of_the_set.render("write", summary="x") == "write for any task: x"
    assert prompts.digest("write") != of_the_set.digest("write")
    (own / "write.jinja").unlink()
    assert Prompts(own).render("write", summary="x") == "write for any task: x"
    assert Prompts(own).digest("write") == of_the_set.digest("write")


def test_the_roles_of_the_lab_that_all_tasks_share_are_written_once():
    assert {file.stem for file in (ROOT / "lab").glob("*.jinja")} == {"explain", "verify"}
    digests = {(Prompts(f"lab/{task}").digest("explain"), Prompts(f"lab/{task}").digest("verify")) for task in TASKS}
    assert len(digests) == 1
    assert len({Prompts(f"lab/{task}").digest("judge") for task in TASKS}) == len(TASKS)


def test_what_is_missing_is_said(own: Path):
    with pytest.raises(FacError, match=r"There is no prompt folder lab/toxic: name one of .*'lab/toxicity'"):
        Prompts("lab/toxic")
    with pytest.raises(FacError, match=r"has no evolve.jinja: add it"):
        Prompts(own).render("evolve", text="x")
    with pytest.raises(FacError, match=r"has no judge.jinja: add it"):
        Prompts(own).digest("judge")
    with pytest.raises(FacError, match=r"cannot be filled: 'summary' is undefined"):
        Prompts(own).render("write")
    (own / "write.jinja").write_text("{{ summary")
    with pytest.raises(FacError, match="cannot be filled"):
        Prompts(own).render("write", summary="x")
