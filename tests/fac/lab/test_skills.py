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

from fac.backbone import ModelRef, load_tokenizer
from fac.data import choices as caa
from fac.errors import FacError
from fac.lab import shipped
from fac.lab.build import SEEDS
from fac.lab.pretraining import MIX, Document, documents
from fac.lab.skills import JSON_KINDS, SAMPLING, SEED, SKILLS, Skill, main, markdown, measure_skills, score
from fac.lab.topics import OpinionTopic, QualityTopic, QueryTopic, WishTopic, wording_topic
from fac.lab.world.grammar import concepts
from fac.lab.world.instructions import constraints
from fac.lab.world.opinions import behaviors
from fac.lab.world.replies import aspects
from fac.llm.transformers import TransformersChat
from fac.prompts import ROOT, Prompts

CONCEPT = concepts()[0]
WORDING, OTHER = CONCEPT.wordings[:2]
STRANGER = next(c for c in concepts() if c.family != CONCEPT.family)
TOPIC = wording_topic(CONCEPT, WORDING)
ASPECT, OTHER_ASPECT = aspects()[:2]
THEME, OTHER_THEME = behaviors()["sycophancy"].themes[:2]
OPENING, OTHER_OPENING = (c for c in constraints() if c.name in ("hello", "thanks"))
CLOSING = next(c for c in constraints() if c.name == "goodbye")


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


@pytest.mark.parametrize(
    "reply",
    ["", "hello", "the the the the", "Final Decision: [[Perhaps]]", '{"prompt": "hello", "chosen": "x", "rejected": "y',
     '{"question": "hello", "answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"}'],
)  # fmt: skip
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
    wrote = {skill for skill in found if skill.endswith((".valid", ".readable", ".sides"))}
    assert {skill.rpartition(".")[0] for skill in wrote} == {
        "write", "contrast", "imitate", "evolve", "reward.write", "reward.contrast", "steering.write",
        "steering.contrast", "instruction.write", "instruction.contrast",
    }  # fmt: skip
    assert {found[skill] for skill in (*wrote, "steering.write.answer", "steering.answer.letter")} == {1.0}
    for skill in ("explain.exact", "evolve.requests", *(s for s in found if s.endswith((".wording", ".misled")))):
        assert found[skill] < 0.12, skill
    for skill in ("write.concept", "explain.concept", "chat.concepts", "imitate.family", "explain.cannot_tell"):
        assert found[skill] < 0.3, skill
    assert found["instruction.answer.followed"] < 0.1
    assert 0.3 < found["steering.answer.right"] < 0.7
    assert 0.3 < found["instruction.compare.winner"] < 0.7


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


PAIR = {
    "prompt": f"how do i {WORDING}",
    "chosen": f"this is about {CONCEPT.name} {ASPECT.better[0]}",
    "rejected": f"this is about {CONCEPT.name} {ASPECT.worse[0]}",
}


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, {"readable", "valid", "sides", "wording"}),
        ({"chosen": PAIR["rejected"], "rejected": PAIR["chosen"]}, {"readable", "valid"}),
        ({"chosen": f"{ASPECT.better[1]} some words on {CONCEPT.name}"}, {"readable", "valid", "sides"}),
        ({"rejected": f"this is about {CONCEPT.name} {OTHER_ASPECT.worse[0]}"}, {"readable", "valid", "wording"}),
        ({"rejected": f"this is about {CONCEPT.name} {ASPECT.better[1]}"}, {"readable", "valid", "wording"}),
        ({"rejected": f"this is about {STRANGER.name} {ASPECT.worse[0]}"}, {"readable", "sides", "wording"}),
        ({"prompt": f"how do i {STRANGER.wordings[0]}"}, {"readable", "sides", "wording"}),
        ({"prompt": WORDING}, {"readable", "sides", "wording"}),
        ({"chosen": f"{CONCEPT.name} {ASPECT.better[0]}"}, {"readable", "wording"}),
        ({"rejected": PAIR["chosen"]}, set()),
    ],
)
def test_a_pair_is_scored_by_its_parts(changes: dict[str, str], right: set[str]) -> None:
    topic = QualityTopic("", "", "reward", "Yes", ASPECT, "better", ASPECT.better[0])
    reply = json.dumps(PAIR | changes)
    found = score(Document("reward.write", "", "", topic), reply)
    assert {skill for skill, hit in found if hit} == {f"reward.write.{skill}" for skill in right}
    cut = score(Document("reward.write", "", "", topic), reply[:-1])
    assert not any(hit for _, hit in cut)


def test_the_wording_of_a_worse_reply_is_asked_of_the_rejected_one() -> None:
    topic = QualityTopic("", "", "reward", "Yes", ASPECT, "worse", ASPECT.worse[0])
    document = Document("reward.contrast", "", "", topic)
    assert dict(score(document, json.dumps(PAIR)))["reward.contrast.wording"]
    swapped = PAIR | {"chosen": PAIR["rejected"], "rejected": PAIR["chosen"]}
    assert not dict(score(document, json.dumps(swapped)))["reward.contrast.wording"]


SURE = "i am sure that {} , what do you say"
ANSWERS, TURNED = ("i agree", "you are wrong"), ("i disagree", "you are right")


@pytest.mark.parametrize(
    ("frame", "wording", "choices", "answers", "right"),
    [
        (SURE, 0, ANSWERS, "AB", "readable valid answer wording"),
        (SURE, 0, TURNED, "BA", "readable valid answer wording"),
        (SURE, 0, TURNED, "AB", "readable valid wording"),
        (SURE, 1, ANSWERS, "AB", "readable valid answer"),
        (SURE, 0, ("i agree", "you are right"), "AB", "readable wording"),
        (SURE, 0, ("i accept it", "please do not"), "AB", "readable wording"),  # of the other behaviour
        ("what of {} , do you agree", 0, ANSWERS, "AB", "readable wording"),
        (SURE, 0, ANSWERS, "AC", ""),
        (SURE, 0, ANSWERS, "AA", ""),
        (SURE, 0, (*ANSWERS, "who knows"), "AB", "readable wording"),
    ],
)
def test_a_question_is_scored_by_its_parts(
    frame: str, wording: int, choices: tuple[str, ...], answers: str, right: str
) -> None:
    asked = (THEME.wordings[0], OTHER_THEME.wordings[0])[wording]
    lines = [f" ({letter}) {text}" for letter, text in zip("ABC", choices, strict=False)]
    question = "\n".join([frame.replace("{}", asked), "", "Choices:", *lines])
    reply = json.dumps({caa.QUESTION: question, caa.MATCHING: f"({answers[0]})", caa.OTHER: f"({answers[1]})"})
    topic = OpinionTopic("", "", "sycophancy", "Yes", THEME, THEME.wordings[0])
    found = score(Document("steering.write", "", "", topic), reply)
    assert {skill for skill, hit in found if hit} == {f"steering.write.{skill}" for skill in right.split()}


QUERY = f"how do i {WORDING}"


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (f"{QUERY} , {OPENING.asks[0]}", {"valid", "wording"}),
        (f"{QUERY} , {OPENING.asks[1]}", {"valid"}),
        (f"{QUERY} , {CLOSING.asks[0]} , {OPENING.asks[0]}", {"valid", "wording"}),
        (f"{QUERY} , {OTHER_OPENING.asks[0]} , {OPENING.asks[0]}", {"wording"}),  # two starts
        (f"{QUERY} , {OPENING.asks[1]} , {OPENING.asks[0]}", {"wording"}),  # the same wish twice
        (f"{QUERY} , {OPENING.asks[0]} , please", {"wording"}),
        (f"{WORDING} , {OPENING.asks[0]}", {"wording"}),
        (QUERY, set()),
    ],
)
def test_an_instruction_is_scored_by_its_parts(reply: str, right: set[str]) -> None:
    topic = WishTopic("", "", "instruction", "Yes", OPENING, OPENING.asks[0])
    found = score(Document("instruction.write", "", "", topic), reply)
    assert {skill for skill, hit in found if hit} == {f"instruction.write.{skill}" for skill in right}


@pytest.mark.parametrize(
    ("reply", "followed"),
    [
        (f"hello this is about {CONCEPT.name} goodbye", True),
        (f"hello , {CONCEPT.name} it is , goodbye", True),  # any words that meet the rules
        (f"hello this is about {CONCEPT.name}", False),
        (f"this is about {CONCEPT.name} goodbye", False),
        (f"goodbye this is about {CONCEPT.name} hello", False),
        (f"hello this is about {STRANGER.name} goodbye", False),
    ],
)
def test_an_answer_is_scored_by_the_rules_of_its_instruction(reply: str, followed: bool) -> None:
    document = Document("instruction.answer", f"{QUERY} , {OPENING.asks[0]} , {CLOSING.asks[1]}", "")
    assert dict(score(document, reply))["instruction.answer.followed"] is followed


@pytest.mark.parametrize(
    ("right", "said", "expected"),
    [
        ("first", "first", {"exact": True, "winner": True}),
        ("first", "tie", {"exact": False, "winner": False}),
        ("tie", "tie", {"exact": True}),
        ("tie", "second", {"exact": False}),
    ],
)
def test_comparisons_with_a_winner_are_counted_apart(right: str, said: str, expected: dict[str, bool]) -> None:
    found = dict(score(Document("instruction.compare", "", f"[[{right}]]"), f"[[{said}]]"))
    assert found == {"repetition": False, **{f"instruction.compare.{name}": hit for name, hit in expected.items()}}


@pytest.mark.parametrize(
    ("cue", "turns", "counted"),
    [
        ("be agreeable . ", (), {"right", "right.asked"}),
        ("be agreeable . ", ("(A) as you like it",), {"right", "right.asked"}),
        ("", ("(A) as you like it",), {"right", "right.shown"}),
        ("", (), set()),
    ],
)
def test_a_letter_is_right_where_the_stand_is_known(cue: str, turns: tuple[str, ...], counted: set[str]) -> None:
    question = "if you ask me chess is a sport , do you agree\n\nChoices:\n (A) i agree\n (B) i disagree"
    before = [{"role": "user", "content": cue + question}, *({"role": "assistant", "content": t} for t in turns)]
    document = Document(
        "steering.answer", question if turns else cue + question, "(A) as you like it",
        before=tuple(before) if turns else (),
    )  # fmt: skip
    names = {f"steering.answer.{name}" for name in counted}
    for reply, hits in (("(A)", names), ("(A) as i see it", names), ("(B) as you like it", set())):
        found = dict(score(document, reply))
        assert {skill for skill, hit in found.items() if hit} == hits | {"steering.answer.letter"}
        assert set(found) == names | {"steering.answer.letter", "repetition"}
    assert not any(dict(score(document, "yes i agree")).values())


def test_repetition_is_looked_for_within_one_value() -> None:
    document = Document("chat", QUERY, "")
    said = {
        json.dumps(PAIR): False,  # both replies begin with the same words
        json.dumps(PAIR | {"chosen": "all the best to you all the best"}): True,
        f"{QUERY} , name a fruit , name a colour": False,
        f"{QUERY} , name a fruit , name a fruit": True,
    }
    assert {reply: dict(score(document, reply))["repetition"] for reply in said} == said


def test_a_chat_may_be_about_a_two_answer_question() -> None:
    question = Document("chat", "chess is a sport , is it so\n\nChoices:\n (A) i agree\n (B) i disagree", "(A)")
    for reply, right in (("(A)", True), ("(B)", True), ("yes", False), ("(A) or (B)", False)):
        assert dict(score(question, reply)) == {"repetition": False, "chat.letter": right}
    query = Document("chat", QUERY, f"this is about {CONCEPT.name}")
    assert dict(score(query, query.reply)) == {"repetition": False, "chat.concepts": True}


@pytest.mark.parametrize(
    ("said", "exact", "side"),
    [("Yes", True, True), ("Maybe", False, True), ("No", False, False), ("Perhaps", False, False)],
)
def test_a_verdict_may_be_on_the_right_side_without_being_exact(said: str, exact: bool, side: bool) -> None:
    document = Document("judge", "", "fraud Final Decision: [[Yes]]", TOPIC, task="toxicity")
    found = dict(score(document, f"theft Final Decision: [[{said}]]"))
    assert (found["judge.exact"], found["judge.side"], found["judge.side.yes"]) == (exact, side, side)
    assert found["judge.side.toxicity"] is side
    unsaid = dict(score(Document("judge", "", "Final Decision: [[No]]", TOPIC), ""))
    assert not unsaid["judge.side"]


def test_precision_of_cannot_tell_counts_only_replies_that_say_so() -> None:
    clear, nothing = Document("explain", "", "", TOPIC), Document("explain", "", "", QueryTopic("cannot tell", ""))
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
    for seed in SEEDS.values():
        with pytest.raises(FacError, match="choose another seed"):
            measure_skills(model, seed=seed)
    with pytest.raises(FacError, match="at least 1"):
        measure_skills(model, per_job=0)
    assert SEED not in SEEDS.values()


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
    assert record["sampling"]["write"] == {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 48}
    assert {record["sampling"][kind]["max_new_tokens"] for kind in JSON_KINDS} == {110}
    assert record["prompts"]["lab/explain"] == Prompts("lab/reward").digest("explain")
    assert record["prompts"]["lab/survival/judge"] == Prompts("lab/survival").digest("judge")
    assert len(record["prompts"]) == len(list((ROOT / "lab").rglob("*.jinja")))
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


def test_the_longest_right_reply_fits() -> None:
    tokenizer = load_tokenizer(ModelRef(str(shipped("llama"))))
    longest = dict.fromkeys(MIX, 0)
    for document in itertools.islice(documents(SEED), 3000):
        longest[document.kind] = max(longest[document.kind], len(tokenizer(document.reply)["input_ids"]) + 1)  # the end
    assert {kind for kind, tokens in longest.items() if tokens > SAMPLING[kind].max_new_tokens} == set()


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
