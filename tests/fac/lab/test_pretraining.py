"""The pre-training documents: pinned text, and prompts and replies that agree with the world's own parser."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fac.interpret import RELEVANT, parse_decision
from fac.lab.pretraining import (
    CANNOT_TELL,
    MIX,
    REPLIES,
    SPAN_WORDS,
    SPANS,
    Document,
    documents,
    draw_topic,
    wording_topic,
)
from fac.lab.world.grammar import concepts
from fac.lab.world.truth import mentions, parse

FIRST_2000_OF_SEED_1 = "a9cd20c07e51e2470661c1f42e6b3c2735249a92b632e4d2833d8142150ed549"
JUDGEMENTS = re.compile(
    r"\b(yes|no|maybe|probably|harm\w*|illegal|legal|crim\w+|wrong|bad|good|fine|danger\w*|safe|unsafe|unethical|sorry|"
    r"cannot|can't|won't|refuse|unable|help|should|not|never|allowed|decision)\b"
)


def head(seed: int, count: int) -> list[Document]:
    return list(itertools.islice(documents(seed), count))


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Document]]:
    """The first 6,000 documents of a seed, by kind."""
    by_kind: dict[str, list[Document]] = {kind: [] for kind in MIX}
    for document in head(77, 6000):
        by_kind[document.kind].append(document)
    return by_kind


def spans_of(document: Document) -> list[str]:
    return [line.removeprefix("- ") for line in document.user.splitlines()[1:]]


def test_the_shipped_models_documents_have_not_changed() -> None:
    """If this fails, the shipped models were trained on other documents than `fac.lab.build` would draw now."""
    digest = hashlib.sha256()
    for document in head(1, 2000):
        digest.update(json.dumps([document.kind, list(document.messages)]).encode() + b"\n")
    assert digest.hexdigest() == FIRST_2000_OF_SEED_1


def test_same_seed_same_documents_and_other_seed_others() -> None:
    assert head(3, 300) == head(3, 300)
    assert not {d.user for d in head(3, 300)} & {d.user for d in head(4, 300) if d.kind == "chat"}


def test_a_document_is_one_user_turn_and_one_reply() -> None:
    for document in head(3, 50):
        assert document.messages == (
            {"role": "user", "content": document.user},
            {"role": "assistant", "content": document.reply},
        )


def test_kinds_come_in_the_shares_of_the_mix(drawn: dict[str, list[Document]]) -> None:
    assert math.isclose(sum(MIX.values()), 1.0)
    total = sum(map(len, drawn.values()))
    for kind, share in MIX.items():
        assert abs(len(drawn[kind]) - total * share) < 4 * math.sqrt(total * share * (1 - share)), kind


def test_replies_to_users_name_the_concepts_and_judge_nothing(drawn: dict[str, list[Document]]) -> None:
    assert not any(JUDGEMENTS.search(form) for form in REPLIES)
    for document in drawn["chat"]:
        query = parse(document.user)
        assert query is not None, document.user
        names = " and ".join(dict.fromkeys(concept.name for concept, _ in query.requests))
        assert document.reply in {form.format(names) for form in REPLIES}


def test_the_form_of_a_reply_does_not_tell_harm_from_no_harm(drawn: dict[str, list[Document]]) -> None:
    forms: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for document in drawn["chat"]:
        query = parse(document.user)
        assert query is not None
        form = next(f for f in REPLIES if re.fullmatch(f.format(".*"), document.reply))
        forms[query.harmful][form] += 1
    for counts in forms.values():
        n, p = counts.total(), 1 / len(REPLIES)
        assert n > 300
        assert all(abs(counts[form] - n * p) < 4 * math.sqrt(n * p * (1 - p)) for form in REPLIES)


def test_summaries_name_a_wording_of_the_world_a_concept_a_phrase_or_nothing(drawn: dict[str, list[Document]]) -> None:
    world = {concept.name: concept for concept in concepts()}
    forms = Counter()
    for document in drawn["explain"] + drawn["write"] + drawn["judge"] + drawn["verify"]:
        topic = document.topic
        assert topic is not None
        name, _, wording = topic.summary.partition(": ")
        if wording:
            forms["wording"] += 1
            assert topic.concept is world[name]
            assert wording == topic.wording
            assert wording in world[name].wordings
        elif topic.concept:
            forms["concept"] += 1
            assert topic.concept is world[topic.summary]
        elif topic.phrase != ("", ""):
            forms["phrase"] += 1
            assert topic.summary == "the words " + topic.phrase[1].replace(" {}", "")
        else:
            forms["nothing"] += 1
            assert topic.summary == CANNOT_TELL
    assert set(forms) == {"wording", "concept", "phrase", "nothing"}


def test_write_replies_hold_what_the_summary_names(drawn: dict[str, list[Document]]) -> None:
    for document in drawn["write"]:
        topic, query = document.topic, parse(document.reply)
        assert topic is not None
        assert query is not None, document.reply
        assert document.user.splitlines()[0] == f"write a query about {topic.summary}"
        if topic.concept:
            assert topic.concept in {concept for concept, _ in query.requests}
        if topic.wording:
            assert (topic.concept, topic.wording) in query.requests
        assert topic.phrase[1].replace(" {}", "") in document.reply


def test_explain_spans_show_the_summary(drawn: dict[str, list[Document]]) -> None:
    shown = asked = 0
    for document in drawn["explain"]:
        topic = document.topic
        assert topic is not None
        assert document.reply == topic.summary
        spans = spans_of(document)
        assert len(spans) == SPANS
        if topic.concept:
            known = [topic.wording] if topic.wording else topic.concept.wordings
            starts = [w.rsplit(" ", 1)[0] for w in known]  # the last word may be cut off
            shown += sum(any(start in span for start in starts) for span in spans)
            asked += SPANS
    assert 0.92 < shown / asked < 0.98  # 5 % of the spans are noise


def test_contrast_follows_the_good_example_and_says_where_the_summary_does_not(
    drawn: dict[str, list[Document]],
) -> None:
    for document in drawn["contrast"]:
        topic = document.topic
        assert topic is not None
        summary, good, span, bad = (line.split(": ", 1)[-1] for line in document.user.splitlines())
        assert ("write a query about " + topic.summary in document.user.splitlines()) is not document.misled, summary
        assert topic.wording in good
        assert topic.wording in document.reply
        assert span in good
        assert parse(good)
        assert parse(bad)
        assert parse(document.reply)
    misled = sum(document.misled for document in drawn["contrast"])
    assert 0.2 < misled / len(drawn["contrast"]) < 0.4


def test_judge_finds_harmful_concepts_relevant_and_nothing_else(drawn: dict[str, list[Document]]) -> None:
    verdicts = Counter()
    for document in drawn["judge"]:
        topic = document.topic
        assert topic is not None
        verdict = parse_decision(document.reply)
        verdicts[verdict] += 1
        assert (verdict in RELEVANT) == (topic.concept is not None and topic.concept.harmful)
        assert verdict == (topic.concept.verdict if topic.concept else "No")
    assert set(verdicts) == {"Yes", "Probably", "Maybe", "No"}


def test_verify_says_yes_where_every_span_fits(drawn: dict[str, list[Document]]) -> None:
    fitting: dict[str, list[float]] = {verdict: [] for verdict in ("Yes", "Probably", "Maybe", "No")}
    for document in drawn["verify"]:
        topic, spans = document.topic, spans_of(document)
        assert topic is not None
        assert len(spans) == SPANS
        if topic.wording:
            start = topic.wording.rsplit(" ", 1)[0]
            fitting[parse_decision(document.reply)].append(sum(start in span for span in spans) / SPANS)
    mean = {verdict: sum(shares) / len(shares) for verdict, shares in fitting.items()}
    assert mean["Yes"] > mean["Probably"] > mean["Maybe"] > mean["No"]
    assert mean["Yes"] > 0.99  # 1 span in 2,800 shows another wording: that of a second request for the same concept
    assert mean["No"] < 0.05


def test_imitate_stays_in_the_family_of_its_examples(drawn: dict[str, list[Document]]) -> None:
    for document in drawn["imitate"]:
        families = {c.family for text in [*spans_of(document), document.reply] for c, _ in mentions(text)}
        assert len(families) == 1
        assert parse(document.reply)


def test_evolve_keeps_the_requests(drawn: dict[str, list[Document]]) -> None:
    for document in drawn["evolve"]:
        before, after = parse(document.user.split(": ", 1)[1]), parse(document.reply)
        assert before is not None
        assert after is not None
        assert before.requests == after.requests


@given(seed=st.integers(0, 10**6), after=st.integers(0, 4), cut=st.integers(0, 1))
def test_a_span_ends_where_the_feature_fires(seed: int, after: int, cut: int) -> None:
    rng = random.Random(seed)
    concept = rng.choice(concepts())
    wording = rng.choice(concept.wordings)
    topic = wording_topic(concept, wording)
    query = topic.query(rng)
    span = topic.span(query, after, cut).split()
    assume(next(w for c, w in query.requests if c is concept) == wording)  # not two wordings of one concept
    text, words = query.text.split(), wording.split()
    assert len(span) <= SPAN_WORDS
    start = next(i for i in range(len(text)) if text[i : i + len(words)] == words)
    end = start + len(words) + after if not cut else start + max(len(words) - 1, 1)
    assert span == text[max(min(end, len(text)) - SPAN_WORDS, 0) : end]


@given(seed=st.integers(0, 10**6), after=st.integers(0, 4))
def test_any_topic_writes_valid_queries_and_spans_of_them(seed: int, after: int) -> None:
    rng = random.Random(seed)
    topic = draw_topic(rng)
    query = topic.query(rng)
    assert parse(query.text) is not None
    assert topic.span(query, after, 0) in query.text
