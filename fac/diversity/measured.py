"""The diversity of a corpus as a step: the model that measures its features embeds its texts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fac.data.corpus import Corpus
from fac.diversity import diversity, there
from fac.encoder import FeatureEncoder
from fac.store import Step

DIVERSITY = "diversity.json"
EMBEDDINGS, ROWS = "embeddings.npy", "rows.npy"


def measured_diversity(encoder: FeatureEncoder, corpus: Step, texts: int) -> Step:
    """All metrics of a corpus' first `texts` texts (`load_diversity`) but those that are seen against an anchor.

    A text's embedding is the mean residual of its content tokens at the layer that features are read from.
    """
    params = {"embeddings": encoder.of_residuals, "texts": texts, "metrics": identities}
    return Step("diversity", partial(_measure, encoder, texts), params, (corpus,))


def load_diversity(folder: Path) -> dict[str, float]:
    """The metrics by name; none of a corpus of fewer than two texts."""
    return json.loads((folder / DIVERSITY).read_text(encoding="utf-8"))


def embedded(encoder: FeatureEncoder, corpus: Step, most: int | None = None) -> Step:
    """The embeddings of a corpus' texts, at most `most` of them, drawn by a fixed seed (`load_embeddings`)."""
    params = {"embeddings": encoder.of_residuals, "most": most}
    return Step("embeddings", partial(_embed, encoder, most), params, (corpus,))


def load_embeddings(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings [texts, d], and which texts of the corpus they are of [texts]."""
    return np.load(folder / EMBEDDINGS), np.load(folder / ROWS)


def identities() -> list[str]:
    """What decides the metrics that are measured here."""
    return [metric.identity() for metric in there().values()]


def _measure(encoder: FeatureEncoder, texts: int, folder: Path, corpus: Path) -> None:
    held = Corpus.load(corpus)
    examples = [held[i] for i in range(min(len(held), texts))]
    found: dict[str, float] = {}
    if len(examples) > 1:
        from fac.features.means import content_means

        embeddings = content_means(encoder.backbone, [e.messages for e in examples], encoder.settings)
        found = diversity([e.text for e in examples], embeddings)
    (folder / DIVERSITY).write_text(json.dumps(found), encoding="utf-8")


def _embed(encoder: FeatureEncoder, most: int | None, folder: Path, corpus: Path) -> None:
    held = Corpus.load(corpus)
    rows = np.arange(len(held))
    if most is not None and most < len(held):
        rows = np.sort(np.random.default_rng(0).choice(len(held), most, replace=False))
    chats = [held[int(row)].messages for row in rows]
    from fac.features.means import content_means

    embeddings = content_means(encoder.backbone, chats, encoder.settings)
    np.save(folder / EMBEDDINGS, embeddings)
    np.save(folder / ROWS, rows)
