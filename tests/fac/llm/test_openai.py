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
from support.openai_server import Answer, FaultyServer

import fac
from fac.chat import as_chat
from fac.errors import FacError
from fac.llm.base import Request, Sampling, request_seed
from fac.llm.openai import OpenAIChat, OpenAISettings

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


def test_a_turn_of_the_users_is_refused_before_anything_is_asked(tmp_path):
    with FaultyServer(reply) as server:
        asked = [*requests(2), Request("2", [], 1, "bare user")]
        with pytest.raises(FacError, match=r"cannot write a user's turn.*llm=transformers or llm=vllm"):
            chat(server, tmp_path).chat(asked, SAMPLING)
        assert not server.times


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
        chat(server, tmp_path, leave_out=("seed",)).chat(requests(1)[:0], SAMPLING)
        assert sum(server.asked.values()) == 8
        bodies = [json.loads(name) for name in server.asked]
    assert {b["temperature"] for b in bodies} == {0.8, 0.7}
    assert all(b["model"] == "m" and 0 <= b["seed"] < 2**31 for b in bodies)


def test_a_server_that_takes_no_seeds_gets_none(tmp_path):
    with FaultyServer(lambda body: "fine") as server:
        chat(server, tmp_path, leave_out=("seed",)).chat(requests(1), SAMPLING)
        assert "seed" not in next(iter(server.asked))


def test_a_server_that_dies_midway_loses_nothing(tmp_path):
    with FaultyServer(reply, {12: "die"}) as server:
        with pytest.raises(
            FacError, match=r"127.0.0.1:\d+/v1 cannot be reached .*start the server, or set llm.url.*kept"
        ):
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
        with pytest.raises(FacError, match=r"budget of 0.2 USD for m is used up .*raise llm.budget_usd and run again"):
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
    assert len(told) == 4
    assert re.fullmatch(
        r"m at http://127.0.0.1:\d+/v1: 10 requests, at most about 0.30 USD \(an estimate: .*\); 0.00 USD spent so far "
        r"of 9.00",
        told[0],
    )
    assert "10 requests" in told[1]
    assert "0.12 USD spent" in told[1]
    assert told[2].startswith(f"m at {server.url}: 0 requests, 20 replies reused from ")
    assert told[3].startswith(f"m at {server.url}: 1 requests, 20 replies reused from ")


@pytest.mark.parametrize(
    ("always", "said"),
    [
        ("401", "refuses the key in FAC_TEST_KEY (status 401: status 401 for the key KEY): export one that is valid"),
        (
            "400",
            "refuses the request (status 400: status 400 for the key KEY): set llm.model, llm.url or llm.leave_out",
        ),
        ("500", "fails (status 500: status 500 for the key KEY) even after 1 retries: wait until it is mended"),
        ("429", "takes no more requests for now (status 429: status 429 for the key KEY): wait, or lower llm.concurr"),
        ("timeout", "did not answer within 0.2 seconds: raise llm.timeout, or lower llm.concurrency"),
        ("html", 'answered 2 times with what is no chat completion ("<html>KEY</html>"): check llm.url'),
        ("truncated", 'answered 2 times with what is no chat completion ("'),
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


def error(message, **more):
    return {"error": {"message": message, **more}}


GPT5 = "Unsupported value: 'temperature' does not support 0.8 with this model. Only the default (1) value is supported."
TOP_P = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
LONG = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens (8000 in the messages)."
LIMIT = "max_tokens is too large: 900. This model supports at most 512 completion tokens, whereas you provided 900."
NO_MODEL = "The model `m` does not exist or you do not have access to it."
REFUSALS = [
    (Answer(400, error(GPT5, param="temperature", code="unsupported_value")), "set annotator.leave_out=[temperature]"),
    (Answer(400, error(TOP_P)), "set annotator.leave_out=[top_p], or the top_p that it takes"),
    (Answer(422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}), "set annotator.leave_out=[seed]"),
    (Answer(400, error(LONG, code="context_length_exceeded")), "lower max_new_tokens of what is asked, or raise the"),
    (Answer(400, error(LIMIT, param="max_tokens", code="invalid_value")), "lower max_new_tokens of what is asked"),
    (Answer(413, "<html>too large</html>"), "lower max_new_tokens of what is asked, or raise the context length"),
    (Answer(404, error(NO_MODEL, code="model_not_found")), "does not serve m"),
    (Answer(404, {"object": "error", "message": "The model `m` does not exist.", "code": 404}), "set annotator.model"),
    (Answer(400, error("m is not a valid model ID: no such model")), "set annotator.model to a model that it has"),
    (Answer(405, {"detail": "Method Not Allowed"}), "set annotator.url to the server's base"),
    (Answer(402, error("Insufficient credits")), "is not paid any more"),
    (
        Answer(429, error("You exceeded your current quota", code="insufficient_quota")),
        "set annotator.key_env to another",
    ),
    (Answer(400, error("stream must be set to true")), "answers in streams only"),
    (Answer(200, 'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: [DONE]\n'), "answers in a stream"),
    (Answer(400, "Bad Request"), "refuses the request (status 400: Bad Request): set annotator.model, annotator.url"),
    (Answer(418, [error("I am a teapot")]), "(status 418: I am a teapot)"),
]


@pytest.mark.parametrize(("answer", "said"), REFUSALS, ids=range(len(REFUSALS)))
def test_every_refusal_is_said_once_in_the_server_s_words_with_what_mends_it(tmp_path, answer, said):
    with FaultyServer(lambda body: answer) as server:
        with pytest.raises(FacError) as failure:
            chat(server, tmp_path, place="annotator", concurrency=1).chat(requests(2), SAMPLING)
        assert len(server.times) == 1  # it would say the same again
    assert said in str(failure.value)
    words = answer.content if isinstance(answer.content, str) else ""
    assert words.startswith(("data", "<html")) or (words or "(") in str(failure.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (error("the quota of the upstream is used up"), '("the quota of the upstream is used up")'),
        ({"error": "the upstream is away"}, 'answers with an error ("the upstream is away"): mend what it says'),
        (
            {"choices": None, "error": {"message": "slow down", "code": 429}},
            "takes no more requests for now (status 429",
        ),
        ({"error": {"message": "upstream broke", "code": "502"}}, "fails (status 502: upstream broke) even after 1"),
        ({"choices": [{"message": {"content": ""}, "error": {"message": "broke", "code": 502}}]}, "status 502: broke"),
        ({"detail": "no workers"}, '("no workers")'),
    ],
)
def test_an_error_that_comes_as_a_success_is_told_in_the_server_s_words(tmp_path, told, said):
    with FaultyServer(lambda body: Answer(200, told)) as server:
        with pytest.raises(FacError) as failure:
            chat(server, tmp_path, retries=1, concurrency=1).chat(requests(1), SAMPLING)
        assert len(server.times) == 2
    assert said in str(failure.value)
    assert "check llm.url" not in str(failure.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [("", "set llm.url=http://127.0.0.1:PORT/v1"), ("/api/x", "set llm.url to the server's base, such as http://loc")],
)
def test_a_url_that_is_not_the_server_s_base_is_named(tmp_path, path, said):
    with FaultyServer(reply) as server:
        server_url = server.url.removesuffix("/v1")
        settings = OpenAISettings("m", server_url + path, key_env=None)
        with pytest.raises(FacError) as failure:
            OpenAIChat(settings, tmp_path / "r").chat(requests(1), SAMPLING)
    message = str(failure.value)
    assert message.startswith(f"{server_url}{path} has no chat completions there (status 404: Not Found): ")
    assert said.replace("PORT", server_url.rpartition(":")[2]) in message


def test_a_server_has_one_name_however_its_url_is_written(tmp_path):
    spelt = ("HTTP://LocalHost:80/v1/", "http://localhost/v1", " http://localhost:80/v1/chat/completions")
    assert {OpenAISettings("m", url).identity for url in spelt} == {"openai:m@http://localhost/v1"}
    others = ("https://localhost/v1", "http://localhost:8000/v1", "http://localhost/v2", "http://[::1]:8000/v1")
    names = {OpenAISettings("m", url).identity for url in (*others, spelt[0])}
    assert len(names) == 5
    assert "openai:m@http://[::1]:8000/v1" in names


def test_replies_of_one_server_are_not_given_out_as_another_s(tmp_path):
    told = []
    with FaultyServer(lambda body: "first") as one, FaultyServer(lambda body: "second") as two:
        for server, said in ((one, "first"), (two, "second"), (one, "first")):
            engine = chat(server, tmp_path, told.append)
            assert {r.text for r in engine.chat(requests(3), SAMPLING)} == {said}
        assert sum(one.answered.values()) == sum(two.answered.values()) == 3
    assert told[-1] == f"m at {one.url}: 0 requests, 3 replies reused from {tmp_path / 'replies.sqlite'}"


def newer(body):
    """As GPT-5 and the o-series do it."""
    if "max_tokens" in body:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return Answer(400, error(said, param="max_tokens", code="unsupported_parameter"))
    for name in ("temperature", "top_p"):
        if name in body:
            return Answer(400, error(f"Unsupported parameter: '{name}' is not supported with this model.", param=name))
    return f"at most {body['max_completion_tokens']}"


def test_a_model_that_calls_the_limit_otherwise_is_asked_its_way_from_then_on(tmp_path):
    left = ("temperature", "top_p")
    with FaultyServer(newer) as server:
        engine = chat(server, tmp_path, concurrency=1, leave_out=left, retries=0)
        assert [r.text for r in engine.chat(requests(5), SAMPLING)] == ["at most 8"] * 5
        assert len(server.times) == 6  # one refusal
        again = chat(server, tmp_path, leave_out=left)
        assert [r.text for r in again.chat(requests(5), SAMPLING)] == ["at most 8"] * 5
        assert len(server.times) == 6
    assert engine.identity.endswith(" without temperature, top_p")


def test_what_must_be_left_out_is_named_one_after_the_other(tmp_path):
    with FaultyServer(newer) as server:
        for left, said in (((), "[temperature]"), (("temperature",), "[temperature,top_p]")):
            with pytest.raises(FacError, match=r"set llm.leave_out=" + re.escape(said)):
                chat(server, tmp_path, leave_out=left).chat(requests(2), SAMPLING)


def test_a_prompt_that_a_content_filter_stops_is_one_refused_reply(tmp_path):
    def filtered(body):
        if body["messages"][0]["content"] == "question 1":
            return Answer(400, error("The response was filtered due to the prompt", code="content_filter"))
        return "fine"

    with FaultyServer(filtered) as server:
        replies = chat(server, tmp_path).chat(requests(3), SAMPLING)
        assert [(r.text, r.refused) for r in replies] == [("fine", False), ("", True), ("fine", False)]
        assert chat(server, tmp_path).chat(requests(3), SAMPLING) == replies
        assert len(server.times) == 3


def test_that_requests_are_tried_again_is_said(tmp_path):
    told = []
    with FaultyServer(reply, {0: "503", 1: "503", 2: "timeout"}) as server:
        chat(server, tmp_path, told.append, concurrency=1, timeout=0.3).chat(requests(3), SAMPLING)
        assert f"{server.url} fails (status 503: status 503 for the key KEY) even after 3 retries" in told[1]
        assert f"{server.url} did not answer within 0.3 seconds: asked again, up to 3 times" in told
        assert len(told) == 3


INTERRUPTED = textwrap.dedent("""
    import sys
    from pathlib import Path
    from fac.chat import as_chat
    from fac.llm.base import Request, Sampling
    from fac.llm.openai import OpenAIChat, OpenAISettings

    settings = OpenAISettings("m", sys.argv[1], key_env="FAC_TEST_KEY", concurrency=4)
    requests = [Request(str(n), as_chat(f"question {n}"), n) for n in range(40)]
    try:
        OpenAIChat(settings, Path(sys.argv[2]), print).chat(requests, Sampling(max_new_tokens=8))
    except KeyboardInterrupt:
        print("stopped")
        sys.exit(130)
""")


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_ends_a_run_whose_server_hangs_within_seconds(tmp_path, times):
    faults = dict.fromkeys(range(2, 60), "hang")
    with FaultyServer(reply, faults) as server:
        command = [sys.executable, "-c", INTERRUPTED, server.url, str(tmp_path / "replies.sqlite")]
        run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPO)}, stdout=subprocess.PIPE, text=True)
        while len(server.times) < 6:
            time.sleep(0.02)
        start, asked = time.monotonic(), len(server.times)
        for _ in range(times):
            run.send_signal(signal.SIGINT)
            time.sleep(0.5)
        said, _ = run.communicate(timeout=20)
        assert run.returncode == 130
        assert time.monotonic() - start < (10 if times == 1 else 4)
        assert "stopping: up to 5 seconds for 4 replies under way" in said
        assert said.endswith("stopped\n")
        assert len(server.times) == asked
    engine = OpenAIChat(OpenAISettings("m", server.url, key_env="FAC_TEST_KEY"), tmp_path / "replies.sqlite")
    assert engine._replies._base.execute("SELECT count(*) FROM replies").fetchone() == (2,)


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
        ({"url": f"https://me:{KEY}@host/v1"}, "name the key's variable in llm.key_env"),
        ({"url": f"https://host/v1?key={KEY}"}, "name the key's variable in llm.key_env"),
        ({"key_env": KEY}, "key_env is the NAME of an environment variable"),
        ({"budget_usd": 5.0}, "so no budget can be kept: set 'llm.prices={m: [PROMPT, REPLY]}'"),
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
        with pytest.raises(
            FacError, match=r"no key for https://api.openai.com/v1: export FAC_TEST_KEY=..., or set llm.key_env=null"
        ):
            attempt()
    OpenAISettings("m", key_env=None).check()


def test_a_file_of_replies_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "replies.sqlite").write_text("no database" * 100)
    with FaultyServer(reply) as server, pytest.raises(FacError, match=r"replies.sqlite, cannot be used .*move it away"):
        chat(server, tmp_path).chat(requests(1), SAMPLING)
