"""Metrics of text embeddings [texts, d]. Clusters are k-means with ten centres: what the paper took is not known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fac.diversity.anchor import Anchor
from fac.diversity.metric import FIGURE_9, Metric, entropy
from fac.vectors import unit_rows


def trace_covariance(embeddings: NDArray[np.floating]) -> float:
    """Trace of the sample covariance of embeddings [n, d]: their total variance, in the square of their unit.

    (Of embeddings of length 1 it would be the mean cosine distance.)
    """
    return float(np.var(embeddings, axis=0, ddof=1, dtype=np.float64).sum())


def mean_cosine_distance(embeddings: NDArray[np.floating]) -> float:
    """Mean of 1 − cosine over all pairs of embeddings [n, d], in O(n·d). A zero vector has cosine 0 with all."""
    unit = unit_rows(embeddings)
    n = len(unit)
    cosines = (unit.sum(axis=0) ** 2).sum() - (unit**2).sum()  # over ordered pairs of different texts
    return float(1 - cosines / (n * (n - 1)))


def cluster_entropy(embeddings: NDArray[np.floating], *, clusters: int = 10, seed: int = 0) -> float:
    """Shannon entropy, in bits, of cluster sizes: k-means on the directions of embeddings [n, d].

    At most log2(clusters), reached when the texts fill all clusters evenly.
    """
    from sklearn.cluster import KMeans

    unit = unit_rows(embeddings)
    clusters = min(clusters, len(np.unique(unit, axis=0)))
    kmeans = KMeans(clusters, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType] (no stubs)
    labels = kmeans.fit_predict(unit)
    return entropy(np.bincount(labels).tolist())


def anchor_cluster_entropy(embeddings: NDArray[np.floating], anchor: Anchor) -> float:
    """Shannon entropy, in bits, of how embeddings [n, d] fall into the anchor's clusters, which are alike for all sets.

    At most log2 of their number.
    """
    counts = np.bincount(anchor.cluster_of(embeddings))
    return entropy(counts[counts > 0].tolist())


def semantic_entropy(embeddings: NDArray[np.floating], anchor: Anchor) -> float:
    """Shannon entropy, in bits, of classes of meaning, at most log2(n): a stand-in for that of arXiv 2302.09664.

    There two texts are of one class if each entails the other by a model of inference, which is not at hand offline.
    Here they are if all of the class are nearer to each other than 95 % of the pairs of anchor texts (cosine distance,
    complete linkage). It is the number of classes that differs from cluster entropy: it is not given, but follows.
    """
    from sklearn.cluster import AgglomerativeClustering

    # Between unit vectors Euclidean distance rises with the cosine's; between zero vectors it is defined, too.
    grouped = AgglomerativeClustering(n_clusters=None, linkage="complete", distance_threshold=anchor.near)  # pyright: ignore[reportArgumentType] (no stubs)
    return entropy(np.bincount(grouped.fit_predict(unit_rows(embeddings))).tolist())


def vendi(embeddings: NDArray[np.floating]) -> float:
    """Vendi score with the cosine as kernel: exp of the entropy (in nats) of the eigenvalues of K / n; 1 to n.

    Of embeddings [n, d]. The eigenvalues are those of the smaller of X Xᵀ and Xᵀ X. A zero vector is like itself alone.
    """
    unit = unit_rows(embeddings)
    n, d = unit.shape
    values = np.linalg.eigvalsh(unit @ unit.T if n < d else unit.T @ unit) / n
    alone = np.full(int((~unit.any(axis=1)).sum()), 1 / n)
    values = np.concatenate([values[values > 1e-12], alone])
    return float(np.exp(-(values * np.log(values)).sum()))


METRICS = (
    Metric("trace_covariance", "Trace of the covariance", "embeddings", trace_covariance, source=FIGURE_9),
    Metric("mean_cosine_distance", "Mean cosine distance", "embeddings", mean_cosine_distance, source=FIGURE_9),
    Metric("cluster_entropy", "Cluster entropy", "embeddings", cluster_entropy, "bits", source=FIGURE_9),
    Metric("vendi", "Vendi score", "embeddings", vendi, source="arXiv 2210.02410"),
    Metric(
        "anchor_cluster_entropy", "Cluster entropy, the anchor's clusters", "anchored", anchor_cluster_entropy, "bits",
    ),
    Metric(
        "semantic_entropy", "Semantic entropy, by embeddings", "anchored", semantic_entropy, "bits",
        source="after arXiv 2302.09664",
    ),
)  # fmt: skip
