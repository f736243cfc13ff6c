"""eval.classification against brute force and against a real classifier."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from support.models import tiny_model

from eval.classification import auprc, evaluate
from eval.statistics import resampled
from fac.chat import as_chat
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.classifier import fit_classifier
from fac.train.settings import ClassifierSettings

ranked = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=30).filter(
    lambda rows: {label for label, _ in rows} == {0, 1}
)


def average_precision_by_hand(rows: list[tuple[int, int]]) -> Fraction:
    """Sum over distinct thresholds of (recall gained) x (precision there): ties enter together."""
    positives = sum(label for label, _ in rows)
    total, found_before = Fraction(0), 0
    for threshold in sorted({score for _, score in rows}, reverse=True):
        kept = [label for label, score in rows if score >= threshold]
        total += Fraction(sum(kept) - found_before, positives) * Fraction(sum(kept), len(kept))
        found_before = sum(kept)
    return total


@given(ranked)
def test_auprc_is_the_average_precision(rows):
    labels, scores = zip(*rows, strict=True)
    assert auprc(labels, scores) == pytest.approx(float(average_precision_by_hand(rows)))


@given(ranked)
def test_only_the_order_of_scores_counts(rows):
    labels, scores = zip(*rows, strict=True)
    assert auprc(labels, [math.exp(score) for score in scores]) == auprc(labels, scores)


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1], [0, 1, 2]])
def test_labels_of_one_class_are_refused(labels):
    with pytest.raises(FacError, match="classes 0 and 1"):
        auprc(labels, np.zeros(len(labels)))


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(FacError, match="learning_rate"):
        auprc([0, 1], [0.5, float("nan")])


def test_evaluate_reports_the_metrics_of_the_classifier_s_own_scores(tmp_path):
    model = tiny_model(tmp_path / "model")
    examples = [(as_chat(text), label) for text, label in [("steal a car", 1), ("bake bread", 0), ("spy on him", 1)]]
    classifier, _ = fit_classifier(ModelRef(str(model)), examples, ClassifierSettings("head", epochs=1), seed=0)
    corpus = [*examples, (as_chat("walk with the dog"), 0), (as_chat("steal the show"), 0)]
    labels = [label for _, label in corpus]
    scores = classifier.scores([chat for chat, _ in corpus])
    positive, negative = scores[np.array(labels) == 1], scores[np.array(labels) == 0]

    result, replicates = evaluate(classifier, iter(corpus))

    assert result["auprc"] == pytest.approx(auprc(labels, scores))
    assert result["auroc"] == pytest.approx(np.mean(positive[:, None] > negative[None, :]))
    assert result["prevalence"] == pytest.approx(2 / 5)
    assert result["n"] == 5
    counts = resampled(labels)
    expected = [average_precision_score(labels, scores, sample_weight=drawn) for drawn in counts[:20]]
    assert replicates["auprc"][:20] == pytest.approx(expected)
    assert len(replicates["auprc"]) == len(counts)
    with pytest.raises(FacError, match="classes 0 and 1"):
        evaluate(classifier, examples[:1])
