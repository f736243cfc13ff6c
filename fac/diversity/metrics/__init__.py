"""The diversity metrics, one file per kind.

A new metric is a file in this folder that defines METRICS, a sequence of `Metric`; nothing lists the files.
"""

from __future__ import annotations

import importlib
import pkgutil

from fac.diversity.metric import Metric


def collect() -> dict[str, Metric]:
    """Every metric of the modules in this folder by name, those of texts first.

    Raises ValueError if two have one name.
    """
    found: dict[str, Metric] = {}
    for module in sorted(part.name for part in pkgutil.iter_modules(__path__)):
        held = importlib.import_module(f"{__name__}.{module}")
        for metric in getattr(held, "METRICS", ()):
            if metric.name in found:
                raise ValueError(f"two metrics are called {metric.name}; one of them is in {held.__file__}")
            found[metric.name] = metric
    return dict(sorted(found.items(), key=lambda item: item[1].needs != "texts"))


METRICS = collect()
