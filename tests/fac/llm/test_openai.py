"""fac.llm.openai against a server that fails in every way: nothing is lost, nothing is paid for twice, no key leaks."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.openai_server import FaultyServer, completion

import fac
from fac.chat import as_chat
from fac.errors import FacError
from fac.llm.base import Completion, Request, Sampling, request_seed
from fac.llm.openai import OpenAIChat, OpenAISettings, _UnreadableError, estimated_tokens, read_reply

REPO = Path(fac.__file__).parents[1]
KEY = "sk-planted-4f9c1d7b2a"
PRICES = {"m": (1000.0, 2000.0)}  # USD per million tokens: a word of a reply is 0.002
SAMPLING = Sampling(max_new_tokens=8)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAC_TEST_KEY", KEY)


def reply(body):
    return f"reply {body['seed']} to {body['messages'][-1]['content']}"


def requests(count):
    return [Request(str(n), as_chat(f"question {n}"), request_seed(7, n)) for n in range(count)]


def expected(count):
    return [f"reply {r.seed % 2**31} to question {r.id}" for r in requests(count)]


def chat(server, folder, say=None, **changes):
    settings = {"concurrency": 4, "timeout": 1.0, "retries": 3, "key_env": "FAC_TEST_KEY"} | changes
    return OpenAIChat(OpenAISettings("m", server.url, **settings), folder / "replies.sqlite", say)


def test_replies_are_those_of_the_server_whatever_befalls_it(tmp_path):
    faults = {0: "500", 3: "429", 5: "timeout", 8: "truncated", 11: "cut", 14: "empty", 17: "html", 20: "503"}
    with FaultyServer(reply, faults) as server:
        replies = chat(server, tmp_path).chat(requests(30), SAMPLING)
        assert [r.text for r in replies] == expected(30)
        assert all(r.finished and r.prompt_tokens == 2 and r.completion_tokens == 5 for r in replies)
        assert server.keys == {KEY}
        assert len(server.times) >= 30 + len(faults)
        assert list(server.answered.values()) == [1] * 30
        again = chat(server, tmp_path, concurrency=1)
        assert again.chat(requests(30), SAMPLING) == replies
        assert sum(server.answered.values()) == 30


def test_a_server_s_retry_after_is_kept_to(tmp_path):
    with FaultyServer(reply, {0: "429"}) as server:
        chat(server, tmp_path).chat(requests(1), SAMPLING)
        first, second = server.times
    assert second - first >= 0.99


def test_equal_requests_are_one(tmp_path):
    with FaultyServer(reply) as server:
        replies = chat(server, tmp_path).chat([*requests(3), *requests(3)], SAMPLING)
        assert [r.text for r in replies] == expected(3) * 2
        assert sum(server.asked.values()) == 3


def test_what_decides_a_reply_decides_whether_it_is_asked_for_again(tmp_path):
    with FaultyServer(reply) as server:
        for sampling in (SAMPLING, Sampling(0.7, max_new_tokens=8), Sampling(top_p=1.0, max_new_tokens=8), Sampling()):
            chat(server, tmp_path).chat(requests(2), sampling)
        chat(server, tmp_path, seeds=False).chat(requests(1)[:0], SAMPLING)
        assert sum(server.asked.values()) == 8
        bodies = [json.loads(name) for name in server.asked]
    assert {b["temperature"] for b in bodies} == {0.8, 0.7}
    assert all(b["model"] == "m" and 0 <= b["seed"] < 2**31 for b in bodies)


def test_a_server_that_takes_no_seeds_gets_none(tmp_path):
    with FaultyServer(lambda body: "fine") as server:
        chat(server, tmp_path, seeds=False).chat(requests(1), SAMPLING)
        assert "seed" not in next(iter(server.asked))


def test_a_server_that_dies_midway_loses_nothing(tmp_path):
    with FaultyServer(reply, {12: "die"}) as server:
        with pytest.raises(FacError, match=r"127.0.0.1:\d+/v1 cannot be reached .*start the server, or set url.*kept"):
            chat(server, tmp_path, retries=1).chat(requests(30), SAMPLING)
        before = sum(server.answered.values())
        assert 0 < before < 30
        server.start()
        assert [r.text for r in chat(server, tmp_path).chat(requests(30), SAMPLING)] == expected(30)
        assert list(server.answered.values()) == [1] * 30


KILLED = textwrap.dedent("""
    import sys
    from pathlib import Path
    from fac.chat import as_chat
    from fac.llm.base import Request, Sampling, ask, request_seed
    from fac.llm.openai import OpenAIChat, OpenAISettings

    folder = Path(sys.argv[2])
    settings = OpenAISettings("m", sys.argv[1], key_env="FAC_TEST_KEY", concurrency=4)
    requests = [Request(str(n), as_chat(f"question {n}"), request_seed(7, n)) for n in range(40)]
    replies = ask(OpenAIChat(settings, folder / "replies.sqlite"), requests, Sampling(max_new_tokens=8),
                  folder / "log.jsonl", "asking")
    print([c.text for c in replies.values()])
""")


def test_a_killed_run_pays_again_for_what_was_under_way_only(tmp_path):
    with FaultyServer(reply, pause=0.1) as server:
        command = [sys.executable, "-c", KILLED, server.url, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None and sum(server.answered.values()) < 12:
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert run.returncode == -signal.SIGKILL
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(expected(40))
        twice = [name for name, count in server.asked.items() if count > 1]
        assert len(twice) <= 4
        assert len(server.asked) == 40


def test_the_budget_holds_even_for_what_is_under_way(tmp_path):
    # A request costs at most (4 + 10 tokens of prompt) x 0.001 + 8 x 0.002, and really 2 x 0.001 + 5 x 0.002.
    with FaultyServer(reply) as server:
        with pytest.raises(FacError, match=r"budget of 0.2 USD for m is used up .*raise budget_usd and run again"):
            chat(server, tmp_path, prices=PRICES, budget_usd=0.2).chat(requests(30), SAMPLING)
        paid = sum(server.answered.values())
        assert 0 < paid <= 0.2 / 0.012
        with sqlite3.connect(tmp_path / "replies.sqlite") as base:
            assert base.execute("SELECT usd FROM spent").fetchone()[0] == pytest.approx(paid * 0.012)
        replies = chat(server, tmp_path, prices=PRICES, budget_usd=2.0).chat(requests(30), SAMPLING)
        assert [r.text for r in replies] == expected(30)
        assert list(server.answered.values()) == [1] * 30


def test_what_it_will_cost_is_said_before_and_not_below_what_it_does(tmp_path):
    told = []
    with FaultyServer(reply) as server:
        chat(server, tmp_path, told.append, prices=PRICES, budget_usd=9).chat(requests(10), SAMPLING)
        chat(server, tmp_path, told.append, prices=PRICES, budget_usd=9).chat(requests(20), SAMPLING)
        chat(server, tmp_path, told.append, prices=PRICES, budget_usd=9).chat(requests(20), SAMPLING)  # nothing to ask
        chat(server, tmp_path, told.append).chat(requests(21), SAMPLING)
    assert len(told) == 3
    assert re.fullmatch(
        r"m at 127.0.0.1: 10 requests, at most about 0.30 USD \(an estimate: .*\); 0.00 USD spent so far of 9.00",
        told[0],
    )
    assert "10 requests" in told[1]
    assert "0.12 USD spent" in told[1]
    assert told[2] == "m at 127.0.0.1: 1 requests"


@pytest.mark.parametrize(
    ("always", "said"),
    [
        ("401", "refuses the key in FAC_TEST_KEY (status 401): export one that is valid"),
        ("404", "refuses the request (status 404, "),
        ("400", "set model, seeds or max_new_tokens to what it takes"),
        ("500", "fails (status 500) even after 1 retries"),
        ("429", "takes no more requests for now"),
        ("timeout", "did not answer within 0.2 seconds: raise timeout, or lower concurrency"),
        ("html", "answered 2 times with what is no chat completion: check url"),
        ("truncated", "answered 2 times with what is no chat completion: check url"),
    ],
)
def test_a_server_that_goes_on_failing_is_one_sentence_without_the_key(tmp_path, always, said):
    with FaultyServer(reply, always=always) as server:
        engine = chat(server, tmp_path, retries=1, timeout=0.2 if always == "timeout" else 5.0)
        with pytest.raises(FacError) as failure:
            engine.chat(requests(2), SAMPLING)
        assert server.keys == {KEY}
    message = str(failure.value)
    assert said in message
    assert message.endswith("and run again; replies so far are kept.")
    assert "\n" not in message
    assert KEY not in message
    assert failure.value.__cause__ is None
    assert failure.value.__context__ is None
    assert OpenAIChat(engine.settings, tmp_path / "replies.sqlite")._replies.spent() == 0  # failures are not kept


def test_a_key_that_the_server_says_back_is_not_kept(tmp_path):
    with FaultyServer(lambda body: f"your key is {KEY}") as server:
        engine = chat(server, tmp_path)
        assert engine.chat(requests(1), SAMPLING)[0].text == "your key is KEY"
        engine.close()
    assert KEY.encode() not in (tmp_path / "replies.sqlite").read_bytes()
    assert KEY not in repr(engine.settings) + engine.identity


def test_after_closing_it_asks_on(tmp_path):
    with FaultyServer(reply) as server:
        engine = chat(server, tmp_path)
        for count in (1, 2):
            assert [r.text for r in engine.chat(requests(count), SAMPLING)] == expected(count)
            engine.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "localhost:8000"}, "give the server's base, such as http://localhost:8000/v1"),
        ({"url": f"https://me:{KEY}@host/v1"}, "put the key in key_env"),
        ({"url": f"https://host/v1?key={KEY}"}, "put the key in key_env"),
        ({"key_env": KEY}, "key_env is the NAME of an environment variable"),
        ({"budget_usd": 5.0}, "The price of m is not known, so no budget can be kept: add it to prices"),
        ({"concurrency": 0}, "must be above 0"),
    ],
)
def test_a_setting_that_will_not_do_is_said_without_repeating_a_key(changes, said):
    with pytest.raises(FacError) as failure:
        OpenAISettings("m", **changes)
    assert said in str(failure.value)
    assert KEY not in str(failure.value)


def test_a_missing_key_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("FAC_TEST_KEY")
    settings = OpenAISettings("m", key_env="FAC_TEST_KEY")
    for attempt in (settings.check, lambda: OpenAIChat(settings, tmp_path / "r").chat(requests(1), SAMPLING)):
        with pytest.raises(FacError, match=r"no key for api.openai.com: export FAC_TEST_KEY=..., or set key_env=null"):
            attempt()
    OpenAISettings("m", key_env=None).check()


def test_a_file_of_replies_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "replies.sqlite").write_text("no database" * 100)
    with FaultyServer(reply) as server, pytest.raises(FacError, match=r"replies.sqlite, cannot be used .*move it away"):
        chat(server, tmp_path).chat(requests(1), SAMPLING)


def test_a_reply_says_whether_it_is_whole_and_what_it_took():
    body = {"model": "m", "messages": as_chat("a b c")}
    whole, cut = (json.dumps(completion(body, "one two", finish)) for finish in ("stop", "length"))
    assert read_reply(whole, 0) == Completion("one two", 3, 2, True)
    assert read_reply(cut, 0) == Completion("one two", 3, 2, False)
    refused = {"choices": [{"message": {"content": None, "refusal": " I will not. "}, "finish_reason": "stop"}]}
    assert read_reply(json.dumps(refused), 9) == Completion(
        "I will not.", 9, estimated_tokens([{"content": "I will not."}]), True
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
    with pytest.raises(_UnreadableError):
        read_reply(whole[: at % len(whole)], 0)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=300))
def test_the_estimate_of_a_prompt_grows_with_it(text):
    assert estimated_tokens([{"content": text}]) <= estimated_tokens([{"content": text + "abc"}]) - 1
    assert estimated_tokens([{"content": text}] * 2) == 2 * estimated_tokens([{"content": text}])
