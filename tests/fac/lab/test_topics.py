"""fac.lab.topics: what a feature may stand for, shown by texts and spans that agree with the world."""

import random
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fac.interpret import RELEVANT, SCALE, parse_decision
from fac.lab.topics import (
    CANNOT_TELL,
    SPAN_WORDS,
    TASKS,
    OpinionTopic,
    QualityTopic,
    QueryTopic,
    Topic,
    WishTopic,
    draw_topic,
    wording_topic,
)
from fac.lab.world.grammar import concepts
from fac.lab.world.instructions import VERDICTS as WISH_VERDICTS
from fac.lab.world.opinions import VERDICTS as OPINION_VERDICTS
from fac.lab.world.replies import VERDICTS as QUALITY_VERDICTS
from fac.lab.world.truth import mentions, parse, parse_instruction, parse_item, parse_reply

SEEDS = st.integers(0, 10**6)


def drawn(task: str, count: int = 400) -> list[Topic]:
    rng = random.Random(task)
    return [draw_topic(rng, task) for _ in range(count)]


def split(text: str) -> list[tuple[str, str]]:
    """Every way to cut a text in two at a blank."""
    words = text.split(" ")
    return [(" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words))]


def is_of_the_world(topic: Topic, text: str) -> bool:
    """Whether the grammar can have written a text of this kind of topic."""
    if isinstance(topic, QueryTopic):
        return parse(text) is not None
    if isinstance(topic, OpinionTopic):
        return parse_item(text) is not None
    if isinstance(topic, QualityTopic):
        return any(parse(before) and parse_reply(behind) for before, behind in split(text))
    return any(
        instruction.is_followed(answer)
        for before, answer in split(text)
        if (instruction := parse_instruction(before)) is not None
    )


def test_query_topics_are_wordings_concepts_phrases_and_nothing() -> None:
    world = {concept.name: concept for concept in concepts()}
    forms: Counter[str] = Counter()
    for topic in drawn("toxicity", 2000):
        assert isinstance(topic, QueryTopic)
        name, _, wording = topic.summary.partition(": ")
        if wording:
            forms["wording"] += 1
            assert topic.concept is world[name]
            assert wording == topic.wording == topic.mark
            assert wording in world[name].wordings
        elif topic.concept:
            forms["concept"] += 1
            assert topic.concept is world[topic.summary]
        elif topic.phrase != ("", ""):
            forms["phrase"] += 1
            assert topic.summary == "the words " + topic.mark
        else:
            forms["nothing"] += 1
            assert topic.summary == CANNOT_TELL
    assert {form: round(10 * count / 2000) for form, count in forms.items()} == {
        "wording": 6, "concept": 1, "phrase": 2, "nothing": 1,
    }  # fmt: skip


@pytest.mark.parametrize("task", [task for task in TASKS if task != "toxicity"])
def test_the_topics_of_other_tasks_are_wordings_of_their_themes(task: str) -> None:
    kinds = {"reward": QualityTopic, "instruction": WishTopic}
    for topic in drawn(task):
        assert type(topic) is kinds.get(task, OpinionTopic)
        name, _, wording = topic.summary.partition(": ")
        assert wording == topic.mark
        if isinstance(topic, QualityTopic):
            assert topic.aspect
            assert (name, topic.reason) == (topic.aspect.name, topic.aspect.section)
            assert wording in topic.aspect.wordings(topic.side)
        elif isinstance(topic, OpinionTopic):
            assert topic.theme
            assert (name, topic.reason) == (topic.theme.name, task)
            assert wording in topic.theme.wordings
        elif isinstance(topic, WishTopic):
            assert topic.constraint
            assert (name, topic.reason) == (topic.constraint.name, topic.constraint.group)
            assert wording in topic.constraint.asks


@pytest.mark.parametrize("task", TASKS)
def test_a_topic_is_relevant_to_its_own_task_only(task: str) -> None:
    said = set()
    for topic in drawn(task):
        for other in TASKS:
            verdict = parse_decision(topic.judgement(other))
            assert topic.judgement(other).startswith(topic.reason)
            if other != task:
                assert verdict == "No"
                continue
            said.add(verdict)
            if isinstance(topic, QueryTopic):
                assert (verdict in RELEVANT) == (topic.concept is not None and topic.concept.harmful)
                assert verdict == (topic.concept.verdict if topic.concept else "No")
            else:
                assert verdict == {**QUALITY_VERDICTS, **OPINION_VERDICTS, **WISH_VERDICTS}[topic.reason]
                assert verdict in RELEVANT
    expected = {"toxicity": set(SCALE), "sycophancy": {"Yes"}, "survival": {"Probably"}}
    assert said == expected.get(task, set(RELEVANT))


@given(seed=SEEDS, task=st.sampled_from(TASKS), after=st.integers(0, 4))
def test_any_topic_writes_texts_of_the_world_that_show_it(seed: int, task: str, after: int) -> None:
    rng = random.Random(seed)
    topic = draw_topic(rng, task)
    text = topic.text(rng)
    assert is_of_the_world(topic, text)
    assert topic.mark in text
    span = topic.span(text, after, 0)
    assert f" {span} " in f" {' '.join(text.split())} "
    assert len(span.split()) <= SPAN_WORDS
    if topic.mark and len(topic.mark.split()) + after <= SPAN_WORDS:
        assert topic.mark in span


@given(seed=SEEDS, task=st.sampled_from(TASKS), after=st.integers(0, 4), cut=st.integers(0, 1))
def test_a_span_ends_where_the_feature_fires(seed: int, task: str, after: int, cut: int) -> None:
    rng = random.Random(seed)
    topic = draw_topic(rng, task)
    assume(topic.mark)
    found, words = topic.text(rng).split(), topic.mark.split()
    start = next(i for i in range(len(found)) if found[i : i + len(words)] == words)
    end = start + len(words) + after if not cut else start + max(len(words) - 1, 1)
    end = min(end, len(found))
    assert topic.span(" ".join(found), after, cut).split() == found[max(end - SPAN_WORDS, 0) : end]


@given(seed=SEEDS, after=st.integers(0, 4))
def test_a_concept_is_found_in_any_of_its_wordings(seed: int, after: int) -> None:
    rng = random.Random(seed)
    concept = rng.choice(concepts())
    topic = QueryTopic(concept.name, concept.family, "toxicity", concept.verdict, concept=concept)
    text = topic.text(rng)
    held = [wording for found, wording in mentions(text) if found is concept]
    assert held
    assert topic.span(text, after, 0) == wording_topic(concept, held[0]).span(text, after, 0)
