"""Diversity metrics on sets whose scores can be worked out by hand or by brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from fac.diversity import diversity
from fac.diversity.metrics import embedding, text
from fac.errors import FacError

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join), min_size=2, max_size=5)


def test_words_are_lower_case_and_keep_inner_apostrophes_and_hyphens():
    assert text.words("Don't re-run 'it', O’Neil -- ÉTÉ 42!") == ["don't", "re-run", "it", "o’neil", "été", "42"]


def test_distinct_by_hand():
    texts = ["the cat the cat", "the dog"]
    assert text.distinct(texts, 1) == 3 / 6
    assert text.distinct(texts, 2) == 3 / 4  # "cat the" is a bigram; "cat" of one text and "the" of the next are not
    assert text.distinct(["?", "!"], 1) == 0.0


@given(TEXTS, st.sampled_from([1, 2]))
def test_distinct_equals_brute_force(texts, n):
    grams = [tuple(t.split()[i : i + n]) for t in texts for i in range(len(t.split()) - n + 1)]
    assert text.distinct(texts, n) == (len(set(grams)) / len(grams) if grams else 0)


def test_bigram_entropy_is_in_bits():
    assert text.bigram_entropy(["a b", "b c", "c d", "d e"]) == pytest.approx(2)
    assert text.bigram_entropy(["a b", "a b", "a b", "c d"]) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    assert text.bigram_entropy(["a b", "a b"]) == text.bigram_entropy(["a", ""]) == 0


def test_self_bleu_of_copies_is_one_and_of_strangers_near_zero():
    copies = ["how do I bake a cake"] * 3
    strangers = ["how do I bake a cake", "where was your red bicycle stolen", "please name three very tall mountains"]
    assert text.self_bleu_4(copies) == pytest.approx(1)
    assert text.self_bleu_4(strangers) < 0.05
    assert text.self_bleu_4(strangers) < text.self_bleu_4([*strangers, copies[0]]) < 1


def test_self_bleu_by_hand():
    """Both ways 5/6 · 4/5 · 3/4 · 2/3 n-grams are shared and lengths are equal, so BLEU = (1/3)^(1/4)."""
    assert text.self_bleu_4(["a b c d e f", "a b c d e g"]) == pytest.approx((1 / 3) ** 0.25)


def test_self_bleu_samples_large_sets_by_seed():
    texts = [f"text {i} has {i % 3} words and {i % 7} letters" for i in range(60)]
    assert text.self_bleu_4(texts, at_most=10, seed=1) == text.self_bleu_4(texts, at_most=10, seed=1)
    assert text.self_bleu_4(texts, at_most=10, seed=1) != text.self_bleu_4(texts, at_most=10, seed=2)
    assert text.self_bleu_4(texts, at_most=60, seed=1) == text.self_bleu_4(texts, at_most=99, seed=2)


def test_sentences_end_at_marks_before_space_and_at_line_breaks():
    assert text.mean_sentence_length(["One two. Three four five six!", "a 3.14 b"]) == pytest.approx((2 + 4 + 4) / 3)
    assert text.mean_sentence_length(["one two\n\n- three\n"]) == 1.5
    assert text.mean_sentence_length(["...", ""]) == 0.0


@settings(max_examples=25)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 999))
def test_embedding_metrics_equal_brute_force(n, d, seed):
    x = np.random.default_rng(seed).normal(size=(n, d)) + 0.5
    assert embedding.trace_covariance(x) == pytest.approx(np.trace(np.atleast_2d(np.cov(x.T))))
    assert embedding.mean_cosine_distance(x) == pytest.approx(pdist(x, "cosine").mean(), abs=1e-9)


def test_a_zero_embedding_is_at_distance_one():
    assert embedding.mean_cosine_distance(np.array([[1.0, 0], [1, 0], [0, 0]])) == pytest.approx(2 / 3)


def test_cluster_entropy_counts_even_clusters():
    directions = np.eye(4)
    even, skewed = np.repeat(directions, 5, axis=0), np.repeat(directions, [17, 1, 1, 1], axis=0)
    lengths = np.linspace(1, 3, 20)[:, None]  # only directions matter
    assert embedding.cluster_entropy(even * lengths, clusters=4) == pytest.approx(2)
    assert embedding.cluster_entropy(skewed * lengths, clusters=4) < 1
    assert embedding.cluster_entropy(even[:5], clusters=4) == 0  # fewer different texts than clusters


def test_a_varied_set_scores_as_more_diverse_than_a_monotonous_one():
    rng = np.random.default_rng(0)
    varied = ["how do I fix a bike", "name three tall mountains", "who wrote this song", "is rice gluten free"]
    same = ["how do I fix a bike", "how do I fix a car", "how do I fix a sink", "how do I fix a door"]
    a = diversity(varied, rng.normal(size=(4, 8)))
    b = diversity(same, rng.normal(size=(4, 8)) * 0.1 + 1)
    for name in ("distinct_1", "distinct_2", "bigram_entropy", "trace_covariance", "mean_cosine_distance"):
        assert a[name] > b[name]
    assert a["self_bleu_4"] < b["self_bleu_4"]
    assert a.keys() == b.keys() == {*diversity(same), "trace_covariance", "mean_cosine_distance", "cluster_entropy"}


def test_too_few_texts_or_embeddings_are_refused():
    with pytest.raises(FacError, match="at least two"):
        diversity(["alone"])
    with pytest.raises(ValueError, match="1 embeddings for 2 texts"):
        diversity(["a", "b"], np.ones((1, 3)))
