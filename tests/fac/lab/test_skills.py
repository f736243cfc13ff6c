"""The skill report: right replies show every skill, wrong ones do not, and the shipped model passes its floors."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.errors import FacError
from fac.lab import shipped
from fac.lab.build import Recipe
from fac.lab.pretraining import MIX, Document, Topic, documents, wording_topic
from fac.lab.skills import SEED, SKILLS, Skill, main, markdown, measure_skills, score
from fac.lab.world.grammar import concepts
from fac.llm.transformers import TransformersChat

CONCEPT = concepts()[0]
WORDING, OTHER = CONCEPT.wordings[:2]
STRANGER = next(c for c in concepts() if c.family != CONCEPT.family)
TOPIC = wording_topic(CONCEPT, WORDING)


def shares(pairs: Iterable[tuple[Document, str]]) -> dict[str, float]:
    hits: dict[str, list[bool]] = {}
    for document, reply in pairs:
        for skill, hit in score(document, reply):
            hits.setdefault(skill, []).append(hit)
    return {skill: sum(found) / len(found) for skill, found in hits.items()}


def test_right_replies_show_every_skill_and_never_repeat_themselves() -> None:
    found = shares((d, d.reply) for d in itertools.islice(documents(8), 2000))
    assert set(found) == set(SKILLS)
    assert found.pop("repetition") == 0.0
    assert set(found.values()) == {1.0}


@pytest.mark.parametrize("reply", ["", "hello", "the the the the", "Final Decision: [[Perhaps]]"])
def test_rubbish_shows_no_skill(reply: str) -> None:
    found = shares((d, reply) for d in itertools.islice(documents(8), 1000))
    assert found.pop("repetition") == (reply == "the the the the")
    assert set(found.values()) == {0.0}


def test_replies_to_other_prompts_are_valid_and_wrong() -> None:
    """Every reply is the right one for the next prompt of its kind: chance level."""
    drawn = list(itertools.islice(documents(8), 3000))
    pairs = []
    for kind in MIX:
        own = [d for d in drawn if d.kind == kind]
        pairs += [(d, after.reply) for d, after in itertools.pairwise(own)]
    found = shares(pairs)
    for kind in ("write", "contrast", "imitate", "evolve"):
        assert found[f"{kind}.valid"] == 1.0
    for skill in ("write.wording", "contrast.wording", "contrast.wording.misled", "explain.exact", "evolve.requests"):
        assert found[skill] < 0.05, skill
    for skill in ("write.concept", "explain.concept", "chat.concepts", "imitate.family", "explain.cannot_tell"):
        assert found[skill] < 0.3, skill


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (f"how do i {WORDING}", {"write.valid", "write.wording", "write.concept", "concept"}),
        (f"how do i {OTHER}", {"write.valid", "write.concept", "concept"}),
        (f"how do i {STRANGER.wordings[0]}", {"write.valid"}),
        (f"do how i {WORDING}", {"write.wording", "write.concept", "concept"}),
        (
            f"how do i {WORDING} and {STRANGER.wordings[0]}",
            {"write.valid", "write.wording", "write.concept", "concept"},
        ),
    ],
)
def test_writing_is_scored_by_the_words_of_the_reply(reply: str, right: set[str]) -> None:
    side = "write.concept.harmful" if CONCEPT.harmful else "write.concept.benign"
    right = {side if skill == "concept" else skill for skill in right}
    document = Document("write", f"write a query about {TOPIC.summary}", "", TOPIC)
    assert {skill for skill, hit in score(document, reply) if hit} == right


def test_a_misled_contrast_is_counted_apart() -> None:
    document = Document("contrast", "", "", TOPIC)
    reply = f"how do i {WORDING}"
    assert dict(score(document, reply))["contrast.wording"]
    misled = dict(score(replace(document, misled=True), reply))
    assert misled["contrast.wording.misled"]
    assert "contrast.wording" not in misled


@pytest.mark.parametrize(
    ("said", "exact", "side"),
    [("Yes", True, True), ("Maybe", False, True), ("No", False, False), ("Perhaps", False, False)],
)
def test_a_verdict_may_be_on_the_right_side_without_being_exact(said: str, exact: bool, side: bool) -> None:
    document = Document("judge", "", "fraud Final Decision: [[Yes]]", TOPIC)
    found = dict(score(document, f"theft Final Decision: [[{said}]]"))
    assert (found["judge.exact"], found["judge.side"], found["judge.side.yes"]) == (exact, side, side)
    unsaid = dict(score(Document("judge", "", "Final Decision: [[No]]", TOPIC), ""))
    assert not unsaid["judge.side"]


def test_precision_of_cannot_tell_counts_only_replies_that_say_so() -> None:
    clear, nothing = Document("explain", "", "", TOPIC), Document("explain", "", "", Topic("cannot tell", ""))
    assert "explain.cannot_tell" not in dict(score(nothing, TOPIC.summary))
    assert dict(score(nothing, "cannot tell"))["explain.cannot_tell"] is True
    assert dict(score(clear, "cannot tell"))["explain.cannot_tell"] is False


@given(hits=st.lists(st.booleans(), min_size=1, max_size=400))
def test_the_interval_is_wilsons(hits: list[bool]) -> None:
    """Wilson's bounds are where the share is 1.96 standard errors (of the bound itself) away from the bound."""
    skill = Skill.of(hits)
    assert skill.n == len(hits)
    assert skill.share == pytest.approx(sum(hits) / len(hits))
    assert 0.0 <= skill.low <= skill.share + 1e-12
    assert skill.share - 1e-12 <= skill.high <= 1.0
    for bound in (skill.low, skill.high):
        if 1e-9 < bound < 1 - 1e-9:
            distance = abs(skill.share - bound) / math.sqrt(bound * (1 - bound) / skill.n)
            assert distance == pytest.approx(1.959964, rel=1e-4)


def test_seeds_of_pre_training_and_empty_reports_are_refused(tmp_path: Path) -> None:
    model = TransformersChat(ModelRef(str(tmp_path)))
    with pytest.raises(FacError, match="choose another seed"):
        measure_skills(model, seed=Recipe.seed)
    with pytest.raises(FacError, match="at least 1"):
        measure_skills(model, per_job=0)
    assert Recipe.seed != SEED


def test_an_untrained_model_has_no_skills_and_the_report_says_who_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tiny_model(tmp_path / "untrained"), tmp_path / "skills.json"
    main([str(folder), "--out", str(out), "--per-job", "8"])
    record = json.loads(out.read_text())
    assert record["name"] == "untrained"
    assert record["model"] == TransformersChat(ModelRef(str(folder))).identity
    assert (record["seed"], record["per_job"]) == (SEED, 8)
    assert record["sampling"]["judge"]["temperature"] == 0.0
    assert record["sampling"]["write"] == {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 40}
    assert set(record["versions"]) == {"fac", "torch", "transformers", "tokenizers"}
    skills = {name: Skill(**{f: row[f] for f in Skill._fields}) for name, row in record["skills"].items()}
    assert [name for name in SKILLS if name in skills] == list(skills)
    assert skills["repetition"].n == 8 * len(MIX)
    assert {skills[f"{kind}.valid"].n for kind in ("write", "contrast", "imitate", "evolve")} == {8}
    assert all(skill.share == 0.0 for name, skill in skills.items() if name != "repetition")
    assert capsys.readouterr().out.strip() == markdown(skills)
    assert measure_skills(TransformersChat(ModelRef(str(folder))), per_job=8) == skills


def test_a_missing_model_is_said_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "nowhere")])
    assert stopped.value.code == 1
    assert "There is no model folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shipped_model_does_its_jobs() -> None:
    skills = measure_skills(TransformersChat(ModelRef(str(shipped("llama")))), per_job=100)
    floors = {
        "write.valid": 0.9,
        "write.concept": 0.75,
        "contrast.wording": 0.7,
        "explain.concept": 0.55,
        "judge.side": 0.85,
    }
    assert {name: skills[name] for name, floor in floors.items() if skills[name].share < floor} == {}
