"""Metrics of text embeddings [texts, d]. Clusters are k-means with ten centres: what the paper took is not known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fac.diversity.metric import Metric, entropy


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
    return entropy(np.bincount(labels).tolist())


def _unit(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows scaled to length 1; zero rows stay zero."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms > 0, norms, 1)


METRICS = (
    Metric("trace_covariance", "Trace of the covariance", "embeddings", compute=trace_covariance),
    Metric("mean_cosine_distance", "Mean cosine distance", "embeddings", compute=mean_cosine_distance),
    Metric("cluster_entropy", "Cluster entropy", "embeddings", compute=cluster_entropy, unit="bits"),
)
