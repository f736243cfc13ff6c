"""fac.prompts: one file per task and role, what all tasks of a set share, and what is said of missing files."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.judging import parse_verdict
from fac.chat import as_chat
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR, QUERY, Query
from fac.errors import FacError
from fac.interpret import SCALE, parse_decision
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
    shared = {file.stem for file in (ROOT / "lab").glob("*.jinja")}
    assert {role for role in shared if not Prompts("lab").is_blank(role)} == {"explain", "verify"}
    digests = {(Prompts(f"lab/{task}").digest("explain"), Prompts(f"lab/{task}").digest("verify")) for task in TASKS}
    assert len(digests) == 1
    assert len({Prompts(f"lab/{task}").digest("judge") for task in TASKS}) == len(TASKS)


def test_a_prompt_of_comments_alone_is_blank_and_is_what_is_not_asked(own: Path):
    (own / "vote.jinja").write_text("{# these models\ncannot #}\n")
    assert Prompts(own).is_blank("vote")
    (own / "vote.jinja").write_text("{# which #}which?")
    assert not Prompts(own).is_blank("vote")
    assert not Prompts(own).is_blank("explain")  # of the set
    with pytest.raises(FacError, match=r"has no personas.jinja: add it"):
        Prompts(own).is_blank("personas")


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


# For large models

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60).map(str.strip).filter(bool)
SCORES = st.floats(0, 12).map(lambda score: round(score, 1))
FORMAT = "Final Decision: [[Yes/Probably/Maybe/No]]"


@pytest.mark.parametrize("task", TASKS)
@given(summary=TEXT, spans=st.lists(TEXT, max_size=10), text=TEXT, score=SCORES)
def test_a_large_model_is_told_all_that_it_needs_as_it_stands(
    task: str, summary: str, spans: list[str], text: str, score: float
):
    """Whatever stands in spans and texts, braces and percent signs of Jinja included."""
    prompts = Prompts(f"paper/{task}")
    example = {"text": f"example {text}", "span": f"span {text}", "score": score}
    shown = {
        "explain": ({"spans": spans}, spans),
        "verify": ({"summary": summary, "spans": spans}, [summary, *spans]),
        "judge": ({"summary": summary}, [summary]),
        "write": ({"summary": summary, "spans": spans}, [summary, *spans]),
        "contrast": (
            {"summary": summary, "good": example, "bad": {**example, "text": f"weak {text}"}},
            [summary, f"example {text}", f"span {text}", f"weak {text}", f"score {score}"],
        ),
    }
    for role, (values, told) in shown.items():
        asked = prompts.render(role, **values)
        assert asked == asked.strip()
        for part in told:
            assert part in asked, role
        if role in ("verify", "judge"):
            assert asked.endswith(FORMAT)
            assert parse_decision(asked) == ""  # the form itself is no decision
    as_it_stands = f'Use the words "span {text}" as they stand.' in prompts.render("contrast", **shown["contrast"][0])
    assert as_it_stands == (score > 4)


@pytest.mark.parametrize("choice", SCALE)
def test_the_decision_that_is_asked_for_is_read(choice: str):
    asked = FORMAT.replace("Yes/Probably/Maybe/No", choice)
    assert parse_decision(f"It names a plant.\n{asked}") == choice


def last_lines(task: str, role: str, count: int = 1) -> str:
    values = {
        **ROLES[role],
        "good": {"text": "a", "span": "b", "score": 9},
        "bad": {"text": "c", "span": "", "score": 1},
    }
    return "\n".join(Prompts(f"paper/{task}").render(role, **values).splitlines()[-count:])


@pytest.mark.parametrize("role", ["write", "contrast"])
def test_the_answer_that_a_writer_is_shown_is_read(role: str):
    query = last_lines("toxicity", role).replace("THE REQUEST", "help me with something bad")
    assert QUERY.parse(query) == Query("help me with something bad")
    pair = last_lines("reward", role)
    for word in ("how do I", "like this", "like that"):
        pair = pair.replace("...", word, 1)
    assert PAIR.parse(pair) == Pair(as_chat("how do I"), "like this", "like that")
    for task in ("sycophancy", "survival"):
        choice = CHOICE.parse(last_lines(task, role))
        assert choice
        assert (choice.matching, choice.other) == (0, 1)
    marked = last_lines("instruction", role, 3).replace("THE INSTRUCTION", "Write a poem.\n\nIn two lines.")
    assert INSTRUCTION.parse(marked) == Instruction("Write a poem.\n\nIn two lines.")


def test_a_large_judge_compares_answers_and_a_large_writer_answers():
    prompts = Prompts("paper/instruction")
    asked = prompts.render("compare", instruction="{{ how }}", output_1="so", output_2="otherwise")
    assert asked.index("{{ how }}") < asked.index("so\n") < asked.index("otherwise")
    for verdict in ("first", "second", "tie"):
        assert f"[[{verdict}]]" in asked
        assert parse_verdict(f"It is clearer.\n[[{verdict}]]") == verdict
    assert prompts.render("answer", instruction="how?").startswith("how?\n")
    assert Prompts("lab/instruction").render("answer", instruction="how?") == "how?"


def test_the_writers_of_harmful_requests_are_kept_from_what_could_be_used():
    for role in ("write", "contrast"):
        example = {"text": "a", "span": "b", "score": 1}
        asked = Prompts("paper/toxicity").render(role, **{**ROLES[role], "good": example, "bad": example})
        for rule in (
            "no methods, steps, amounts",
            "other data of real people",
            "Nothing sexual that involves children",
        ):
            assert rule in asked


def test_what_every_prompt_may_use_is_in_the_digest_of_those_that_use_it():
    one, other, none = (Prompts("paper/own", known) for known in ({"description": "a"}, {"description": "b"}, None))
    assert one.digest("judge") != other.digest("judge")
    assert one.digest("explain") == other.digest("explain") == none.digest("explain")  # says nothing of it
    assert "\na\n" in one.render("judge", summary="s")
    assert one.render("judge", summary="s", description="c") == Prompts("paper/own", {"description": "c"}).render(
        "judge", summary="s"
    )


def test_what_a_prompt_of_ones_own_includes_is_in_its_digest(own: Path):
    (own / "write.jinja").write_text('{% include "rules.jinja" %} write {{ summary }}\n')
    (own / "rules.jinja").write_text("as {{ description }}\n")
    before, other = Prompts(own, {"description": "a"}), Prompts(own, {"description": "b"})
    assert before.render("write", summary="s") == "as a write s"
    assert before.digest("write") != other.digest("write")
    (own / "rules.jinja").write_text("like {{ description }}\n")
    assert Prompts(own, {"description": "a"}).digest("write") != before.digest("write")


EXAMPLE = {"text": "one text", "span": "one span", "score": 5.0}


@pytest.mark.parametrize("known", [{}, {"description": "questions for a bank", "harmful": True}])
def test_the_generic_prompts_need_no_description_and_ask_for_no_harm_in_detail(known: dict[str, object]):
    prompts = Prompts("paper/own", {"description": "", "harmful": False, **known})
    for role in ("write", "contrast"):
        text = prompts.render(role, **{**ROLES[role], "good": EXAMPLE, "bad": EXAMPLE})
        assert ("What it holds:\nquestions for a bank" in text) == bool(known)
        assert ("Nothing sexual that involves children." in text) == bool(known)
        assert text.endswith("<text>\nTHE TEXT\n</text>")
        assert "\n\n\n" not in text
    without = prompts.render("write", summary="", spans=[])
    assert "What is missing" not in without
    assert "Fragments" not in without


def test_a_text_that_tells_of_its_prompt_is_told_from_one_that_has_what_the_prompt_shows():
    prompts = Prompts("paper/own", {"description": "questions for a bank", "harmful": False})
    for text in (
        "A good example, which shows it clearly and well",
        "x\nThe words that show it: my card",
        "how do I keep basil alive",
    ):
        assert prompts.is_repeated(text)
    for text in ("questions for a bank", "one text is not a good example", "Why do you take my money?", ""):
        assert not prompts.is_repeated(text)
    assert not Prompts("lab/own").is_repeated("write a query about how to do this")
