"""What all sets of texts are seen against where they are compared by their embeddings: those of the anchor's texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.vectors import unit_rows

Embeddings = NDArray[np.floating]  # [texts, d]


@dataclass(frozen=True, eq=False)
class Anchor:
    """Embeddings of the anchor's texts [texts, d]; what follows from them is worked out once."""

    embeddings: Embeddings
    clusters: int = 10
    share: float = 0.05  # of the pairs of texts, that are near each other
    seed: int = 0

    @cached_property
    def near(self) -> float:
        """Euclidean distance of unit vectors below which `share` of the anchor's pairs lie (of 1,000 texts at most)."""
        from scipy.spatial.distance import pdist

        unit = unit_rows(self.embeddings)
        if len(unit) > 1000:
            unit = unit[np.random.default_rng(self.seed).choice(len(unit), 1000, replace=False)]
        return float(np.quantile(pdist(unit), self.share))

    def cluster_of(self, embeddings: Embeddings) -> NDArray[np.int64]:
        """The anchor's cluster (k-means on directions) that each embedding [n, d] is nearest to; shape [n]."""
        return np.asarray(self._kmeans.predict(unit_rows(embeddings)), np.int64)

    @cached_property
    def _kmeans(self) -> Any:
        from sklearn.cluster import KMeans

        unit = unit_rows(self.embeddings)
        clusters = min(self.clusters, len(np.unique(unit, axis=0)))
        return KMeans(clusters, n_init=10, random_state=self.seed).fit(unit)  # pyright: ignore[reportArgumentType] (no stubs)
