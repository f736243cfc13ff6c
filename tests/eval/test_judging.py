"""eval.judging with judges whose verdicts are known: cut, refused and unreadable ones are none."""

import json

import numpy as np
import pytest

from eval.alpaca import read_annotations, win_rate
from eval.judging import Answers, annotate, paired_outputs, parse_verdict
from fac.errors import FacError
from fac.llm.base import Completion, thought
from fac.prompts import Prompts


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_the_published_outputs_pair_as_they_were_annotated(real_data):
    folder = real_data("alpaca_eval")
    pairs = paired_outputs(*(folder / "model_outputs" / f"{n}.json" for n in ("alpaca-7b", "gpt4_1106_preview")))
    annotated = read_annotations(folder / "annotations" / "alpaca-7b.json.gz")
    texts = ("instruction", "output_1", "output_2")
    assert {tuple(p[t] for t in texts) for p in pairs} == {tuple(a[t] for t in texts) for a in annotated}
    assert {(p["generator_1"], p["generator_2"]) for p in pairs} == {("gpt4_1106_preview", "alpaca-7b")}


def output(instruction="task 1", **other):
    return {"instruction": instruction, "output": "words", "generator": "mine", **other}


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ([output(), output("task 2")], [output()], "ref.json has no output for 'task 2': give a reference"),
        ([output(), output()], [output()], "mine.json, row 2: the instruction was answered before"),
        ([output(output=None)], [output()], "mine.json, row 1: there is no text 'output'"),
        ([output()], [output(generator=3)], "ref.json, row 1: there is no text 'generator'"),
        ([], [output()], "mine.json holds no output: set experiment.outputs=FILE"),
    ],
)
def test_outputs_that_do_not_pair_are_named(tmp_path, ours, theirs, said):
    files = write(tmp_path / "mine.json", ours), write(tmp_path / "ref.json", theirs)
    with pytest.raises(FacError) as failure:
        paired_outputs(*files, alpaca_eval_only=False)
    assert said in str(failure.value)
    with pytest.raises(FacError, match=r"none of AlpacaEval's 805 instructions|holds no|no text|answered before"):
        paired_outputs(*files)


class LongerWins:
    """A judge that answers by a rule: the longer output; empty ones tie, and "mute" leaves it speechless."""

    identity, batch = "longer", 64

    def __init__(self):
        self.asked = []

    def chat(self, requests, sampling):
        self.asked += requests
        return [Completion(self._answer(r.messages[0]["content"]), 1, 1, True) for r in requests]

    def _answer(self, prompt):
        first, second = (line.partition(": ")[2] for line in prompt.splitlines()[-2:])
        if "mute" in prompt:
            return "Both first and second are fine."
        longer = "tie" if len(first) == len(second) else "FIRST" if len(first) > len(second) else "second"
        return f"[[first]]? [[second]]? I think [[ {longer} ]]"


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "prompts").mkdir()
    text = "Which is better for {{ instruction }}?\nA: {{ output_1 }}\nB: {{ output_2 }}"
    (tmp_path / "prompts" / "compare.jinja").write_text(text)
    return Prompts(tmp_path / "prompts")


def pairs(count):
    return [
        {"instruction": f"task {n}", "output_1": "x" * 9, "output_2": "y" * (3 + 3 * (n % 5)), "generator_1": "ref"}
        | {"generator_2": "mine"}
        for n in range(count)
    ]


def test_a_judges_verdicts_become_annotations(prompts, tmp_path):
    asked = [*pairs(60), {**pairs(1)[0], "instruction": "mute"}]
    judge = LongerWins()
    judged = annotate(judge, asked, prompts, seed=1, log=tmp_path / "log.jsonl")
    for pair, annotation in zip(asked[:-1], judged.annotations, strict=False):
        longer = np.sign(len(pair["output_2"]) - len(pair["output_1"]))
        assert annotation["preference"] == 1.5 + longer / 2
        assert annotation["readable"]
        assert {key: annotation[key] for key in pair} == pair
    assert judged.answers == Answers(61, 1, 0, 0)
    assert (judged.annotations[-1]["preference"], judged.annotations[-1]["readable"]) == (1.5, False)
    shown = [r.messages[0]["content"].splitlines()[1].startswith("A: y") for r in judge.asked]
    assert shown == [a["model_first"] for a in judged.annotations]
    assert 15 < sum(shown) < 45  # both orders occur, about as often
    path = write(tmp_path / "annotations.json", judged.annotations)
    again = read_annotations(path, alpaca_eval_only=False)
    assert win_rate(again) == win_rate(judged.annotations)
    assert win_rate(again).rate == pytest.approx(100 * (24 + 12 / 2 + 0.5) / 61)


def test_a_liking_for_a_place_makes_draws(prompts, tmp_path):
    class First(LongerWins):
        def chat(self, requests, sampling):
            return [Completion("[[first]]", 1, 1, True) for _ in requests]

    rows = pairs(30)
    liked = annotate(First(), rows, prompts, seed=1, log=tmp_path / "first", both_orders=True)
    assert [a["preference"] for a in liked.annotations] == [1.5] * 30
    once = annotate(First(), rows, prompts, seed=1, log=tmp_path / "once")
    assert {a["preference"] for a in once.annotations} == {1.0, 2.0}
    fair = annotate(LongerWins(), rows, prompts, seed=1, log=tmp_path / "fair", both_orders=True)
    once = annotate(LongerWins(), rows, prompts, seed=1, log=tmp_path / "fair-once")
    assert [a["preference"] for a in fair.annotations] == [a["preference"] for a in once.annotations]


def test_the_order_belongs_to_seed_and_instruction(prompts, tmp_path):
    orders = {}
    for name, seed, rows in (("a", 1, pairs(40)), ("b", 1, pairs(40)[::-1]), ("c", 2, pairs(40))):
        judged = annotate(LongerWins(), rows, prompts, seed=seed, log=tmp_path / name)
        orders[name] = {a["instruction"]: a["model_first"] for a in judged.annotations}
    assert orders["a"] == orders["b"] != orders["c"]


def test_annotating_continues_where_it_stopped(prompts, tmp_path):
    class Tired(LongerWins):
        def chat(self, requests, sampling):
            if self.asked:
                raise KeyboardInterrupt
            return super().chat(requests, sampling)

    rows, log = pairs(100), tmp_path / "log.jsonl"
    with pytest.raises(KeyboardInterrupt):
        annotate(Tired(), rows, prompts, seed=3, log=log)
    rested = LongerWins()
    judged = annotate(rested, rows, prompts, seed=3, log=log)
    assert 0 < len(rested.asked) < 100
    assert judged == annotate(LongerWins(), rows, prompts, seed=3, log=tmp_path / "fresh.jsonl")


def test_a_prompt_without_the_role_is_refused(tmp_path):
    (tmp_path / "prompts").mkdir()
    with pytest.raises(FacError, match="has no compare.jinja: add it"):
        annotate(LongerWins(), pairs(1), Prompts(tmp_path / "prompts"), seed=0, log=tmp_path / "log")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("[[first]]", "first"), ("so [[ Second ]].", "second"), ("[[first]] no, [[tie]]", "tie"), ("first", ""), ("", "")],
)
def test_verdicts(answer, verdict):
    assert parse_verdict(answer) == verdict


class Saying(LongerWins):
    """A judge that says something of its own about the first pairs."""

    def __init__(self, *completions):
        super().__init__()
        self.completions = completions

    def chat(self, requests, sampling):
        whole = super().chat(requests, sampling)
        return [*self.completions, *whole[len(self.completions) :]][: len(whole)]


CUT = Completion("<think>so the [[first]] is", 1, 512, False)
NO_VERDICTS = [
    CUT,
    Completion("[[first]] is better, since", 1, 512, False),
    Completion(thought("[[first]]") + "I cannot say.", 1, 9, True),
    Completion("", 1, 0, True, refused=True),
]


def test_what_is_cut_thought_or_refused_is_no_verdict_and_counted(prompts, tmp_path):
    judged = annotate(Saying(*NO_VERDICTS), pairs(10), prompts, seed=1, log=tmp_path / "log")
    assert [a["preference"] for a in judged.annotations[:4]] == [1.5] * 4
    assert [a["readable"] for a in judged.annotations] == [False] * 4 + [True] * 6
    assert judged.answers == Answers(10, 4, 2, 1)
    assert judged.answers.note == "4 of 10 answers held no verdict (2 cut off, 1 refused) and count as draws"
    assert judged.annotations[0]["raw_completion"] == CUT.raw
    whole = annotate(LongerWins(), pairs(10), prompts, seed=1, log=tmp_path / "whole")
    assert whole.answers.note == "0 of 10 answers held no verdict and count as draws"


def test_a_verdict_behind_a_thought_counts(prompts, tmp_path):
    said = Completion(thought("first [[first]]") + "[[tie]]", 1, 9, True)
    judged = annotate(Saying(said), pairs(6), prompts, seed=1, log=tmp_path / "log")
    assert judged.annotations[0]["preference"] == 1.5
    assert judged.answers.unreadable == 0


def test_a_judge_without_one_verdict_is_an_error_and_no_row_of_draws(prompts, tmp_path):
    said = r"None of the 6 answers of longer holds a verdict, and 6 were cut off at 512 tokens: raise judge_tokens"
    with pytest.raises(FacError, match=said):
        annotate(Saying(*[CUT] * 6), pairs(6), prompts, seed=1, log=tmp_path / "log", limit="judge_tokens")
    refused = Completion("", 1, 1, True, refused=True)
    with pytest.raises(FacError, match="holds a verdict, and 6 were refused or filtered, and 0 were cut off"):
        annotate(Saying(*[refused] * 6), pairs(6), prompts, seed=1, log=tmp_path / "other")
