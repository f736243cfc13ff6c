"""Each feature's n strongest texts over a stream of batches, kept where the batches are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fac.features.pooling import packed, unpacked


class TopKeeper:
    """Keeps each feature's n strongest (value, text, token); of equal values the earlier text's, whatever the order."""

    def __init__(self, width: int, n: int, device: torch.device) -> None:
        # Value and text in one integer, strongest first; 0 where there are fewer.
        self._packs = torch.zeros(width, n, dtype=torch.int64, device=device)
        self._tokens = torch.zeros(width, n, dtype=torch.int32, device=device)

    def update(self, texts: torch.Tensor, features: torch.Tensor, packs: torch.Tensor) -> None:
        """Take the entries of a batch: value and token, packed, of each text and feature; all [entries]."""
        values, tokens = unpacked(packs)
        found = packed(values, texts)
        strong = (found > self._packs[features, -1]).nonzero()[:, 0]
        if not len(strong):
            return
        # The strong entries by feature, the strongest first.
        strong = strong[found[strong].argsort(descending=True)]
        strong = strong[features[strong].argsort(stable=True)]
        of, place, counts = features[strong].unique_consecutive(return_inverse=True, return_counts=True)
        rank = torch.arange(len(strong), device=strong.device) - (counts.cumsum(0) - counts)[place]
        n = self._packs.shape[1]
        first = rank < n
        strong, place, rank = strong[first], place[first], rank[first]
        merged = torch.zeros(len(of), 2 * n, dtype=torch.int64, device=strong.device)
        beside = torch.zeros(len(of), 2 * n, dtype=torch.int32, device=strong.device)
        merged[:, :n], beside[:, :n] = self._packs[of], self._tokens[of]
        merged[place, n + rank], beside[place, n + rank] = found[strong], tokens[strong].int()
        kept = merged.topk(n, dim=1)
        self._packs[of], self._tokens[of] = kept.values, beside.gather(1, kept.indices)

    def save(self, path: Path) -> None:
        """Write what `fac.corpus_features.Tops.load` reads."""
        values, texts = unpacked(self._packs)
        texts = torch.where(self._packs > 0, texts, -1)
        np.savez(path, values=values.cpu().numpy(), texts=texts.cpu().numpy(), tokens=self._tokens.cpu().numpy())
