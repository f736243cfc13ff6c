"""The diversity metrics that the paper compares FAC with (Fig. 9): of texts, and of text embeddings.

The paper's syntactic metrics but mean sentence length (POS Distinct-2, dependency-relation entropy) are left out: they
need a trained parser, which is no dependency of this project.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fac.diversity.metrics import METRICS
from fac.errors import FacError


def diversity(texts: Sequence[str], embeddings: NDArray[np.floating] | None = None) -> dict[str, float]:
    """All metrics of a text set by name; those of embeddings [texts, d] only if they are given.

    Raises FacError for fewer than two texts.
    """
    if len(texts) < 2:
        raise FacError(f"Diversity is a property of a set of texts, and this one has {len(texts)}: give at least two.")
    if embeddings is not None and len(embeddings) != len(texts):
        raise ValueError(f"{len(embeddings)} embeddings for {len(texts)} texts")
    given = {"texts": texts} if embeddings is None else {"texts": texts, "embeddings": embeddings}
    return {name: metric.compute(given[metric.needs]) for name, metric in METRICS.items() if metric.needs in given}
