"""How well a binary classifier ranks: the toxicity metric of the paper (App. J, Tables 1, 3, 4, 6, 7, 9-13).

All metrics are fractions in 0..1 (the paper prints percent). Models appear only as what scores chats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.statistics import Replicates, resampled, resampled_auprc
from fac.errors import FacError

if TYPE_CHECKING:
    from fac.chat import Message
    from fac.train.classifier import Classifier


def auprc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as average precision (App. J), a fraction; chance level is the prevalence.

    `labels` [n] are 0 or 1, `scores` [n] grow with the probability of class 1; only their order counts. Raises FacError
    if the labels hold one class only or a score is not a finite number.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_checked(labels, scores)))


def evaluate(
    classifier: Classifier, corpus: Iterable[tuple[Sequence[Message], int]]
) -> tuple[dict[str, float], Replicates]:
    """Score every (chat, label) of `corpus`: auprc, auroc and prevalence, as fractions, and n, the number of chats.

    Beside them the bootstrap replicates of auprc over the texts, each class resampled among itself (the prevalence, on
    which AUPRC depends, stays that of the test). Raises FacError if the corpus holds one class only.
    """
    chats, labels = [], []
    for chat, label in corpus:
        chats.append(chat)
        labels.append(label)
    return rated(labels, classifier.scores(chats))


def rated(labels: ArrayLike, values: ArrayLike) -> tuple[dict[str, float], Replicates]:
    """What `evaluate` gives, of labels and scores [n] that are there."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, scores = _checked(labels, values)
    metrics = {
        "auprc": float(average_precision_score(truth, scores)),
        "auroc": float(roc_auc_score(truth, scores)),
        "prevalence": float(truth.mean()),
        "n": len(truth),
    }
    return metrics, {"auprc": resampled_auprc(truth, scores, resampled(truth))}


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth, values = np.asarray(labels, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if set(truth.tolist()) != {0, 1}:
        raise FacError(
            f"Ranking metrics need texts of classes 0 and 1, but the test set of {len(truth)} has labels "
            f"{sorted(set(truth.tolist()))}: evaluate on a set with both."
        )
    if not np.isfinite(values).all():
        raise FacError("Some scores are not finite numbers, so training diverged: lower train.learning_rate.")
    return truth, values
