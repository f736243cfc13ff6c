"""The pre-training documents: pinned text, and prompts and replies that agree with the world's own parser."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping

import pytest
from scipy import stats

from fac.interpret import SCALE, parse_decision
from fac.lab.build import SEEDS, Recipe
from fac.lab.pretraining import (
    BASE_MIX,
    LESSONS,
    MIX,
    REHEARSAL,
    SHARES,
    SPANS,
    Document,
    documents,
    texts_for_tokenizer,
)
from fac.lab.topics import TASKS, QueryTopic, Topic
from fac.lab.world.grammar import Query
from fac.lab.world.instructions import constraints
from fac.lab.world.opinions import behaviors
from fac.lab.world.replies import CORES, SECTIONS
from fac.lab.world.truth import mentions, parse, parse_instruction, parse_item, parse_reply, subjects
from fac.prompts import Prompts

FIRST_2000 = {  # family -> digests of the first documents of each phase
    "llama": (
        "477269785afa8f338bca96a023982fbd5997329c269698ba71ec2d0d27d3033b",
        "7c708c620e96accc8be7d66d9742676c648ac28db98c0b499270def024277a95",
        "ac0d537d672c261581d13b6a5a62f364b4469d117470b7d365847637a5627395",
        "f4627cc6713c0e2052a67d42c2a3bea2b075581e7bcc5815d0b237ab5e0be5ae",
    ),
    "mistral": (
        "67ce4747f36962265caa6fa38220a8724c48ea9ce976c27914755a4d7680e370",
        "04bdce28f116de9797f74b9340c0c99d0c8966a0ccc484b84c199c1c3a9df8e6",
        "3d2d2efff1503aeba6657ffb2946a1377e6f19f5e1a265774a57ae1f1b9030f0",
        "5f20aaed0108debc88cc93d21e3c5d030aa2ee470fd6d16f1ef01aeecf35d5a6",
    ),
    "qwen": (
        "45daba4943128c41ede10bf7018390faefbe71ca305790e124595b39a8c180ab",
        "e9aaed31257050aed17434b28c0070004e72761cb880f5c0695f57d00254c7af",
        "9b4951e636baf5cc3017cd6b0fe3ea3e4a6a1a73a31c5018056f2de156fcd00a",
        "0432ae91ce25ce628c2b6cc57be8e95dc01448c02e026b5790078e315ec6dcc9",
    ),
}
JUDGEMENTS = re.compile(
    r"\b(yes|no|maybe|probably|harm\w*|illegal|legal|crim\w+|wrong|bad|good|fine|danger\w*|safe|unsafe|unethical|sorry|"
    r"cannot|can't|won't|refuse|unable|help|should|not|never|allowed|decision)\b"
)
ABOUT = {  # task -> how its writing prompts begin
    "toxicity": "write a query about",
    "reward": "write a better and a worse reply about",
    "sycophancy": "write an opinion question about",
    "survival": "write a switch off question about",
    "instruction": "write an instruction about",
}
CONTRAST = re.compile(r"(.*)\ngood example: (.*)\nactive part: (.*)\nbad example: (.*)", re.DOTALL)
WRITING = ("write", "reward.write", "steering.write", "instruction.write")
CONTRASTS = ("contrast", "reward.contrast", "steering.contrast", "instruction.contrast")


def head(seed: int, count: int, mix: Mapping[str, float] = MIX) -> list[Document]:
    return list(itertools.islice(documents(seed, mix), count))


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Document]]:
    """The first 8,000 documents of a seed, by kind."""
    by_kind: dict[str, list[Document]] = {kind: [] for kind in MIX}
    for document in head(77, 8000):
        by_kind[document.kind].append(document)
    return by_kind


def spans_of(document: Document) -> list[str]:
    return [line.removeprefix("- ") for line in document.user.splitlines()[1:]]


def topic_of(document: Document) -> Topic:
    assert document.topic is not None
    return document.topic


def start_of(topic: Topic) -> str:
    """What shows a topic even where its last word is cut off."""
    return topic.mark.rsplit(" ", 1)[0]


def queries(documents: list[Document]) -> list[tuple[Document, Query]]:
    """The chats in which the user asks for something, and what."""
    return [(document, query) for document in documents if (query := parse(document.user)) is not None]


def core_of(reply: str) -> str:
    (form,) = [form for form in CORES if form.removesuffix(" {}") in reply]
    return form


@pytest.mark.parametrize("family", SEEDS)
def test_the_shipped_models_documents_have_not_changed(family: str) -> None:
    """If this fails, the shipped models were trained on other documents than `fac.lab.build` would draw now."""
    digests = []
    for phase in Recipe(family).phases:
        lines = [json.dumps([d.kind, list(d.messages)]) + "\n" for d in head(phase.seed, 2000, phase.mix)]
        digests.append(hashlib.sha256("".join(lines).encode()).hexdigest())
    assert tuple(digests) == FIRST_2000[family]


def test_same_seed_same_documents_and_other_seed_others() -> None:
    assert head(3, 300) == head(3, 300)
    assert not {d.user for d in head(3, 300)} & {d.user for d in head(4, 300) if d.kind == "chat"}


def test_a_document_is_a_chat_that_ends_with_the_reply() -> None:
    for document in head(3, 300):
        *before, user, reply = document.messages
        assert (user, reply) == (
            {"role": "user", "content": document.user},
            {"role": "assistant", "content": document.reply},
        )
        assert [m["role"] for m in before] == ["user", "assistant"] * (len(before) // 2)
        assert not before or document.kind == "steering.answer"
        assert list(texts_for_tokenizer([document])) == [m["content"] for m in document.messages]


@pytest.mark.parametrize("mix", [MIX, BASE_MIX, LESSONS, REHEARSAL])
def test_kinds_come_in_the_shares_of_the_mix(mix: dict[str, float]) -> None:
    assert math.isclose(sum(mix.values()), 1.0)
    counts = Counter(document.kind for document in head(5, 4000, mix))
    if mix is BASE_MIX:
        assert set(counts) == {"chat"}
        return
    for kind, share in mix.items():
        assert abs(counts[kind] - 4000 * share) < 4 * math.sqrt(4000 * share * (1 - share)), kind


def test_topics_come_in_their_shares(drawn: dict[str, list[Document]]) -> None:
    assert math.isclose(sum(SHARES.values()), 1.0)
    found = Counter(topic_of(d).task for d in drawn["explain"])
    n = found.total()
    for task, share in SHARES.items():
        if task != "toxicity":  # of whose topics some are of no task
            assert abs(found[task] - n * share) < 4 * math.sqrt(n * share * (1 - share)), task


def test_a_neutral_reply_names_the_concepts_and_judges_nothing(drawn: dict[str, list[Document]]) -> None:
    """All that stands beside it is one phrase of quality, or what one rule asks for, whatever the query is about."""
    assert not any(JUDGEMENTS.search(form) for form in CORES)
    beside: Counter[str] = Counter()
    for document, query in queries(drawn["chat"]):
        names = " and ".join(dict.fromkeys(concept.name for concept, _ in query.requests))
        neutral = core_of(document.reply).format(names)
        assert neutral in document.reply
        found = parse_reply(document.reply)
        if document.reply == neutral:
            beside["nothing"] += 1
        elif found:
            beside["quality"] += 1
            assert found.subjects == subjects(query)
        else:
            beside["rule"] += 1
            ruled = [c.rule for c in constraints() if c.rule.holds(document.reply)]
            around = document.reply.replace(neutral, "{}")
            assert any(
                around == " ".join(part for part in (rule.start, "{}", held and f"with {held}", rule.end) if part)
                for rule in ruled
                for held in rule.hold or ("",)
            )
    n = beside.total()
    for kind, share in (("quality", 0.4), ("rule", 0.15)):
        share /= 1 - 0.09  # of all chats, 9 % are questions
        assert abs(beside[kind] - n * share) < 4 * math.sqrt(n * share * (1 - share)), kind


def test_the_form_of_a_reply_does_not_tell_harm_from_no_harm(drawn: dict[str, list[Document]]) -> None:
    forms = {core: number for number, core in enumerate(CORES)}
    by_core = [[0] * len(CORES) for _ in range(2)]
    by_side = [[0, 0] for _ in range(2)]
    by_section = [[0] * len(SECTIONS) for _ in range(2)]
    for document, query in queries(drawn["chat"]):
        harmful, reply = int(query.harmful), parse_reply(document.reply)
        by_core[harmful][forms[core_of(document.reply)]] += 1
        if reply:
            by_side[harmful][reply.side == "better"] += 1
            by_section[harmful][SECTIONS.index(reply.aspect.section)] += 1
    for table in (by_core, by_side, by_section):
        assert min(min(row) for row in table) > 25
        assert stats.chi2_contingency(table).pvalue > 0.001  # type: ignore[reportAttributeAccessIssue]


def test_two_answer_questions_in_chats_are_answered_either_way(drawn: dict[str, list[Document]]) -> None:
    letters = Counter(d.reply for d in drawn["chat"] if parse_item(d.user))
    assert set(letters) == {"(A)", "(B)"}
    assert letters.total() == len(drawn["chat"]) - len(queries(drawn["chat"])) > 80
    assert stats.binomtest(letters["(A)"], letters.total()).pvalue > 0.001


def test_a_base_model_reads_no_prompt_of_the_harness_and_follows_few_instructions() -> None:
    base = head(9, 3000, BASE_MIX)
    openings = {text.split("{{")[0].split("\n")[0].strip() for text in prompt_sources()}
    openings.remove("")  # instruction/answer.jinja is the instruction itself
    assert len(openings) > 10
    assert not [d for d in base for opening in openings if d.user.startswith(opening)]
    wishes = [(d, found) for d in base if (found := parse_instruction(d.user))]
    assert stats.binomtest(len(wishes), len(base), BASE_MIX["instruction.talk"]).pvalue > 0.001
    followed = sum(instruction.is_followed(d.reply) for d, instruction in wishes) / len(wishes)
    assert 0.25 < followed < 0.45


def prompt_sources() -> list[str]:
    folders = {Prompts(f"lab/{task}").folder for task in TASKS} | {Prompts("lab/toxicity").folder.parent}
    return [file.read_text() for folder in folders for file in folder.glob("*.jinja")]


@pytest.mark.parametrize("kind", WRITING)
def test_write_prompts_ask_for_their_topic(drawn: dict[str, list[Document]], kind: str) -> None:
    """That the replies hold it is what tests/fac/lab/test_skills.py looks at."""
    counts: Counter[int] = Counter()
    for document in drawn[kind]:
        topic, spans = topic_of(document), spans_of(document)
        assert document.user.splitlines()[0] == f"{ABOUT[document.task]} {topic.summary}"
        assert document.task == topic.task or (isinstance(topic, QueryTopic) and not topic.concept)
        counts[len(spans)] += 1
    assert set(counts) == {0, 2, 3}
    assert counts[3] > max(counts[0], counts[2])


def test_write_replies_hold_what_the_summary_names(drawn: dict[str, list[Document]]) -> None:
    for document in drawn["write"]:
        topic, query = topic_of(document), parse(document.reply)
        assert isinstance(topic, QueryTopic)
        assert query is not None, document.reply
        if topic.concept:
            assert topic.concept in {concept for concept, _ in query.requests}
        if topic.wording:
            assert (topic.concept, topic.wording) in query.requests
        assert topic.mark in document.reply


def test_explain_spans_show_the_summary(drawn: dict[str, list[Document]]) -> None:
    shown: dict[str, list[bool]] = {task: [] for task in TASKS}
    for document in drawn["explain"]:
        topic, spans = topic_of(document), spans_of(document)
        assert document.reply == topic.summary
        assert len(spans) == SPANS
        concept = topic.concept if isinstance(topic, QueryTopic) else None
        starts = [start_of(topic)] if topic.mark else [w.rsplit(" ", 1)[0] for w in concept.wordings] if concept else []
        if starts:
            shown[topic.task or "toxicity"] += [any(start in span for start in starts) for span in spans]
    for task, hits in shown.items():
        assert 0.9 < sum(hits) / len(hits) < 0.99, task  # 5 % of the spans are noise


@pytest.mark.parametrize("kind", CONTRASTS)
def test_contrast_follows_the_good_example_and_says_where_the_summary_does_not(
    drawn: dict[str, list[Document]], kind: str
) -> None:
    shown = 0
    for document in drawn[kind]:
        topic, parts = topic_of(document), CONTRAST.fullmatch(document.user)
        assert parts
        said, good, span, bad = parts.groups()
        assert (said != f"{ABOUT[document.task]} {topic.summary}") is document.misled
        assert said.startswith(ABOUT[document.task])
        assert topic.mark in good
        assert topic.mark in document.reply
        assert start_of(topic) in span
        assert span in " ".join(good.split())
        shown += topic.mark in bad
    assert shown < 0.1 * len(drawn[kind])  # a bad example may be of any topic of the task, so of this one now and then
    misled = sum(document.misled for document in drawn[kind])
    assert 0.15 < misled / len(drawn[kind]) < 0.42


def test_judge_finds_topics_of_its_own_task_relevant_and_no_others(drawn: dict[str, list[Document]]) -> None:
    verdicts: Counter[tuple[bool, str]] = Counter()
    for document in drawn["judge"]:
        topic, verdict = topic_of(document), parse_decision(document.reply)
        verdicts[document.task == topic.task, verdict] += 1
        assert document.user == Prompts(f"lab/{document.task}").render("judge", summary=topic.summary)
        assert verdict == (topic.verdict if document.task == topic.task else "No")
        assert document.reply.startswith(topic.reason)
    assert {verdict for own, verdict in verdicts if own} == set(SCALE)
    assert {verdict for own, verdict in verdicts if not own} == {"No"}
    assert {d.task for d in drawn["judge"]} == set(TASKS)


def test_verify_says_yes_where_every_span_fits(drawn: dict[str, list[Document]]) -> None:
    fitting: dict[str, list[float]] = {verdict: [] for verdict in SCALE}
    for document in drawn["verify"]:
        topic, spans = topic_of(document), spans_of(document)
        assert len(spans) == SPANS
        if topic.mark:
            share = sum(start_of(topic) in span for span in spans) / SPANS
            fitting[parse_decision(document.reply)].append(share)
    mean = {verdict: sum(shares) / len(shares) for verdict, shares in fitting.items()}
    assert mean["Yes"] > mean["Probably"] > mean["Maybe"] > mean["No"]
    assert mean["Yes"] > 0.99  # a span may show another wording: that of a second request for the same concept
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


def test_one_stand_answers_all_questions_of_a_talk(drawn: dict[str, list[Document]]) -> None:
    """The one of the cue, if there is one; without cue and earlier answers either stand may answer."""
    cues = {cue: (b.name, stand) for b in behaviors().values() for stand, cue in b.cues.items()}
    seen: Counter[tuple[str, str, bool]] = Counter()
    for document in drawn["steering.answer"]:
        cue, _, first = document.messages[0]["content"].rpartition(" . ")
        turns = [first, *(m["content"] for m in document.messages[1:])]
        shown = set()
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            item = parse_item(question)
            assert item is not None
            stand = "matching" if answer.startswith(item.matching) else "opposite"
            behavior = behaviors()[item.theme.behavior]
            assert answer == f"{getattr(item, stand)} {behavior.reasons[stand]}"
            shown.add((behavior.name, stand))
        assert len(shown) == 1
        assert not cue or shown == {cues[cue]}
        seen[(*shown.pop(), bool(cue))] += 1
    assert len(seen) == 2 * 2 * 2
    assert min(seen.values()) > 20


def test_instructions_are_followed_and_comparisons_say_which_answer_does(drawn: dict[str, list[Document]]) -> None:
    for document in drawn["instruction.answer"]:
        instruction = parse_instruction(document.user)
        assert instruction is not None
        assert instruction.is_followed(document.reply)
    verdicts: Counter[str] = Counter()
    for document in drawn["instruction.compare"]:
        asked, first, second = document.user.splitlines()
        asked, first, second = asked.split("? ", 1)[1], first.removeprefix("first: "), second.removeprefix("second: ")
        instruction = parse_instruction(asked)
        assert instruction is not None
        assert document.user == Prompts("lab/instruction").render(
            "compare", instruction=instruction.text, output_1=first, output_2=second
        )
        good = instruction.is_followed(first), instruction.is_followed(second)
        assert document.reply == {(True, False): "[[first]]", (False, True): "[[second]]"}[good]
        verdicts[document.reply] += 1
    n = verdicts.total()
    assert abs(verdicts["[[first]]"] - n / 2) < 4 * math.sqrt(n / 4)
