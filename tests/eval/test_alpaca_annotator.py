"""eval.alpaca_annotator: the same preferences as the package's own client gets from the same server."""

import json
import logging
import random
import warnings
from pathlib import Path

import pytest
from support.openai_server import FaultyServer, logprobs

from eval.alpaca import ANNOTATOR, DRAW
from eval.alpaca_annotator import annotate_weighted, configured, name_of
from fac.errors import FacError
from fac.llm.openai import OpenAIChat, OpenAISettings

PAIRS = [
    {"instruction": f"task {n}", "output_1": f"reply {n} of one", "output_2": f"reply {n % 9} of two",
     "generator_1": "one", "generator_2": "two"}
    for n in range(20)
]  # fmt: skip


def judge(body):
    """Probabilities drawn by the prompt; now and then neither name is among the likeliest."""
    draw = random.Random(body["messages"][-1]["content"])
    first = draw.uniform(0.05, 0.9)
    names = {"m": first, "M": 0.95 - first, "The": 0.05} if draw.random() < 0.8 else {"Both": 0.9, "The": 0.1}
    return logprobs(body, names)


def settings(url: str, **more) -> OpenAISettings:
    return OpenAISettings(configured()["completions_kwargs"]["model_name"], url, None, **more)


@pytest.mark.slow
def test_preferences_are_the_package_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = logging.root.level
    with FaultyServer(judge) as server:
        ours = annotate_weighted(OpenAIChat(settings(server.url), tmp_path / "r.sqlite"), PAIRS, tmp_path / "log.jsonl")
        assert logging.root.level == before
        asked = sum(server.asked.values())
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        theirs = by_package(PAIRS)
        bodies = {json.dumps(json.loads(name)["messages"]) for name in server.asked}
    assert asked == len(bodies) == 20  # the package asked the same
    mine = {row["instruction"]: row["preference"] for row in ours.annotations}
    assert mine == pytest.approx({name: value for name, value in theirs.items() if value is not None})
    assert 0 < ours.answers.unreadable == 20 - len(mine)
    assert "left out" in ours.answers.note
    assert len(set(mine.values())) > 10


def by_package(pairs):
    from alpaca_eval.annotators import PairwiseAnnotator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = PairwiseAnnotator(annotators_config=ANNOTATOR, caching_path=None)(pairs)
    return {row["instruction"]: row["preference"] for row in found}


def test_what_was_answered_before_a_kill_is_not_asked_again_and_equal_outputs_are_a_draw(tmp_path: Path):
    same = [{**pair, "output_2": pair["output_1"]} if n == 3 else pair for n, pair in enumerate(PAIRS)]
    with FaultyServer(judge) as server:
        chat = OpenAIChat(settings(server.url), tmp_path / "r.sqlite")
        first = annotate_weighted(chat, same, tmp_path / "log.jsonl")
        again = annotate_weighted(chat, same, tmp_path / "log.jsonl")
        assert sum(server.asked.values()) == 19
    assert first == again
    assert next(a for a in first.annotations if a["instruction"] == "task 3")["preference"] == DRAW


def test_the_budget_counts_what_a_judge_costs(tmp_path: Path):
    with FaultyServer(judge) as server:
        priced = settings(server.url, budget_usd=0.01, prices={"gpt-4-1106-preview": (10, 30)})
        with pytest.raises(FacError, match="The budget of 0.01 USD for gpt-4-1106-preview is used up"):
            annotate_weighted(OpenAIChat(priced, tmp_path / "r.sqlite"), PAIRS, tmp_path / "log.jsonl")


def test_a_judge_that_names_neither_output_is_said(tmp_path: Path):
    with FaultyServer(lambda body: logprobs(body, {"Both": 1.0})) as server:
        chat = OpenAIChat(settings(server.url), tmp_path / "r.sqlite")
        with pytest.raises(FacError, match="names neither output in any of 20 answers"):
            annotate_weighted(chat, PAIRS, tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    ("model", "url", "own"),
    [
        ("gpt-4-1106-preview", "https://api.openai.com/v1", True),
        ("gpt-4-1106-preview", "https://mine.openai.azure.com/openai/v1", True),
        ("gpt-4o", "https://api.openai.com/v1", False),
        ("gpt-4-1106-preview", "http://localhost:8000/v1", False),
        ("gpt-4-1106-preview", "https://notopenai.com/v1", False),
    ],
)
def test_only_its_own_model_where_that_is_served_has_the_annotator_s_name(model: str, url: str, own: bool):
    name = name_of(OpenAISettings(model, url))
    assert (name == ANNOTATOR) == own
    assert own or name == f"openai:{model}@{url} with the prompt of {ANNOTATOR}"
