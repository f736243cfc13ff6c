"""One streaming pass that gives g_i(x) for every text and feature, and each feature's top spans.

The device computes a batch while the host prepares the next and writes the one before: entries come to the host once a
batch, and no dense [texts, width] array does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fac.backbone import Backbone, on_device
from fac.chat import Encoded, Message
from fac.corpus_features import LENGTHS
from fac.features.batches import Batch, Content, windows
from fac.features.pooling import entries, pooled, unpacked
from fac.features.sent import Sent
from fac.features.settings import FeatureSettings
from fac.features.texts import Span, encode_measured, span_of
from fac.features.tops import TopKeeper
from fac.pooled import PooledWriter
from fac.sae.load import Sae, not_finite


class Watched(NamedTuple):
    """g_i of each text's own watched feature, and the position of its strongest token in the encoded chat."""

    values: list[float]
    tokens: list[int]


class Extractor:
    """Measures chats with one backbone and SAE."""

    def __init__(self, backbone: Backbone, sae: Sae, settings: FeatureSettings) -> None:
        self.backbone, self.sae, self.settings = backbone, sae, settings

    def extract(
        self,
        chats: Iterable[Sequence[Message]],
        folder: Path,
        total: int | None = None,
        watch: Sequence[int] | None = None,
    ) -> Watched:
        """Write the pooled matrix (`Pooled.load`), the tops (`Tops.load`) and `LENGTHS` of `chats` to `folder`.

        LENGTHS holds how many content tokens of each text were measured, int32 [texts]; the pooled matrix's record says
        of how many texts some were not (`cut`), being behind `max_tokens`. An empty chat activates nothing. With
        `watch`, one feature per chat, that feature's g_i and the position of its strongest token are returned as well.
        """
        record = {"rule": self.sae.rule, "max_tokens": self.settings.max_tokens}
        run = _Run(self, PooledWriter(folder, self.sae.width, record), watch)
        lengths: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        cut = 0
        with tqdm(total=total, desc="measuring texts", unit="text", leave=False) as bar:
            for window in windows(self.backbone, chats, self.settings):
                done = 0
                for batch in window.batches(self.batch_tokens, self.batch_texts):
                    run.take(batch)
                    done += len(batch.texts)
                    bar.update(len(batch.texts))
                lengths.append(window.lengths())
                cut += window.cut
                bar.update(len(lengths[-1]) - done)  # those without content
        measured = np.concatenate(lengths)
        watched = run.finish(len(measured), cut)
        np.save(folder / LENGTHS, measured)
        run.tops.save(folder / "tops.npz")
        return watched

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch, at most."""
        return self.settings.batch_on(self.backbone.device.type == "cuda")

    @property
    def batch_texts(self) -> int:
        """Texts of a batch, at most: a maximum of each is held for every feature."""
        return max(self.settings.encode_elements // self.sae.width, 1)

    def span(self, chat: Sequence[Message], token: int, length: int) -> Span:
        """Up to `length` tokens that end with the activating one; see `span_of`."""
        return span_of(self.backbone.tokenizer, chat, token, length, self.settings)

    def encode(self, chat: Sequence[Message]) -> Encoded:
        return encode_measured(self.backbone.tokenizer, chat, self.settings)


class _Run:
    """One pass over a corpus."""

    def __init__(self, extractor: Extractor, writer: PooledWriter, watch: Sequence[int] | None) -> None:
        self._extractor, self._writer = extractor, writer
        self._watch = np.array([] if watch is None else watch, np.int64)
        self._watched = np.zeros(len(self._watch), np.int64)
        self._coming: _Coming | None = None
        self.tops = TopKeeper(extractor.sae.width, extractor.settings.top_spans, extractor.backbone.device)

    def take(self, batch: Batch) -> None:
        """Measure a batch, and write the one before while the device is at this one's layers."""
        content = batch.content(self._extractor.backbone)
        self._write()
        self._coming = self._measure(batch, content)

    def finish(self, texts: int, cut: int) -> Watched:
        """Write what is left of a corpus of so many texts, of which `cut` were cut off."""
        self._write()
        self._writer.close(texts, cut=cut)
        values, tokens = unpacked(torch.from_numpy(self._watched))
        return Watched(values.tolist(), torch.where(values > 0, tokens, 0).tolist())

    @torch.inference_mode()
    def _measure(self, batch: Batch, content: Content) -> _Coming:
        extractor, device = self._extractor, content.residual.device
        best = pooled(extractor.sae, content, len(batch.texts), extractor.settings.encode_elements)
        found = entries(best)
        self.tops.update(on_device(batch.texts, device)[found.row], found.feature, found.pack)
        own = best.new_zeros(0)
        if len(self._watch):
            own = best.gather(1, on_device(self._watch[batch.texts], device)[:, None])
        counts = found.row.bincount(minlength=len(batch.texts))
        finite = content.residual.isfinite().all()
        return _Coming(batch.texts, Sent(counts, own.flatten(), found.feature.int(), unpacked(found.pack)[0], finite))

    def _write(self) -> None:
        if self._coming is None:
            return
        texts, sent = self._coming
        lengths, watched, features, values, finite = sent.arrays()
        if not finite.all():
            raise not_finite(self._extractor.backbone)
        self._writer.put(texts, lengths, features, values)
        if len(self._watch):
            self._watched[texts] = watched
        self._coming = None


class _Coming(NamedTuple):
    """What was found in a batch."""

    texts: NDArray[np.int64]
    sent: Sent
