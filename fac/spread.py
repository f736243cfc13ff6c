"""A corpus measured in parts, on as many machines as there are, and joined to what one pass would have written.

A part that is finished is found again by a run that goes on after a kill.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fac.corpus_features import LENGTHS, CorpusFeatures, Tops
from fac.data.corpus import Corpus
from fac.features.settings import FeatureSettings
from fac.model_ref import ModelRef
from fac.pooled import Pooled, PooledWriter
from fac.sae.ref import SaeRef

if TYPE_CHECKING:
    from fac.backbone import Backbone
    from fac.features.extract import Extractor


@dataclass(frozen=True)
class Reader:
    """The model and SAE that measure, as another machine loads them; `of_origin` as in `fac.sae.load`."""

    model: ModelRef
    layer: int
    sae: SaeRef
    settings: FeatureSettings
    of_origin: bool = False

    def extractor(self, backbone: Backbone | None = None) -> Extractor:
        """Model (unless it is there) and SAE, loaded and checked."""
        from fac.backbone import Backbone
        from fac.features.extract import Extractor
        from fac.sae.load import load

        backbone = backbone or Backbone(self.model, self.layer)
        sae = load(self.sae, backbone, self.settings.rule, self.settings.product, self.of_origin)
        return Extractor(backbone, sae, self.settings)


class Part(NamedTuple):
    """Texts `first` to `last` (exclusive) of a corpus, to be measured into `folder`."""

    reader: Reader
    corpus: Path
    first: int
    last: int
    folder: Path


@dataclass(frozen=True)
class Spread:
    """Who measures parts: `each` calls a function for every part, wherever, and returns when all are done."""

    each: Callable[[Callable[[Part], None], Sequence[Part]], None]
    workers: Callable[[], int]
    least: int  # texts of a part: whoever measures it loads the model

    def measure(self, reader: Reader, corpus: Path, folder: Path) -> bool:
        """Write what `Extractor.extract` would; False if the corpus is too small to be cut, and nothing was done."""
        texts = len(Corpus.load(corpus))
        count = min(self.workers(), texts // self.least)
        if count < 2:
            return False
        bounds = np.linspace(0, texts, count + 1).astype(int).tolist()
        parts = [
            Part(reader, corpus, first, last, folder / f"part-{number}-of-{count}")
            for number, (first, last) in enumerate(pairwise(bounds))
        ]
        self.each(measure, parts)
        join([part.folder for part in parts], folder)
        for left in folder.glob("*part-*"):  # also of a run with other workers
            shutil.rmtree(left)
        return True


def measure(part: Part) -> None:
    """Measure a part, unless that is done."""
    if part.folder.is_dir():
        return
    begun = part.folder.with_name(f".{part.folder.name}")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir()
    texts = Corpus.load(part.corpus)
    chats = (texts[number].messages for number in range(part.first, part.last))
    _loaded(part.reader).extract(chats, begun, part.last - part.first)
    os.rename(begun, part.folder)


@lru_cache(maxsize=1)
def _loaded(reader: Reader) -> Extractor:
    """Loaded once by a worker for all its parts."""
    return reader.extractor()


def join(parts: Sequence[Path], folder: Path) -> None:
    """Write the parts of a corpus, in order, as one: pooled matrix, tops, lengths."""
    found = [CorpusFeatures.load(part) for part in parts]
    first = found[0].pooled
    kept = {name: value for name, value in first.meta.items() if name not in ("n_features", "n_texts", "cut")}
    writer = PooledWriter(folder, first.n_features, kept)
    starts = np.cumsum([0, *(part.pooled.n_texts for part in found)])
    for start, part in zip(starts, found, strict=False):
        _copy(part.pooled, int(start), writer)
    writer.close(int(starts[-1]), cut=sum(int(part.pooled.meta["cut"]) for part in found))
    np.save(folder / LENGTHS, np.concatenate([part.lengths for part in found]))
    tops = joined([part.tops for part in found], starts[:-1].tolist())
    np.savez(folder / "tops.npz", values=tops.values, texts=tops.texts, tokens=tops.tokens)


def joined(tops: Sequence[Tops], starts: Sequence[int]) -> Tops:
    """Each feature's strongest texts over parts that start at these texts; of equal values the earlier text's."""
    n = tops[0].values.shape[1]
    values = np.concatenate([part.values for part in tops], axis=1)
    texts = [np.where(part.texts >= 0, part.texts + start, -1) for part, start in zip(tops, starts, strict=True)]
    strongest = np.argsort(-values, axis=1, kind="stable")[:, :n]
    return Tops(
        np.take_along_axis(values, strongest, 1),
        np.take_along_axis(np.concatenate(texts, axis=1), strongest, 1),
        np.take_along_axis(np.concatenate([part.tokens for part in tops], axis=1), strongest, 1),
    )


def _copy(pooled: Pooled, start: int, writer: PooledWriter) -> None:
    for rows in pooled.chunks():
        lengths = np.diff(rows.indptr)
        writer.put(start + rows.first + np.arange(len(lengths)), lengths, rows.indices, rows.values)
