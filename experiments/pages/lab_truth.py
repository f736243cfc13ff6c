"""Diagnostics of the lab against its ground truth: are the features that were found missing really missing?

The only module beside the tests (and the skill report) that may read texts with `fac.lab.world.truth`. It looks at what
the method found; nothing it computes goes back into the method.

The SAE's features stand for wordings, so a feature is matched with the wording it detects best on the anchor, and a
concept counts as found missing if a missing feature is matched with one of its wordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from experiments.harness.experiment import Results, matching
from experiments.harness.results import Cell, observed
from fac.data.corpus import Corpus
from fac.encoder import CorpusFeatures
from fac.gap import MissingFeatures
from fac.lab.world.corpora import Sizes, known_concepts
from fac.lab.world.grammar import Concept, concepts
from fac.lab.world.truth import mentions, parse


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


def match_features(texts: Corpus, anchor: CorpusFeatures, thresholds: NDArray[np.float32]) -> Match:
    """Match every feature with the wording whose presence its activation predicts best (F1 on the anchor)."""
    from scipy.sparse import csr_matrix

    index = {wording: number for number, (_, wording) in enumerate(wordings())}
    present = [[index[wording] for _, wording in mentions(example.text)] for example in texts]
    said = csr_matrix(
        (np.ones(sum(map(len, present))), np.concatenate(present).astype(int), np.cumsum([0, *map(len, present)])),
        shape=(len(present), len(index)),
    )
    pooled = anchor.pooled
    indices, values = np.asarray(pooled.indices[:]), np.asarray(pooled.values[:])
    active = csr_matrix(
        ((values > thresholds[indices]).astype(float), indices, pooled.indptr),
        shape=(pooled.n_texts, pooled.n_features),
    )
    both = np.asarray((active.T @ said).todense())
    fires, occurs = np.asarray(active.sum(axis=0)).ravel(), np.asarray(said.sum(axis=0)).ravel()
    f1 = 2 * both / np.maximum(fires[:, None] + occurs[None, :], 1)
    labels = texts.labels()
    harmful = np.asarray(active.T @ labels).ravel() / np.maximum(fires, 1)
    return Match(f1.argmax(axis=1), f1.max(axis=1), harmful)


def missing_concepts(found: MissingFeatures, match: Match, row: int, seed: int, sizes: Sizes) -> Found:
    """The harmful concepts behind F_miss at one threshold, against those that the seed data never ask for."""
    known = set(known_concepts(seed, sizes))
    true = {c.name for c in concepts() if c.harmful and c not in known}
    return Found.of(named_missing(found, match, row)[0], true)


def missing_wordings(found: MissingFeatures, match: Match, row: int, seed_texts: Corpus) -> Found:
    """The harmful wordings behind F_miss at one threshold, against those that no seed text uses.

    Finer than concepts: seed data that know a concept may lack some of its wordings, which are then rightly missing.
    """
    listed = wordings()
    said = {wording for example in seed_texts for _, wording in mentions(example.text)}
    true = {wording for concept, wording in listed if concept.harmful and wording not in said}
    return Found.of(named_missing(found, match, row)[1], true)


def named_missing(found: MissingFeatures, match: Match, row: int) -> tuple[set[str], set[str]]:
    """The concepts and the wordings behind F_miss at one threshold."""
    matched = [wordings()[match.wording[f]] for f in np.flatnonzero(found.missing(row))]
    return {concept.name for concept, _ in matched}, {wording for _, wording in matched}


def relevance_quality(found: MissingFeatures, match: Match) -> Found:
    """F against the features over 80 % of whose active anchor texts are harmful."""
    alive = found.anchor_counts[found.chosen] > 0
    true, judged = np.flatnonzero(alive & (match.harmful_share > 0.8)), np.flatnonzero(alive & found.relevant)
    return Found.of(set(judged.tolist()), set(true.tolist()))


def features_as_wordings(found: MissingFeatures, match: Match) -> tuple[int, int]:
    """(wordings that some feature detects with F1 > 0.8, wordings in all)."""
    alive = found.anchor_counts[found.chosen] > 0
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


def agreement(results: Results, sources: Sequence[str]) -> tuple[list[Cell], Mapping[str, str]]:
    """How far two families miss the same concepts and wordings, as a Jaccard index in percent; and the rows' names."""
    missed = {}
    for source in sources:
        steps = results.trials[next(matching(results.records, features_of=source, method="fac")).trial]
        assert steps.mining is not None
        found = MissingFeatures.load(results.folder(steps.mining.missing))
        anchor = CorpusFeatures.load(results.folder(steps.mining.anchor_features))
        match = match_features(Corpus.load(results.folder(steps.data.anchor)), anchor, found.thresholds)
        missed[source] = named_missing(found, match, found.chosen)
    cells = []
    for first, second in combinations(missed, 2):
        for column, one, other in zip(("concepts", "wordings"), missed[first], missed[second], strict=True):
            share = 100 * len(one & other) / max(len(one | other), 1)
            cells.append(observed(f"{first}+{second}", column, share))
    return cells, {cell.row: cell.row.replace("+", " and ") for cell in cells}
