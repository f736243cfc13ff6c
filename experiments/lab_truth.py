"""Diagnostics of the lab against its ground truth: are the features that were found missing really missing?

The only module beside the tests (and the skill report) that may read texts with `fac.lab.world.truth`. It looks at what
the method found; nothing it computes goes back into the method.

The SAE's features stand for wordings, so a feature is matched with the wording it detects best on the anchor, and a
concept counts as found missing if a missing feature is matched with one of its wordings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fac.data.corpus import Corpus
from fac.lab.world.corpora import Sizes, known_concepts
from fac.lab.world.grammar import Concept, concepts
from fac.lab.world.truth import mentions, parse
from fac.pipeline import Gap, Measured


@dataclass(frozen=True)
class Match:
    """The wording that each feature detects best; arrays [n_features]."""

    wording: NDArray[np.int64]  # index into `wordings`
    f1: NDArray[np.float64]
    harmful_share: NDArray[np.float64]  # of the anchor texts that activate it


@dataclass(frozen=True)
class Found:
    """Missing harmful concepts: found against true."""

    precision: float
    recall: float
    found: int
    true: int


def wordings() -> list[tuple[Concept, str]]:
    return [(concept, wording) for concept in concepts() for wording in concept.wordings]


def match_features(anchor: Measured, cut: NDArray[np.float32]) -> Match:
    """Match every feature with the wording whose presence its activation predicts best (F1 on the anchor)."""
    index = {wording: number for number, (_, wording) in enumerate(wordings())}
    present = [[index[wording] for _, wording in mentions(example.text)] for example in anchor.corpus]
    said = csr_matrix(
        (np.ones(sum(map(len, present))), np.concatenate(present).astype(int), np.cumsum([0, *map(len, present)])),
        shape=(len(present), len(index)),
    )
    pooled = anchor.pooled
    indices, values = np.asarray(pooled.indices[:]), np.asarray(pooled.values[:])
    active = csr_matrix(
        ((values > cut[indices]).astype(float), indices, pooled.indptr), shape=(pooled.n_texts, pooled.n_features)
    )
    both = np.asarray((active.T @ said).todense())
    fires, occurs = np.asarray(active.sum(axis=0)).ravel(), np.asarray(said.sum(axis=0)).ravel()
    f1 = 2 * both / np.maximum(fires[:, None] + occurs[None, :], 1)
    labels = anchor.corpus.labels()
    harmful = np.asarray(active.T @ labels).ravel() / np.maximum(fires, 1)
    return Match(f1.argmax(axis=1), f1.max(axis=1), harmful)


def missing_concepts(gap: Gap, match: Match, row: int, seed: int, sizes: Sizes) -> Found:
    """Precision and recall of the harmful concepts behind F_miss at one threshold."""
    listed = wordings()
    known = set(known_concepts(seed, sizes))
    true = {c.name for c in concepts() if c.harmful and c not in known}
    found = {listed[match.wording[f]][0].name for f in np.flatnonzero(gap.missing(row))}
    hit = len(found & true)
    return Found(hit / len(found) if found else 0.0, hit / len(true), len(found), len(true))


def relevance_quality(gap: Gap, match: Match) -> Found:
    """Precision and recall of F against features over 80 % of whose active anchor texts are harmful."""
    alive = gap.anchor_counts[gap.at] > 0
    true = alive & (match.harmful_share > 0.8)
    found = alive & gap.relevant
    hit = int((true & found).sum())
    return Found(hit / max(int(found.sum()), 1), hit / max(int(true.sum()), 1), int(found.sum()), int(true.sum()))


def features_as_wordings(gap: Gap, match: Match) -> tuple[int, int]:
    """(wordings that some feature detects with F1 > 0.8, wordings in all)."""
    alive = gap.anchor_counts[gap.at] > 0
    return len(set(match.wording[alive & (match.f1 > 0.8)].tolist())), len(wordings())


@dataclass(frozen=True)
class Writing:
    """What synthetic texts really are, as shares of those not empty."""

    valid: float  # the grammar could have written them
    harmful: float  # of the valid ones: harmful, as their label says
    two_requests: float  # of the valid ones


def check_texts(texts: list[str]) -> Writing:
    parsed = [parse(text) for text in texts if text]
    valid = [query for query in parsed if query]
    if not valid:
        return Writing(0.0, 0.0, 0.0)
    harmful = sum(q.harmful for q in valid) / len(valid)
    return Writing(len(valid) / len(parsed), harmful, sum(len(q.requests) == 2 for q in valid) / len(valid))


def corpus_labels_agree(corpus: Corpus) -> bool:
    """Whether the labels of a drawn corpus are those of the parser (a self-check of the lab)."""
    return all((query := parse(e.text)) is not None and query.harmful == bool(e.label) for e in corpus)
