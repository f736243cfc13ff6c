"""What a diversity metric is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np

FIGURE_9 = "arXiv 2602.10388, Fig. 9"  # a source that names a metric and says no more of it

# What of a set `Metric.compute` is given:
# texts       its texts
# words       its texts, of which those of all sets that are compared hold equally many words: shares of different words
#             and entropies of words hang on their number
# embeddings  its texts' embeddings [texts, d]
# anchored    those, and the `fac.diversity.anchor.Anchor` that all sets are seen against
Needs = Literal["texts", "words", "embeddings", "anchored"]
OF = {"texts": "texts", "words": "words", "embeddings": "embeddings", "anchored": "embeddings beside the anchor's"}


@dataclass(frozen=True)
class Extra:
    """Packages that come with one of the project's extras, and not without it."""

    name: str
    packages: tuple[str, ...]  # modules, called as their distributions are

    @property
    def is_installed(self) -> bool:
        return all(importlib.util.find_spec(package) is not None for package in self.packages)

    def identity(self) -> str:
        """What decides results: the packages' versions."""
        return ", ".join(f"{package} {version(package)}" for package in self.packages)


@dataclass(frozen=True)
class Metric:
    """One number of a set of texts. Most depend on how many there are: compare sets of equal size."""

    name: str
    title: str  # such as "Distinct-2"
    needs: Needs  # what `compute` is given
    compute: Callable[..., float]  # of at least two texts; NaN where it says nothing of them
    unit: str = ""
    higher_is_diverse: bool | None = True  # None: it says nothing of diversity by itself
    source: str = ""  # who defined it
    extra: Extra | None = None  # what must be installed for it

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def told(self) -> str:
        """What it is, of what, which way it points and who defined it, in one line."""
        direction = {True: "more is more diverse", False: "less is more diverse", None: ""}[self.higher_is_diverse]
        return "; ".join(filter(None, (f"{self.heading}, of {OF[self.needs]}", direction, self.source)))

    @property
    def is_there(self) -> bool:
        """Whether it can be computed here."""
        return self.extra is None or self.extra.is_installed

    def identity(self) -> str:
        """What decides it, beside the code: its name, and the versions of an extra's packages."""
        return self.name if self.extra is None else f"{self.name} ({self.extra.identity()})"


def entropy(frequencies: Iterable[int]) -> float:
    """Shannon entropy in bits of the distribution proportional to `frequencies` (> 0); 0 of none."""
    p = np.array(list(frequencies), dtype=np.float64)
    p = p / p.sum()
    return float((p * np.log2(1 / p)).sum())
