"""The diversity of what methods add, made comparable: equally many texts of each, and equally many words.

Of each set the same number of texts is drawn, again and again; the numbers are means over the draws. Shares of
different words and entropies hang on how many words there are more than on how many texts: they are measured on whole
texts, drawn until there are as many words as so many texts of the anchor have on average, the last one cut. So a set
counts neither for being large nor for being wordy.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fac.data.corpus import Corpus
from fac.diversity import diversity
from fac.diversity.anchor import Anchor
from fac.diversity.measured import DIVERSITY, embedded, identities, load_embeddings
from fac.diversity.metrics.text import first_words, words
from fac.encoder import FeatureEncoder
from fac.store import Step

ANCHOR_TEXTS = 2000  # of the anchor, that sets are seen against


@dataclass(frozen=True)
class Sampled:
    """The diversity of a set of texts."""

    draws: dict[str, list[float]]  # by metric: its value in each draw; none of a set that is too small
    texts: int  # of the set
    words: int  # of the set
    of_texts: int  # that each draw holds
    of_words: int  # ... for metrics that need words


def sampled_diversity(encoder: FeatureEncoder, corpus: Step, anchor: Step, texts: int, draws: int) -> Step:
    """All metrics of a corpus over `draws` draws of `texts` texts (`load_sampled`).

    Embeddings are the mean residuals of content tokens at the layer that features are read from, less their mean over
    the anchor: all texts share a few large directions, beside which nothing else would be seen.
    """
    params = {"texts": texts, "draws": draws, "metrics": identities}
    inputs = (corpus, embedded(encoder, corpus), anchor, embedded(encoder, anchor, ANCHOR_TEXTS))
    return Step("sampled_diversity", partial(_sample, texts, draws), params, inputs, parallel=True)


def load_sampled(folder: Path) -> Sampled:
    """What `sampled_diversity` found."""
    return Sampled(**json.loads((folder / DIVERSITY).read_text(encoding="utf-8")))


def sampled(
    texts: list[str], embeddings: NDArray[np.floating], anchor: Anchor, of_texts: int, of_words: int, draws: int
) -> dict[str, list[float]]:
    """Every metric in each of `draws` draws of `of_texts` texts without replacement, and of `of_words` words.

    Metrics of words are left out of a set that has fewer, and all of one that has fewer texts, or less than two.
    """
    found: dict[str, list[float]] = {}
    if min(len(texts), of_texts) < max(of_texts, 2):
        return found
    enough = sum(len(words(text)) for text in texts) >= of_words
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(texts))
        drawn = [texts[i] for i in order[:of_texts]]
        in_words = first_words([texts[i] for i in order], of_words) if enough else []
        for name, value in diversity(drawn, embeddings[order[:of_texts]], anchor, in_words).items():
            found.setdefault(name, []).append(value)
    return found


def _sample(
    of_texts: int, draws: int, folder: Path, corpus: Path, embeddings: Path, anchor: Path, anchor_embeddings: Path
) -> None:
    texts = [example.text for example in Corpus.load(corpus)]
    held, rows = load_embeddings(anchor_embeddings)
    known = Corpus.load(anchor)
    mean_words = np.mean([len(words(known[int(row)].text)) for row in rows])
    of_words, centre = round(of_texts * float(mean_words)), held.mean(axis=0)
    found = sampled(texts, load_embeddings(embeddings)[0] - centre, Anchor(held - centre), of_texts, of_words, draws)
    total = sum(len(words(text)) for text in texts)
    told = Sampled(found, len(texts), total, of_texts, of_words)
    (folder / DIVERSITY).write_text(json.dumps(asdict(told)), encoding="utf-8")
