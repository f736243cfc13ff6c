"""The diversity metrics that the paper compares FAC with (Fig. 9), and others of the field: of texts and of embeddings.

Most depend on how many texts there are, and on how long they are: `sample` says how sets are made comparable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.diversity.anchor import Anchor
from fac.diversity.metric import Metric
from fac.diversity.metrics import METRICS
from fac.errors import FacError


def diversity(
    texts: Sequence[str],
    embeddings: NDArray[np.floating] | None = None,
    anchor: Anchor | None = None,
    words: Sequence[str] | None = None,
) -> dict[str, float]:
    """All metrics of a text set by name: those whose needs are given and that are installed.

    Those of embeddings [texts, d] need them, those seen against an anchor need both. `words` are the texts up to a
    number of words that other sets have too (`metrics.text.first_words`); None: all of them; empty: the set has fewer,
    and no metric that needs them. A metric that says nothing of the set is left out, too.
    Raises FacError for fewer than two texts.
    """
    if len(texts) < 2:
        raise FacError(f"Diversity is a property of a set of texts, and this one has {len(texts)}: give at least two.")
    if embeddings is not None and len(embeddings) != len(texts):
        raise ValueError(f"{len(embeddings)} embeddings for {len(texts)} texts")
    given: dict[str, tuple[Any, ...]] = {"texts": (texts,)}
    if words is None or words:
        given["words"] = (words or texts,)
    if embeddings is not None:
        given["embeddings"] = (embeddings,)
        given |= {} if anchor is None else {"anchored": (embeddings, anchor)}
    found = {name: metric.compute(*given[metric.needs]) for name, metric in there().items() if metric.needs in given}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def there() -> dict[str, Metric]:
    """The metrics that are installed, by name."""
    return {name: metric for name, metric in METRICS.items() if metric.is_there}


def lacking() -> str:
    """What is said of metrics that are not installed; empty where all are."""
    gone = [metric for metric in METRICS.values() if not metric.is_there]
    extras = {metric.extra.name for metric in gone if metric.extra}
    titles = ", ".join(metric.title for metric in gone)
    return f"Not measured, since the extra {', '.join(sorted(extras))} is not installed: {titles}." if gone else ""
