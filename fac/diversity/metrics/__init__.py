"""The diversity metrics, one file per kind.

A new metric is a file in this folder that defines METRIC, or METRICS where it has several; nothing lists the files.
"""

from __future__ import annotations

from fac.diversity.metric import Metric
from fac.parts import parts


def collect() -> dict[str, Metric]:
    """Every metric of the modules in this folder, those of texts first. Raises ValueError if two have one name."""
    found: dict[str, Metric] = parts(__name__, __path__, "metric")
    return dict(sorted(found.items(), key=lambda item: item[1].needs not in ("texts", "words")))


METRICS = collect()
