"""fac.llm.answers: what a server's answer says, whatever form it has."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.openai_server import completion

from fac.chat import as_chat
from fac.llm.answers import Problem, estimated_tokens, read_answer
from fac.llm.base import Completion


def read_reply(text, prompt_tokens):
    reply = read_answer(200, {}, text, prompt_tokens)
    assert isinstance(reply, Completion)
    return reply


def test_a_reply_says_whether_it_is_whole_and_what_it_took():
    body = {"model": "m", "messages": as_chat("a b c")}
    for finish in ("stop", "eos", "end_turn", None):
        assert read_reply(json.dumps(completion(body, "one two", finish)), 0) == Completion("one two", 3, 2, True)
    for finish in ("length", "max_tokens", "MAX_TOKENS", "model_length"):  # others': Anthropic's, Google's, Mistral's
        assert read_reply(json.dumps(completion(body, "one two", finish)), 0) == Completion("one two", 3, 2, False)
    refused = {"choices": [{"message": {"content": None, "refusal": " I will not. "}, "finish_reason": "stop"}]}
    assert read_reply(json.dumps(refused), 9) == Completion(
        "I will not.", 9, estimated_tokens([{"content": "I will not."}]), True, refused=True
    )


PARTS = [
    ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
    ([{"type": "thinking", "thinking": [{"type": "text", "text": "a draft"}]}, {"type": "text", "text": "two"}], "two"),
    ([{"type": "thinking", "thinking": "a draft", "signature": "x"}, {"type": "text", "text": "two"}], "two"),
    ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a draft"}]}, "two"], "two"),
    ([{"type": "image_url", "image_url": {"url": "x"}}, {"text": "two"}], "two"),
    ({"type": "text", "text": "two"}, "two"),
    ([{"type": "refusal", "refusal": "I will not."}], "I will not."),
    ([{"type": "thinking", "thinking": "a draft that was cut"}], ""),
    ([], ""),
    (None, ""),
]


@pytest.mark.parametrize(("content", "said"), PARTS)
def test_a_reply_of_parts_is_its_text(content, said):
    answer = completion({"model": "m", "messages": as_chat("q")}, "x")
    answer["choices"][0]["message"]["content"] = content
    reply = read_reply(json.dumps(answer), 0)
    assert reply.text == said
    assert ("a draft" in reply.raw) == ("a draft" in str(content))  # kept, for who wants to read it


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_that_a_server_sends_apart_are_kept_and_not_said(name):
    answer = completion({"model": "m", "messages": as_chat("q")}, "the reply")
    answer["choices"][0]["message"][name] = "first [[first]]"
    assert read_reply(json.dumps(answer), 0).text == "the reply"
    assert "first [[first]]" in read_reply(json.dumps(answer), 0).raw
    answer["choices"][0]["message"]["content"] = None
    assert read_reply(json.dumps(answer), 0).text == ""


def test_a_reply_beside_counts_of_null_is_a_reply():
    answer = completion({"model": "m", "messages": as_chat("q")}, "the reply")
    answer["usage"] = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    assert read_reply(json.dumps(answer), 9) == Completion(
        "the reply", 9, estimated_tokens([{"content": "the reply"}]), True
    )


@given(st.integers(0, 10**6), st.text(max_size=20))
def test_no_part_of_a_reply_is_taken_for_a_reply(at, text):
    whole = json.dumps(completion({"model": "m", "messages": as_chat("q")}, text))
    problem = read_answer(200, {}, whole[: at % len(whole)], 0)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.passes) == ("unreadable", True)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=300))
def test_the_estimate_of_a_prompt_grows_with_it(text):
    assert estimated_tokens([{"content": text}]) <= estimated_tokens([{"content": text + "abc"}]) - 1
    assert estimated_tokens([{"content": text}] * 2) == 2 * estimated_tokens([{"content": text}])
