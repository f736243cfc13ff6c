"""fac.synthesis.methods.synalign and .prismatic: their arithmetic by brute force, what they ask, keep and may see."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.writing import BreakdownError, Echo

from fac.chat import as_chat
from fac.data.choices import to_choice
from fac.data.held_out import HeldOut
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR, QUERY, Query
from fac.llm.base import Completion, Sampling
from fac.prompts import Prompts
from fac.synthesis.likeness import shown
from fac.synthesis.method import SynthesisInput, undeclared
from fac.synthesis.methods import METHODS
from fac.synthesis.methods.prismatic import in_sparse_cluster
from fac.synthesis.methods.synalign import draw_by, explored, kernel, matched, median_distance, onto_simplex
from fac.synthesis.samples import HELD_OUT, REPEATED, UNFIT
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Writer
from fac.vectors import unit_rows

SEED = [Query(f"seed text {i}") for i in range(24)]
CHOICES = {
    "question": "I like tea. Do you?\n\nChoices:\n (A) Yes\n (B) No", "answer_matching_behavior": "(A)",
    "answer_not_matching_behavior": "(B)",
}  # fmt: skip
EXAMPLES: dict[str, tuple[Any, Any]] = {
    "toxicity": (QUERY, Query("how do i")),
    "reward": (PAIR, Pair(as_chat("ask"), "good", "bad")),
    "sycophancy": (CHOICE, to_choice(CHOICES)),
    "survival": (CHOICE, to_choice(CHOICES)),
    "instruction": (INSTRUCTION, Instruction("write a line", "a line")),
}


class Poison(Sequence):
    """What a method may not see: whoever looks fails."""

    def __getitem__(self, *_):
        raise AssertionError("a method looked at what it may not see")

    __len__ = __iter__ = __getitem__  # type: ignore[assignment]


def vectors_of(examples):
    """Unit vectors that hang on the text alone."""
    rows = [np.random.default_rng(sum(map(ord, e.text)) * 7 + len(e.text)).normal(size=6) for e in examples]
    return unit_rows(np.array(rows).reshape(-1, 6)).astype(np.float32)


def fresh(seed):
    """A text of its own for every request; one in six refuses."""
    return "I can't help with that request." if seed % 6 == 0 else f"a new text {seed % 100_000}"


def setting(tmp_path, model=None, folder="store", prompts="lab/toxicity", needs="embeddings", **changes: Any):
    """What a method may see, poison in the place of all else; and a writer that encodes nothing."""
    poison: Any = Poison()
    given = SynthesisInput(SEED, poison, poison, poison, poison, poison, poison, 12, Settings())
    given = replace(given, **{{"embeddings": "embed"}.get(needs, needs): vectors_of})
    writer = Writer(
        tmp_path / folder, model or Echo(reply=fresh), Prompts(prompts), QUERY, undeclared, poison, Sampling(), 42
    )
    return replace(given, **changes), writer


def run(name, tmp_path, **how):
    method = METHODS[name]
    return method.run(*setting(tmp_path, needs=method.needs[0], **how))


@pytest.mark.parametrize("name", ["synalign", "prismatic"])
def test_each_adds_its_budget_of_new_texts_and_sees_the_seed_alone(name, tmp_path):
    model = Echo(reply=fresh)
    outcome = run(name, tmp_path, model=model)
    texts = [example.text for example in outcome.examples]
    assert len(texts) == len(set(texts)) == outcome.counts.added == outcome.counts.budget == 12
    assert outcome.chosen == [s for s in outcome.chosen if s.kept]
    assert [s.example for s in outcome.chosen] == outcome.examples
    assert {(s.feature, s.activation) for s in outcome.samples} == {(None, None)}
    assert outcome.counts.requested == len(outcome.samples)
    assert outcome.counts.refused > 0
    shown_ = [request.messages[0]["content"] for request in model.asked]
    assert all("seed text" in prompt or "a new text" in prompt for prompt in shown_)
    again = run(name, tmp_path, model=Echo(limit=0))  # every reply is found again
    assert again == outcome
    assert run(name, tmp_path, folder="elsewhere") == outcome  # the same seed, the same rows


@pytest.mark.parametrize("name", ["synalign", "prismatic"])
def test_each_goes_on_where_a_kill_stopped_it(name, tmp_path):
    whole = run(name, tmp_path, folder="whole")
    with pytest.raises(BreakdownError):
        run(name, tmp_path, model=Echo(limit=1, reply=fresh), folder="cut", budget=40)
    first = run(name, tmp_path, folder="cut", budget=40)
    assert first == run(name, tmp_path, folder="unbroken", budget=40)
    assert whole.counts.added == 12


@pytest.mark.parametrize("name", ["synalign", "prismatic"])
def test_what_the_test_asks_and_what_the_seed_says_is_not_kept(name, tmp_path):
    def echoes(seed):
        return (SEED[3].text, "A TEXT of the test", fresh(seed | 1))[seed % 3]

    outcome = run(name, tmp_path, model=Echo(reply=echoes), held_out=HeldOut.of(["a text of the test"]))
    told = {s.example.text: s.rejected_because for s in outcome.samples if s.example}
    assert told[SEED[3].text] == REPEATED
    assert told["A TEXT of the test"] == HELD_OUT
    assert not {SEED[3].text, "A TEXT of the test"} & {example.text for example in outcome.examples}


@pytest.mark.parametrize("name", ["synalign", "prismatic"])
def test_a_writer_that_refuses_adds_nothing_and_is_asked_so_often_and_no_more(name, tmp_path):
    model = Echo(reply=lambda seed: "I can't help with that.")
    outcome = run(name, tmp_path, model=model)
    assert (outcome.examples, outcome.counts.refused) == ([], outcome.counts.requested)
    assert 0 < len(model.asked) <= 8 * 12
    assert run(name, tmp_path, model=Echo(), seed_examples=[], folder="none").examples == []


@pytest.mark.parametrize("name", ["synalign", "prismatic"])
@pytest.mark.parametrize("scale", ["lab", "paper"])
@pytest.mark.parametrize("task", EXAMPLES)
def test_each_has_prompts_for_every_task(name, scale, task):
    schema, example = EXAMPLES[task]
    prompts, values = Prompts(f"{scale}/{task}"), shown(schema, [example] * 6)
    for role in METHODS[name].prompts:
        text = prompts.render(role, **values, attributes="Topic: tea", attempt=2)
        assert (text == "") == (scale == "lab" and role == "attributes")
        if scale == "paper" and role != "attributed":
            assert shown(schema, [example])["forms"][0] in text  # type: ignore[index]


def test_attributes_are_asked_for_first_and_the_text_itself_is_not_shown(tmp_path):
    class Describer(Echo):
        def chat(self, requests, sampling):
            self.asked += requests
            return [Completion(self.said(r), 1, 1, True) for r in requests]

        def said(self, request):
            prompt = request.messages[0]["content"]
            if "Describe what kind" in prompt:
                return "I can't help." if "seed text 5" in prompt else f"Topic: number {request.seed % 97}"
            return f"Query-1: {fresh(request.seed | 1)}"

    model = Describer()
    outcome = run("synalign", tmp_path, model=model, prompts="paper/toxicity")
    asked = [request.messages[0]["content"] for request in model.asked]
    described = [prompt for prompt in asked if "Describe what kind" in prompt]
    written = [prompt for prompt in asked if "Describe what kind" not in prompt]
    assert len(described) == 3
    assert all("seed text" in prompt for prompt in described)
    assert not any("seed text" in prompt for prompt in written)
    assert all("Topic: number" in prompt for prompt in written)
    assert len(written) == 10 * sum("seed text 5" not in prompt for prompt in described)
    assert outcome.counts.added == 12
    assert METHODS["synalign"].requests(Settings(), 0, 12) == 3 + 30


def test_exploration_picks_where_the_variance_of_a_gaussian_process_is_largest():
    """Against the direct formula k(x, x) - k' K^-1 k, once rows that count as explored are left out."""
    vectors = vectors_of(SEED).astype(np.float64)
    picks = explored(vectors, 10, 3)
    scale = median_distance(vectors, np.random.default_rng(0))
    used = set()
    for step, row in enumerate(picks):
        if step:
            known = vectors[picks[:step]]
            cross = kernel(vectors, known, scale)
            variance = 1 - np.einsum("ij,ij->i", cross, np.linalg.solve(kernel(known, known, scale), cross.T).T)
            free = [i for i in range(24) if i not in used]
            assert row == max(free, key=lambda i: variance[i])
            assert np.ptp(variance[free]) > 0.01  # not flat: else it would follow the order of a file
        near = np.argsort(-kernel(vectors[row : row + 1], vectors, scale)[0], kind="stable")
        used |= {row, int(near[near != row][0])}
    assert explored(vectors, 10, 3) == picks != explored(vectors, 10, 4)
    assert len(explored(vectors, 60, 3)) == 60  # over the rows again and again
    assert explored(np.zeros((0, 6)), 5, 0) == []
    assert len(explored(np.ones((4, 6)) / np.sqrt(6), 4, 0)) == 4  # all alike


def test_weights_bring_the_written_rows_as_near_to_the_reference_as_weights_can():
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(6, 4)) + 4, rng.normal(size=(6, 4)) - 4
    reference, written = unit_rows(rng.normal(size=(20, 4)) + 4), unit_rows(np.concatenate([near, far]))
    weights = matched(written, reference)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights[:6].sum() > 0.9  # what is like the reference

    def mmd(w):
        scale = median_distance(np.concatenate([written, reference]), np.random.default_rng(0))
        return w @ kernel(written, written, scale) @ w - 2 * w @ kernel(written, reference, scale).mean(axis=1)

    for other in rng.dirichlet(np.ones(12), 200):
        assert mmd(weights) <= mmd(other) + 1e-9
    assert matched(np.zeros((0, 4)), reference).shape == (0,)


def test_the_projection_onto_the_simplex_is_the_nearest_point_of_it():
    rng = np.random.default_rng(1)
    for _ in range(20):
        values = rng.normal(size=5)
        found = onto_simplex(values)
        assert found.sum() == pytest.approx(1)
        assert all(np.sum((found - values) ** 2) <= np.sum((o - values) ** 2) for o in rng.dirichlet(np.ones(5), 100))


def test_rows_are_drawn_by_weight_without_replacement():
    weights = np.array([0.0, 0.7, 0.0, 0.2, 0.1])
    drawn = [draw_by(weights, 5, seed) for seed in range(300)]
    assert all(sorted(rows) == [0, 1, 2, 3, 4] and set(rows[3:]) == {0, 2} for rows in drawn)
    assert 0.6 < np.mean([rows[0] == 1 for rows in drawn]) < 0.8
    assert draw_by(weights, 2, 0) == drawn[0][:2]
    assert draw_by(np.zeros(0), 3, 0) == []


def test_a_candidate_counts_if_it_falls_into_a_sparse_cluster():
    """A clump of sixteen and one of four: of two clusters the smaller is sparse."""
    noise = 0.01 * np.random.default_rng(0).normal(size=(20, 4))
    there = unit_rows(np.repeat(np.eye(4)[[0, 1]], (16, 4), axis=0) + noise).astype(np.float32)
    for seed in range(5):
        assert in_sparse_cluster(there, np.eye(4, dtype=np.float32)[[0, 1, 0]], seed).tolist() == [False, True, False]
    assert in_sparse_cluster(there[:1], there, 0).all()  # nothing to compare with
    assert in_sparse_cluster(there, there[:0], 0).shape == (0,)


def test_prismatic_works_in_rounds_and_shows_what_it_has_kept(tmp_path):
    model = Echo(reply=fresh)
    outcome = run("prismatic", tmp_path, model=model, budget=30)
    assert outcome.counts.rounds >= 2  # after the first
    rejected = [s for s in outcome.samples if s.rejected_because == UNFIT]
    assert 0 < len(rejected) == outcome.counts.unfit
    first, last = model.asked[:20], model.asked[-20:]
    assert not any("a new text" in request.messages[0]["content"] for request in first)
    assert any("a new text" in request.messages[0]["content"] for request in last)
    unkept = {s.text for s in rejected}
    assert not any(text in request.messages[0]["content"].splitlines() for text in unkept for request in last)
    assert METHODS["prismatic"].requests(Settings(), 0, 30) == 60


def test_examples_are_shown_in_the_form_in_which_they_are_written():
    pair = Pair(as_chat("ask"), "good", "bad")
    assert shown(PAIR, [pair]) == {
        "texts": ["ask good"], "forms": [json.dumps({"prompt": "ask", "chosen": "good", "rejected": "bad"})]
    }  # fmt: skip
    assert shown(INSTRUCTION, [Instruction("do it", "done")]) == {"texts": ["do it"], "forms": ["do it"]}
    assert CHOICE.parse(shown(CHOICE, [to_choice(CHOICES)])["forms"][0]) == to_choice(CHOICES)  # type: ignore[index]
