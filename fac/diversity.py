"""The diversity metrics that the paper compares FAC with (Fig. 9): of texts, and of text embeddings.

Knows: strings and embedding matrices. Does not know: SAE features, or which model embeds (the caller brings
embeddings). The paper's syntactic metrics but mean sentence length (POS Distinct-2, dependency-relation entropy) are
left out: they need a trained parser, which is no dependency of this project. Where the paper leaves a setting
unknown (tokenisation, k-means), the choice here is ours and is stated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from fac.errors import FacError

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?…]+(?=\s|$)|\n+")


def diversity(
    texts: Sequence[str], embeddings: NDArray[np.floating] | None = None, *, seed: int = 0
) -> dict[str, float]:
    """All metrics of a text set by name; those of embeddings [n_texts, d] only if they are given.

    Most metrics depend on the number of texts: compare sets of equal size. Raises FacError for fewer than two texts.
    """
    if len(texts) < 2:
        raise FacError(f"Diversity is a property of a set of texts, and this one has {len(texts)}: give at least two.")
    scores = {
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "bigram_entropy": bigram_entropy(texts),
        "self_bleu_4": self_bleu_4(texts, seed=seed),
        "mean_sentence_length": mean_sentence_length(texts),
    }
    if embeddings is not None:
        if len(embeddings) != len(texts):
            raise ValueError(f"{len(embeddings)} embeddings for {len(texts)} texts")
        scores |= {
            "trace_covariance": trace_covariance(embeddings),
            "mean_cosine_distance": mean_cosine_distance(embeddings),
            "cluster_entropy": cluster_entropy(embeddings, seed=seed),
        }
    return scores


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores, joined over inner apostrophes and hyphens."""
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams / all n-grams of the set (n-grams do not cross texts); 0 if there is none."""
    grams = _ngrams(texts, n)
    return len(grams) / grams.total() if grams else 0.0


def bigram_entropy(texts: Sequence[str]) -> float:
    """Shannon entropy, in bits, of the set's word bigrams; 0 if there is none."""
    return _entropy(_ngrams(texts, 2).values())


def self_bleu_4(texts: Sequence[str], *, at_most: int = 100, seed: int = 0) -> float:
    """Mean BLEU-4 in [0, 1] of each text against all others (higher = LESS diverse); smoothing method 1 of nltk.

    The cost is quadratic, so larger sets are represented by a random sample of `at_most` texts drawn with `seed`.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if len(texts) > at_most:
        picked = np.random.default_rng(seed).choice(len(texts), at_most, replace=False)
        texts = [texts[int(i)] for i in picked]
    tokens = [words(text) for text in texts]
    smooth = SmoothingFunction().method1
    scores = [
        sentence_bleu(tokens[:i] + tokens[i + 1 :], tokens[i], smoothing_function=smooth) for i in range(len(tokens))
    ]
    return float(np.mean(scores))


def mean_sentence_length(texts: Sequence[str]) -> float:
    """Mean number of words per sentence; a sentence ends at . ! ? … before white space, or at a line break."""
    lengths = [len(words(part)) for text in texts for part in _SENTENCE_END.split(text)]
    lengths = [length for length in lengths if length]
    return float(np.mean(lengths)) if lengths else 0.0


def trace_covariance(embeddings: NDArray[np.floating]) -> float:
    """Trace of the sample covariance of embeddings [n, d]: their total variance."""
    return float(np.var(embeddings, axis=0, ddof=1, dtype=np.float64).sum())


def mean_cosine_distance(embeddings: NDArray[np.floating]) -> float:
    """Mean of 1 − cosine over all pairs of embeddings [n, d], in O(n·d). A zero vector has cosine 0 with all."""
    unit = _unit(embeddings)
    n = len(unit)
    cosines = (unit.sum(axis=0) ** 2).sum() - (unit**2).sum()  # over ordered pairs of different texts
    return float(1 - cosines / (n * (n - 1)))


def cluster_entropy(embeddings: NDArray[np.floating], *, clusters: int = 10, seed: int = 0) -> float:
    """Shannon entropy, in bits, of cluster sizes: k-means on the directions of embeddings [n, d].

    At most log2(clusters), reached when the texts fill all clusters evenly.
    """
    from sklearn.cluster import KMeans

    unit = _unit(embeddings)
    clusters = min(clusters, len(np.unique(unit, axis=0)))
    kmeans = KMeans(clusters, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType] (no stubs)
    labels = kmeans.fit_predict(unit)
    return _entropy(np.bincount(labels).tolist())


def _ngrams(texts: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    tokens = (words(text) for text in texts)
    return Counter(chain.from_iterable(zip(*(t[i:] for i in range(n)), strict=False) for t in tokens))


def _entropy(frequencies: Iterable[int]) -> float:
    """Shannon entropy in bits of the distribution proportional to `frequencies` (> 0)."""
    p = np.array(list(frequencies), dtype=np.float64)
    p = p / p.sum()
    return float((p * np.log2(1 / p)).sum())


def _unit(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows scaled to length 1; zero rows stay zero."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms > 0, norms, 1)
