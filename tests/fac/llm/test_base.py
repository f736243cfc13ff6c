"""fac.llm.base.ask through a real kill, and what makes a request's seed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fac
from fac.llm.base import Completion, Request, Sampling, ask, opens_thought, request_seed, spoken, thought

REPO = Path(fac.__file__).parents[1]


class Counting:
    """An engine that says what it was asked."""

    identity = "counting"
    batch = 4

    def __init__(self):
        self.asked = []

    def chat(self, requests, sampling):
        self.asked.append([r.id for r in requests])
        return [Completion(f"{r.id} {r.seed} {sampling.temperature}", 1, 2, True) for r in requests]


def requests(count):
    return [Request(f"r{n}", [{"role": "user", "content": f"say {n}"}], request_seed(42, n)) for n in range(count)]


def test_replies_come_by_id_and_batches_from_the_full_list(tmp_path):
    model = Counting()
    replies = ask(model, requests(10), Sampling(), tmp_path / "log.jsonl", "asking")
    assert model.asked == [["r0", "r1", "r2", "r3"], ["r4", "r5", "r6", "r7"], ["r8", "r9"]]
    assert {i: c.text for i, c in replies.items()} == {r.id: f"{r.id} {r.seed} 0.8" for r in requests(10)}
    again = Counting()
    assert ask(again, requests(10), Sampling(), tmp_path / "log.jsonl", "asking") == replies
    assert again.asked == []


def test_a_batch_cut_in_the_middle_of_its_record_is_asked_again_whole(tmp_path):
    log = tmp_path / "log.jsonl"
    replies = ask(Counting(), requests(10), Sampling(), log, "asking")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:6]) + lines[6][:9])
    model = Counting()
    assert ask(model, requests(10), Sampling(), log, "asking") == replies
    assert model.asked == [["r4", "r5", "r6", "r7"], ["r8", "r9"]]


def test_nothing_to_ask(tmp_path):
    assert ask(Counting(), [], Sampling(), tmp_path / "log.jsonl", "asking") == {}


SLOW_RUN = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from fac.llm.base import Completion, Request, Sampling, ask, request_seed

    class Slow:
        identity, batch = "slow", 5

        def chat(self, requests, sampling):
            with open(sys.argv[2], "a") as asked:
                for request in requests:
                    asked.write(request.id + "\\n")
                    asked.flush()
                    time.sleep(float(sys.argv[3]))
            return [Completion(f"{r.id} {r.seed}", len(r.messages), 2, r.seed % 2 == 0) for r in requests]

    requests = [Request(str(n), [], request_seed(7, n)) for n in range(40)]
    replies = ask(Slow(), requests, Sampling(), Path(sys.argv[1]), "asking")
    print([(i, c) for i, c in replies.items()])
""")


def test_a_killed_run_continues_and_says_the_same(tmp_path):
    def command(name, pause):
        log, asked = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.txt"
        return [sys.executable, "-c", SLOW_RUN, str(log), str(asked), str(pause)]

    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    unbroken = subprocess.run(command("unbroken", 0), env=environment, capture_output=True, text=True, check=True)
    log, asked = tmp_path / "killed.jsonl", tmp_path / "killed.txt"
    run = subprocess.Popen(command("killed", 0.05), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while run.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < 15):
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stderr.close()  # pyright: ignore[reportOptionalMemberAccess]
    assert run.returncode == -signal.SIGKILL
    finished = log.read_bytes().count(b"\n")
    assert 15 <= finished < 40
    resumed = subprocess.run(command("killed", 0), env=environment, capture_output=True, text=True, check=True)
    assert resumed.stdout == unbroken.stdout
    times = [asked.read_text().splitlines().count(str(n)) for n in range(40)]
    assert times[:finished] == [1] * finished
    assert all(1 <= count <= 2 for count in times[finished : finished + 5])  # the batch in flight
    assert times[finished + 5 :] == [1] * (35 - finished)


@given(st.lists(st.integers() | st.text(), max_size=4), st.lists(st.integers() | st.text(), max_size=4))
def test_a_seed_is_a_hash_of_all_its_parts(one, two):
    assert 0 <= request_seed(*one) < 2**63
    assert (request_seed(*one) == request_seed(*two)) == (one == two)


def test_seeds_are_the_same_in_every_process():
    assert request_seed(42, 7, 1, 0) == 951827506870066643


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("  what is left\n", "what is left"),
        ("<think>\na draft\n</think>\n\nthe reply", "the reply"),
        ("a draft\n</think>\nthe reply", "the reply"),  # the template opened it in the prompt
        ("<think>a draft [[first]] that was cut", ""),
        ("a word <think>a draft that was cut", "a word"),
        ("<think>one</think>first <think>two</think>and second", "first and second"),
        ("<think>one <think> in it </think> still </think> the reply", "the reply"),
        ("<think></think>the reply", "the reply"),
        ("<Thinking>a draft</Thinking>the reply", "the reply"),
        ("<thought>a draft</thought>the reply", "the reply"),
        ("<seed:think>a draft</seed:think>the reply", "the reply"),
        ("[THINK]a draft[/THINK]the reply", "the reply"),
        ("i was [thinking] of 2 < 3 and <b>that</b>", "i was [thinking] of 2 < 3 and <b>that</b>"),
        ("◁think▷a draft◁/think▷the reply", "the reply"),
        (
            "<|channel|>analysis<|message|>a draft<|end|><|start|>assistant<|channel|>final<|message|>reply<|return|>",
            "reply",
        ),
        ("<|channel|>analysis<|message|>a draft that was cut", ""),
        ("analysisThe user wants a query.assistantfinalthe reply", "the reply"),  # the same without special tokens
        ("analysisThe user wants a query that was cut", ""),
        ("analysis of the text follows", "analysis of the text follows"),
        ("<scratchpad>a draft</scratchpad>the reply", "the reply"),
        ("<reflection>a draft</reflection>the reply", "the reply"),
        ("<|begin_of_thought|>a draft<|end_of_thought|>the reply", "the reply"),
        (
            "<|begin_of_thought|>a draft<|end_of_thought|>\n<|begin_of_solution|>the reply<|end_of_solution|>",
            "the reply",
        ),
        ("<|START_THINKING|>a draft<|END_THINKING|><|START_RESPONSE|>the reply<|END_RESPONSE|>", "the reply"),
        ("<unused94>thought\na draft<unused95>the reply", "the reply"),
        ("<think>a draft</think>\n<answer>\nthe reply\n</answer>", "the reply"),
        ("<think>a draft</think><answer>the reply that was cut", "the reply that was cut"),
        ("<answer>what was asked for</answer>", "<answer>what was asked for</answer>"),  # no thought before it
        (thought("a </think> in a thought <think>") + "the reply", "the reply"),
    ],
)
def test_thoughts_are_no_part_of_what_is_said(raw, said):
    assert spoken(raw) == said
    assert Completion(raw, 1, 1, True).text == said


@given(st.text(alphabet=st.characters(exclude_characters="<[◁")).filter(lambda raw: not raw.startswith("analysis")))
def test_a_reply_without_marks_is_said_whole(raw):
    assert spoken(raw) == raw.strip()
    assert spoken(thought("a draft") + raw) == raw.strip()


def test_a_prompt_opens_a_thought_only_at_its_end():
    assert opens_thought("what is <b>? <assistant> <think>\n")
    assert not opens_thought("<think>\n\n</think>\n\n")
    assert not opens_thought("what does <think> mean? <assistant>")
