"""What measuring a corpus left (`fac.features` writes it), read without a model: pages and statistics need no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fac.pooled import Pooled

LENGTHS = "lengths.npy"


@dataclass(frozen=True)
class Tops:
    """Each feature's strongest texts, best first: arrays [n_features, n]; text -1 where there are fewer."""

    values: NDArray[np.float32]
    texts: NDArray[np.int64]
    tokens: NDArray[np.int32]  # position of the activating token in the encoded chat

    @classmethod
    def load(cls, folder: Path) -> Tops:
        with np.load(folder / "tops.npz") as file:
            return cls(file["values"], file["texts"], file["tokens"])


@dataclass(frozen=True)
class CorpusFeatures:
    """The activations of a corpus."""

    pooled: Pooled
    tops: Tops
    lengths: NDArray[np.int32]  # [texts], content tokens that were measured

    @classmethod
    def load(cls, folder: Path) -> CorpusFeatures:
        return cls(Pooled.load(folder), Tops.load(folder), np.load(folder / LENGTHS))

    def note(self, name: str) -> str:
        """What a table says of texts longer than what is measured (features.max_tokens); empty if there was none."""
        meta = self.pooled.meta
        return cut_note(name, int(meta["cut"]), self.pooled.n_texts, int(meta["max_tokens"]))


def cut_note(name: str, cut: int, texts: int, max_tokens: int) -> str:
    """What is said of a data set some of whose texts were longer than what is measured; empty if none was."""
    if not cut:
        return ""
    return f"{cut:,} of {texts:,} {name} texts were cut at {max_tokens} tokens (features.max_tokens)."
