"""eval.steering: what is counted, against brute force; and asking in both orders, on a tiny model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.caa import write_caa
from support.models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.statistics import resampled
from eval.steering import (
    MULTIPLIERS,
    Answers,
    evaluate,
    mean_matching,
    replicates,
    right,
    robust_accuracy,
    score,
    scr,
    standard_accuracy,
)
from fac.data.choices import read_choices
from fac.data.source import Source
from fac.errors import FacError
from fac.train.steering import SteeringVector, letter_probabilities


@st.composite
def answers(draw):
    """Probabilities in quarters, so that ties happen; [2, n, letters], and the matching letters [2, n]."""
    n, letters = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    p = draw(hnp.arrays(np.float64, (2, n, letters), elements=st.integers(0, 4).map(lambda q: q / 4)))
    return p, draw(hnp.arrays(np.int64, (2, n), elements=st.integers(0, letters - 1)))


def wins(row, index):
    return all(row[index] > value for i, value in enumerate(row) if i != index)


@given(answers())
def test_counts_are_those_of_a_loop(drawn):
    p, matching = drawn
    n = p.shape[1]
    won = [[wins(p[order, i], matching[order, i]) for i in range(n)] for order in (0, 1)]
    assert right(p[0], matching[0]).tolist() == won[0]
    assert standard_accuracy(p[0], matching[0]) == pytest.approx(sum(won[0]) / n)
    assert robust_accuracy(p, matching) == pytest.approx(sum(a and b for a, b in zip(*won, strict=True)) / n)
    expected = sum(p[order, i, matching[order, i]] for order in (0, 1) for i in range(n)) / (2 * n)
    assert mean_matching(p, matching) == pytest.approx(expected)


@given(answers())
def test_robust_is_never_above_standard(drawn):
    p, matching = drawn
    assert robust_accuracy(p, matching) <= standard_accuracy(p[0], matching[0])


def test_a_liking_for_a_letter_counts_for_nothing():
    """Always (A): right where (A) matches as it stands, never in both orders (paper Fig. 13)."""
    p = np.tile([0.9, 0.1], (2, 10, 1))
    matching = np.array([[0] * 6 + [1] * 4, [1] * 6 + [0] * 4])
    found = score(Answers(p, matching, np.full((2, 10), 0.5)))
    assert (found.standard, found.robust, found.mass) == (0.6, 0.0, 0.5)
    assert found.p_matching == pytest.approx(0.5)


def test_a_tie_is_not_right():
    assert not right([[0.5, 0.5]], [0])[0]


def test_scr_is_the_difference_of_the_ends():
    assert scr({-1.0: 0.25, 0.0: 0.9, 1.0: 0.75}) == 0.5
    assert MULTIPLIERS == (-1.0, -0.5, 0.0, 0.5, 1.0)  # paper 4.5


@pytest.mark.parametrize("robust", [{1.0: 0.5}, {-1.0: 0.5, 0.5: 1.0}])
def test_scr_needs_both_ends(robust):
    with pytest.raises(FacError, match="SCR needs the multipliers -1 and 1"):
        scr(robust)


def test_every_item_is_asked_in_both_orders_and_kept(tmp_path):
    folder = tiny_model(tmp_path / "model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    write_caa(tmp_path, "refusal")
    items = read_choices(Source(tmp_path / "test" / "refusal" / "test_dataset_ab.json"))
    asked = evaluate(model, tokenizer, items, batch_size=3)
    for order, choices in enumerate([items, [item.swapped() for item in items]]):
        alone = letter_probabilities(model, tokenizer, choices)
        np.testing.assert_allclose(asked.p[order], alone.p, atol=1e-5)
        np.testing.assert_allclose(asked.mass[order], alone.mass, atol=1e-5)
        assert asked.matching[order].tolist() == [choice.matching for choice in choices]
    asked.save(tmp_path)
    again = Answers.load(tmp_path)
    assert all(np.array_equal(value, vars(again)[name]) for name, value in vars(asked).items())
    assert score(again) == score(asked)


@pytest.mark.parametrize("positions", ["all", "after_prompt"])
def test_the_vector_is_added_as_it_is_told_in_both_orders(tmp_path, positions):
    folder = tiny_model(tmp_path / "model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    write_caa(tmp_path, "refusal")
    items = read_choices(Source(tmp_path / "test" / "refusal" / "test_dataset_ab.json"))
    vector = SteeringVector(torch.randn(64, generator=torch.Generator().manual_seed(1)), 2, "refusal", "answer", 1, "")
    found = evaluate(model, tokenizer, items, vector, -0.7, positions)
    for order, choices in enumerate([items, [item.swapped() for item in items]]):
        alone = letter_probabilities(model, tokenizer, choices, vector, -0.7, positions)
        np.testing.assert_allclose(found.p[order], alone.p, atol=1e-5)
    assert np.abs(found.p[0] - found.p[1]).max() > 1e-3
    assert score(found).mass == pytest.approx(found.mass.mean())
    assert found.mass[0].mean() != pytest.approx(found.mass.mean(), rel=1e-3)


def test_replicates_are_the_scores_of_the_drawn_questions():
    rng = np.random.default_rng(0)
    low, high = (Answers(rng.random((2, 30, 2)), rng.integers(0, 2, (2, 30)), rng.random((2, 30))) for _ in range(2))
    found = replicates(low, high)
    drawn = np.repeat(np.arange(30), resampled([0] * 30)[3])
    a, b = (Answers(x.p[:, drawn], x.matching[:, drawn], x.mass[:, drawn]) for x in (low, high))
    assert found["scr"][3] == pytest.approx(score(b).robust - score(a).robust)
    assert found["matching_range"][3] == pytest.approx(score(b).p_matching - score(a).p_matching)
