"""The diversity of a corpus as a step: the model that measures its features embeds its texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from fac.data.corpus import Corpus
from fac.diversity import diversity
from fac.diversity.metrics import METRICS
from fac.encoder import FeatureEncoder
from fac.features import content_means
from fac.store import Step

DIVERSITY = "diversity.json"


def measured_diversity(encoder: FeatureEncoder, corpus: Step, texts: int) -> Step:
    """All metrics of a corpus' first `texts` texts (`load_diversity`).

    A text's embedding is the mean residual of its content tokens at the layer that features are read from.
    """
    params = {"embeddings": partial(_decides, encoder), "texts": texts, "metrics": list(METRICS)}
    return Step("diversity", partial(_measure, encoder, texts), params, (corpus,))


def load_diversity(folder: Path) -> dict[str, float]:
    """The metrics by name; none of a corpus of fewer than two texts."""
    return json.loads((folder / DIVERSITY).read_text(encoding="utf-8"))


def _decides(encoder: FeatureEncoder) -> Mapping[str, object]:
    """What decides a residual: all that decides an activation but the SAE's rule."""
    return {name: value for name, value in encoder.identity().items() if name != "rule"}


def _measure(encoder: FeatureEncoder, texts: int, folder: Path, corpus: Path) -> None:
    held = Corpus.load(corpus)
    examples = [held[i] for i in range(min(len(held), texts))]
    found: dict[str, float] = {}
    if len(examples) > 1:
        embeddings = content_means(encoder.backbone, [e.messages for e in examples], encoder.settings)
        found = diversity([e.text for e in examples], embeddings)
    (folder / DIVERSITY).write_text(json.dumps(found), encoding="utf-8")
