"""Clusters of text embeddings in the place of SAE features: the dense baseline of App. G and Table 12, as steps.

    anchor, seed -> k-means of mean residuals -> each cluster explained and judged -> those that the seed data miss

The paper tells neither encoder nor layer nor the number of clusters. Here only the representation differs from FAC's:
embeddings are mean residuals of the content tokens at the SAE's own layer, less the anchor's mean (a few directions
that all texts share would else decide every distance), at unit length; there are as many clusters as relevant features
are active on the anchor, at most a tenth of its texts. A text belongs to the cluster with whose centre it has the
largest cosine. A cluster is explained from the anchor texts nearest its centre, and judged, with the prompts for
features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fac.corpus_features import CorpusFeatures
from fac.data.corpus import Corpus
from fac.gap import InterpretSettings, Mining, MissingFeatures, judged_relevant
from fac.interpret import interpret_features
from fac.llm.base import ChatModel, Sampling
from fac.pooled import Pooled, PooledWriter
from fac.prompts import Prompts
from fac.store import Step
from fac.vectors import unit_rows

if TYPE_CHECKING:
    from fac.chat import Message
    from fac.encoder import FeatureEncoder
    from fac.features.extract import Watched
    from fac.features.texts import Span

CLUSTERS, MEASURED = "clusters.npz", "dense_coverage.json"
ROLES = ("explain", "judge")
LEAST_TEXTS = 10  # of the anchor for each cluster, on average
NEAREST, MOST = 1.0, 2.0  # of a score: above the one no other cluster is nearer; the other is the highest there is
_BLOCK = 4096  # texts compared with all centres at a time


@dataclass(frozen=True)
class Clusters:
    """k-means clusters of the anchor's embeddings."""

    centre: NDArray[np.float32]  # [d]: mean of the anchor's unit vectors
    directions: NDArray[np.float32]  # [clusters, d]: centres of the clusters, at unit length
    labels: NDArray[np.int64]  # [anchor texts]: the cluster of each
    seed_counts: NDArray[np.int64]  # [clusters]: texts of the seed data
    relevant: NDArray[np.bool_]  # [clusters]: by the LLM's verdicts

    @property
    def count(self) -> int:
        return len(self.directions)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """The clusters that are relevant, hold a text of the anchor and none of the seed data."""
        held = np.bincount(self.labels, minlength=self.count)
        return self.relevant & (held > 0) & (self.seed_counts == 0)

    def cosines(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Of unit vectors [texts, d] with every cluster's direction; [texts, clusters]."""
        return (unit_rows(vectors - self.centre) @ self.directions.T.astype(np.float64)).astype(np.float32)

    def nearest(self, vectors: NDArray[np.floating]) -> NDArray[np.int64]:
        """c(x): the cluster of each of the unit vectors [texts, d]; the first where several are equally near."""
        parts = [self.cosines(vectors[i : i + _BLOCK]).argmax(axis=1) for i in range(0, len(vectors), _BLOCK)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def save(self, folder: Path) -> None:
        np.savez(folder / CLUSTERS, **vars(self))

    @classmethod
    def load(cls, folder: Path) -> Clusters:
        """What `save` wrote."""
        with np.load(folder / CLUSTERS) as held:
            return cls(**held)


def clusters_step(
    mining: Mining,
    annotators: Mapping[str, ChatModel],
    prompts: Prompts,
    settings: InterpretSettings,
    share: float,
    seed: int,
) -> Step:
    """The clusters of a mining's anchor (`Clusters.load`), and what they are about (`load_interpretations`).

    `share` times as many as relevant features are active on the anchor; `seed` is that of k-means.
    """
    asked = {role: annotators[role] for role in ROLES}
    sampling = Sampling(settings.temperature, 1.0, settings.max_new_tokens)
    params = {
        "embeddings": mining.encoder.of_residuals,
        "annotators": asked,
        "prompts": {role: prompts.digest(role) for role in asked},
        "spans": settings.spans,
        "sampling": sampling,
        "asking_seed": settings.seed,
        "share": share,
        "seed": seed,
    }
    build = partial(_cluster, mining.encoder, asked, prompts, settings, sampling, share, seed)
    return Step("clusters", build, params, (mining.anchor, mining.seed, mining.wanted), resumable=True)


def _cluster(
    encoder: FeatureEncoder,
    annotators: Mapping[str, ChatModel],
    prompts: Prompts,
    settings: InterpretSettings,
    sampling: Sampling,
    share: float,
    seed: int,
    folder: Path,
    anchor: Path,
    known: Path,
    missing: Path,
) -> None:
    texts = Corpus.load(anchor)
    vectors = encoder.embed([text.messages for text in texts])
    wanted = round(share * int(MissingFeatures.load(missing).active().sum()))
    found = fit(vectors, encoder.embed([text.messages for text in Corpus.load(known)]), wanted, seed)
    spans = {
        cluster: [" ".join(texts[row].text.split()) for row in rows]
        for cluster, rows in representatives(found, vectors, settings.spans).items()
    }
    told = {
        said.feature: said for said in interpret_features(annotators, prompts, spans, sampling, settings.seed, folder)
    }
    replace(found, relevant=judged_relevant(found.count, told, verified=False)).save(folder)


def fit(anchor: NDArray[np.float32], seed: NDArray[np.float32], wanted: int, random_state: int) -> Clusters:
    """`wanted` clusters, or fewer, of unit vectors [texts, d] of the anchor; those of the seed are counted."""
    from sklearn.cluster import KMeans

    centre = anchor.mean(axis=0)
    centred = unit_rows(anchor - centre)
    count = max(min(wanted, len(anchor) // LEAST_TEXTS), 1)
    kmeans = KMeans(count, n_init=10, random_state=random_state)  # pyright: ignore[reportArgumentType] (no stubs)
    directions = unit_rows(kmeans.fit(centred).cluster_centers_).astype(np.float32)
    nothing = np.zeros(0, np.int64)
    found = Clusters(centre, directions, nothing, nothing, np.zeros(count, np.bool_))
    held = np.bincount(found.nearest(seed), minlength=count)
    return replace(found, labels=found.nearest(anchor), seed_counts=held)


def representatives(found: Clusters, vectors: NDArray[np.float32], most: int) -> dict[int, list[int]]:
    """The texts of each cluster that are nearest its centre, at most so many; clusters without texts are left out."""
    own = np.concatenate(
        [
            np.take_along_axis(found.cosines(vectors[i : i + _BLOCK]), found.labels[i : i + _BLOCK, None], axis=1)[:, 0]
            for i in range(0, len(vectors), _BLOCK)
        ]
    )
    rows: dict[int, list[int]] = {}
    for row in np.argsort(-own, kind="stable").tolist():
        nearest = rows.setdefault(int(found.labels[row]), [])
        if len(nearest) < most:
            nearest.append(row)
    return dict(sorted(rows.items()))


@dataclass(frozen=True)
class DenseCoverage:
    """How far clusters tell which of the features F(P) a set activates (App. G), as shares of F(P)."""

    features: int  # |F(P)|
    sae: float  # share of F(P) that the set activates
    dense: float  # ... whose cluster phi(i) it hits: cov_dense
    merge_loss: float  # L_merge: cov_dense says yes, and the set does not activate the feature
    surrogate_error: float  # E_sur: cov_dense and the SAE disagree; never below L_merge (Prop. G.1)


def dense_coverage(clusters: Step, mining: Mining, added: Step) -> Step:
    """Cluster coverage beside feature coverage of what a method adds (`load_dense_coverage`), at the run's δ."""
    inputs = (clusters, mining.wanted, mining.anchor_features, added, mining.encoder.features(added))
    params = {"embeddings": mining.encoder.of_residuals}
    return Step("dense_coverage", partial(_measure, mining.encoder), params, inputs)


def load_dense_coverage(folder: Path) -> DenseCoverage:
    """What `dense_coverage` wrote."""
    return DenseCoverage(**json.loads((folder / MEASURED).read_text(encoding="utf-8")))


def _measure(
    encoder: FeatureEncoder, folder: Path, clusters: Path, missing: Path, anchor: Path, added: Path, features: Path
) -> None:
    found, mined = Clusters.load(clusters), MissingFeatures.load(missing)
    hit = np.zeros(found.count, np.bool_)
    hit[found.nearest(encoder.embed([text.messages for text in Corpus.load(added)]))] = True
    features_ = np.flatnonzero(mined.active())
    of_feature = cluster_of_features(CorpusFeatures.load(anchor).pooled, features_, mined.thresholds, found)
    reached = _activated(CorpusFeatures.load(features).pooled, mined.thresholds)[features_]
    measured = compare(hit[of_feature], reached)
    (folder / MEASURED).write_text(json.dumps(vars(measured)), encoding="utf-8")


def cluster_of_features(
    anchor: Pooled, features: NDArray[np.int64], thresholds: NDArray[np.float32], found: Clusters
) -> NDArray[np.int64]:
    """phi(i): the cluster that holds most of the anchor texts that activate feature i, for each of `features`.

    The first where several hold as many.
    """
    place = np.full(anchor.n_features, -1)
    place[features] = np.arange(len(features))
    tally = np.zeros((len(features), found.count), np.int32)
    for rows in anchor.chunks():
        counted = (rows.values > thresholds[rows.indices]) & (place[rows.indices] >= 0)
        np.add.at(tally, (place[rows.indices[counted]], found.labels[rows.row_of_entry()[counted]]), 1)
    return tally.argmax(axis=1)


def _activated(measured: Pooled, thresholds: NDArray[np.float32]) -> NDArray[np.bool_]:
    reached = np.zeros(len(thresholds), np.bool_)
    for rows in measured.chunks():
        reached[rows.indices[rows.values > thresholds[rows.indices]]] = True
    return reached


def compare(dense: NDArray[np.bool_], sae: NDArray[np.bool_]) -> DenseCoverage:
    """cov_dense against cov_SAE of the features F(P), [features] each; there is one at least."""
    shares = (sae, dense, dense & ~sae, dense != sae)
    return DenseCoverage(len(dense), *(float(share.mean()) for share in shares))


class ClusterScorer:
    """Scores texts for clusters where an `Extractor` scores them for features, for those who write.

    A score is (1 + cosine) / 2 with the cluster's direction, and 1 more where no other cluster is nearer: so a text is
    in the cluster that it was written for if it scores above 1, and texts are ranked by cosine.
    """

    def __init__(self, encoder: FeatureEncoder, clusters: Clusters) -> None:
        self._encoder, self._clusters = encoder, clusters

    def extract(
        self,
        chats: Sequence[Sequence[Message]],
        folder: Path,
        total: int | None = None,
        watch: Sequence[int] | None = None,
    ) -> Watched:
        """The score of each chat for its own cluster of `watch`; an empty chat has none. `Pooled.load` reads all."""
        from fac.features.extract import Watched

        said = [row for row, chat in enumerate(chats) if chat]
        scores = np.zeros((len(chats), self._clusters.count), np.float32)
        if said:
            cosines = self._clusters.cosines(self._encoder.embed([chats[row] for row in said]))
            scores[said] = (1 + cosines.clip(-1, 1)) / 2
            scores[said, cosines.argmax(axis=1)] += NEAREST
        writer = PooledWriter(folder, self._clusters.count)
        writer.append(scores)
        writer.close()
        own = [float(scores[row, cluster]) for row, cluster in enumerate(watch or [])]
        return Watched(own, [0] * len(own))

    def span(self, chat: Sequence[Message], token: int, length: int) -> Span:
        """The whole text: no token of it is the one that puts it into a cluster."""
        from fac.features.texts import Span

        text = " ".join(message["content"] for message in chat)
        return Span(text, len(text))
