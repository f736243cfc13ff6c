"""Replies that no model should give, through every parser: an example, or a reason; never a traceback."""

import json
import random
from collections import Counter
from typing import Any

import pytest
from support.hostile import reply, value

from eval.judging import parse_verdict
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR, QUERY, TEXT, Schema
from fac.interpret import parse_decision
from fac.llm.answers import Problem
from fac.llm.answers import read_answer as read_server
from fac.llm.base import Completion, spoken
from fac.prompts import Prompts
from fac.synthesis.replies import read_answer, read_reply
from fac.synthesis.samples import REASONS

REPLIES = 3_000  # in the suite; of 20,000 (about a minute) none ended in a traceback
ANSWERS = 20_000
SCHEMAS = (QUERY, TEXT, PAIR, CHOICE, INSTRUCTION)
RULES = (Prompts("paper/toxicity").rules, Prompts("lab/toxicity").rules)


def test_every_reply_is_an_example_that_can_be_kept_or_has_a_reason():
    rng = random.Random(0)
    became: Counter[str] = Counter()
    for number in range(REPLIES):
        schema: Schema[Any] = SCHEMAS[number % len(SCHEMAS)]
        raw, rules = reply(rng), RULES[number % 2]
        completion = Completion(raw, 5, 7, finished=rng.random() < 0.8, refused=rng.random() < 0.05)
        example, why = read_reply(schema, completion, rules, prompt=reply(rng) if rng.random() < 0.3 else "")
        assert (example is None) == bool(why)
        became[why] += 1
        if example is None:
            assert why in REASONS
            continue
        line = schema.line(example)
        assert schema.line(schema.load(json.loads(line))) == line  # as it is kept
        assert "".join(turn["content"] for chat in schema.chats(example) for turn in chat).encode()
        assert not completion.refused
    assert set(became) >= {"", "refusal", "cut off", "unreadable"}
    assert min(became.values()) > REPLIES / 100, became


def test_lists_verdicts_and_answers_are_read_without_a_traceback():
    rng = random.Random(1)
    verdicts: Counter[str] = Counter()
    for number in range(REPLIES):
        raw, schema = reply(rng), SCHEMAS[number % len(SCHEMAS)]
        assert all(isinstance(part, str) for part in schema.several(raw))
        assert isinstance(schema.around(raw), str)
        assert spoken(raw) == spoken(raw).strip()
        verdicts[parse_decision(raw)] += 1
        assert parse_verdict(raw) in ("", "first", "second", "tie")
        assert read_answer(Completion(raw, 1, 1, finished=True), RULES[number % 2]) in ("", *REASONS)
    assert set(verdicts) == {"", "Yes", "No", "Maybe"} | (verdicts.keys() & {"Probably"})


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_whatever_a_server_sends_is_a_reply_or_a_problem_in_one_line(status: int):
    rng = random.Random(status)
    for _ in range(ANSWERS // 4):
        text = json.dumps(value(rng)) if rng.random() < 0.7 else reply(rng)
        found = read_server(status, {"retry-after": rng.choice(["", "3", "soon", "-1", "1e9", "nan", "inf"])}, text, 5)
        assert isinstance(found, Completion | Problem)
        if isinstance(found, Problem):
            assert len(found.said) < 1000
            assert "\n" not in found.said
