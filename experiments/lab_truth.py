"""Diagnostics of the lab against its ground truth: are the features that were found missing really missing?

The only module beside the tests (and the skill report) that may read texts with `fac.lab.world.truth`. It looks at what
the method found; nothing it computes goes back into the method.

The SAE's features stand for wordings, so a feature is matched with the wording it detects best on the anchor, and a
concept counts as found missing if a missing feature is matched with one of its wordings.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

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
    """A set that was found against the true one."""

    precision: float
    recall: float
    found: int
    true: int

    @classmethod
    def of(cls, found: Set[object], true: Set[object]) -> Found:
        hit = len(found & true)
        return cls(hit / max(len(found), 1), hit / max(len(true), 1), len(found), len(true))


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
    """The harmful concepts behind F_miss at one threshold, against those that the seed data never ask for."""
    known = set(known_concepts(seed, sizes))
    true = {c.name for c in concepts() if c.harmful and c not in known}
    return Found.of(named_missing(gap, match, row)[0], true)


def missing_wordings(gap: Gap, match: Match, row: int) -> Found:
    """The harmful wordings behind F_miss at one threshold, against those that no seed text uses.

    Finer than concepts: seed data that know a concept may lack some of its wordings, which are then rightly missing.
    """
    listed = wordings()
    said = {wording for example in gap.seed.corpus for _, wording in mentions(example.text)}
    true = {wording for concept, wording in listed if concept.harmful and wording not in said}
    return Found.of(named_missing(gap, match, row)[1], true)


def named_missing(gap: Gap, match: Match, row: int) -> tuple[set[str], set[str]]:
    """The concepts and the wordings behind F_miss at one threshold."""
    found = [wordings()[match.wording[f]] for f in np.flatnonzero(gap.missing(row))]
    return {concept.name for concept, _ in found}, {wording for _, wording in found}


def relevance_quality(gap: Gap, match: Match) -> Found:
    """F against the features over 80 % of whose active anchor texts are harmful."""
    alive = gap.anchor_counts[gap.at] > 0
    true, found = np.flatnonzero(alive & (match.harmful_share > 0.8)), np.flatnonzero(alive & gap.relevant)
    return Found.of(set(found.tolist()), set(true.tolist()))


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
