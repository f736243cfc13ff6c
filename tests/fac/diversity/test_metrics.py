"""Diversity metrics on sets whose scores can be worked out by hand or by brute force."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from fac.diversity import diversity
from fac.diversity.anchor import Anchor
from fac.diversity.metric import entropy
from fac.diversity.metrics import METRICS, embedding, text
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


def test_ngram_entropy_is_in_bits():
    assert text.ngram_entropy(["a b", "b c", "c d", "d e"], 2) == pytest.approx(2)
    assert text.ngram_entropy(["a b", "a b", "a b", "c d"], 2) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    assert text.ngram_entropy(["a b", "a b"], 2) == text.ngram_entropy(["a", ""], 2) == 0
    assert text.ngram_entropy(["a b", "c d"], 1) == pytest.approx(2)


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


def test_a_text_is_cut_behind_the_word_with_which_there_are_enough():
    texts = ["One two, three!", "Four five. Six"]
    assert text.first_words(texts, 5) == ["One two, three!", "Four five"]
    assert text.first_words(texts, 3) == ["One two, three"]
    assert text.first_words(texts, 6) == texts
    with pytest.raises(ValueError, match="1 words too few"):
        text.first_words(texts, 7)


@given(TEXTS, st.integers(1, 8))
def test_so_many_words_are_left_and_they_are_the_first(texts, count):
    all_words = [word for t in texts for word in text.words(t)]
    if len(all_words) >= count:
        assert [word for t in text.first_words(texts, count) for word in text.words(t)] == all_words[:count]


def test_what_repeats_itself_compresses_better():
    rng = np.random.default_rng(0)
    varied = ["".join(chr(97 + i) for i in rng.integers(26, size=40)) for _ in range(20)]
    assert text.compression_ratio(varied) < 2 < 10 < text.compression_ratio(varied[:1] * 20)
    joined = "\n".join(varied).encode()
    assert text.compression_ratio(varied) == len(joined) / len(zlib.compress(joined, 9))


def test_the_mean_length_is_in_words():
    assert text.mean_length(["one two three", "four"]) == 2.0


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


def test_the_anchors_clusters_are_alike_for_all_sets():
    """Four directions far from each other are the anchor's clusters; sets spread over them, or do not."""
    rng = np.random.default_rng(0)
    anchor = Anchor(np.repeat(np.eye(4), 10, axis=0) + 0.01 * rng.normal(size=(40, 4)), clusters=4)
    assert embedding.anchor_cluster_entropy(3 * np.eye(4), anchor) == pytest.approx(2)
    assert embedding.anchor_cluster_entropy(np.repeat(np.eye(4)[:2], [3, 1], axis=0), anchor) == pytest.approx(
        entropy([3, 1])
    )
    near = np.eye(4)[0] + 0.05 * rng.normal(size=(30, 4))  # clusters of its own, but one of the anchor's
    assert embedding.anchor_cluster_entropy(near, anchor) == 0
    assert embedding.cluster_entropy(near, clusters=4) > 1


def test_semantic_entropy_counts_classes_whose_texts_are_as_near_as_the_anchors_nearest():
    rng = np.random.default_rng(1)
    anchor = Anchor(rng.normal(size=(200, 3)), share=0.05)
    unit = anchor.embeddings / np.linalg.norm(anchor.embeddings, axis=1, keepdims=True)
    assert np.mean(pdist(unit) < anchor.near) == pytest.approx(0.05, abs=0.001)
    copies = np.repeat(np.eye(3), [2, 1, 1], axis=0)
    assert embedding.semantic_entropy(copies, anchor) == pytest.approx(entropy([2, 1, 1]))
    angle = 2 * math.asin(anchor.near / 2)  # of two unit vectors at that distance
    for share, classes in ((0.95, 1), (1.05, 2)):
        two = np.array([[1, 0, 0], [math.cos(share * angle), math.sin(share * angle), 0]])
        assert embedding.semantic_entropy(two, anchor) == pytest.approx(math.log2(classes), abs=1e-12)


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(1, 15), st.integers(0, 999))
def test_vendi_is_the_exponential_of_the_entropy_of_the_kernels_eigenvalues(n, d, seed):
    """Brute force, by the definition (arXiv 2210.02410): exp(-tr(K/n log K/n)), K the cosines of all pairs."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    kernel = 1 - squareform(pdist(x, "cosine"))
    values = np.linalg.eigvalsh(kernel / n)
    expected = math.exp(-sum(v * math.log(v) for v in values if v > 1e-12))
    assert embedding.vendi(x) == pytest.approx(expected, rel=1e-6)


def test_vendi_counts_what_differs():
    assert embedding.vendi(np.eye(5)) == pytest.approx(5)
    assert embedding.vendi(np.repeat(np.eye(5), 3, axis=0) * 7) == pytest.approx(5)
    assert embedding.vendi(np.ones((4, 3))) == pytest.approx(1)
    assert embedding.vendi(np.array([[1.0, 0], [0, 1], [0, 0], [0, 0]])) == pytest.approx(4)


def test_a_varied_set_scores_as_more_diverse_than_a_monotonous_one():
    rng = np.random.default_rng(0)
    varied = ["how do I fix a bike", "name three tall mountains", "who wrote this song", "is rice gluten free"]
    same = ["how do I fix a bike", "how do I fix a car", "how do I fix a sink", "how do I fix a door"]
    anchor = Anchor(rng.normal(size=(50, 8)))
    a = diversity(varied, rng.normal(size=(4, 8)), anchor)
    b = diversity(same, rng.normal(size=(4, 8)) * 0.1 + 1, anchor)
    assert a.keys() == b.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        if metric.higher_is_diverse is not None:
            least, most = sorted((a[name], b[name]))
            assert (a[name] if metric.higher_is_diverse else b[name]) == most, name
            assert least < most or name in ("cluster_entropy", "anchor_cluster_entropy", "dependency_entropy"), name
    without = {name for name, metric in METRICS.items() if metric.needs in ("embeddings", "anchored")}
    assert diversity(same).keys() == METRICS.keys() - without
    assert diversity(same, words=[]).keys() == {n for n, metric in METRICS.items() if metric.needs == "texts"}


def test_too_few_texts_or_embeddings_are_refused():
    with pytest.raises(FacError, match="at least two"):
        diversity(["alone"])
    with pytest.raises(ValueError, match="1 embeddings for 2 texts"):
        diversity(["a", "b"], np.ones((1, 3)))
