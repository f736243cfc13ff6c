"""What a diversity metric is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Metric:
    """One number of a set of texts. Most depend on how many there are: compare sets of equal size."""

    name: str
    title: str  # such as "Distinct-2"
    needs: Literal["texts", "embeddings"]
    compute: Callable[[Any], float]  # of at least two texts, or of their embeddings [texts, d]
    unit: str = ""
    higher_is_diverse: bool = True

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def entropy(frequencies: Iterable[int]) -> float:
    """Shannon entropy in bits of the distribution proportional to `frequencies` (> 0)."""
    p = np.array(list(frequencies), dtype=np.float64)
    p = p / p.sum()
    return float((p * np.log2(1 / p)).sum())
