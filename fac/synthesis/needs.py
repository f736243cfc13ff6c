"""What some methods need beyond what all are given (`Method.needs`), as steps, as part of a key, and loaded.

A method that needs none of it has a step without it, so nothing that is added here changes what was written before.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fac.clusters import MOST, NEAREST, Clusters, ClusterScorer
from fac.corpus_features import CorpusFeatures
from fac.data.example_set import load_examples
from fac.data.schemas import Schema
from fac.gap import Mining, MissingFeatures
from fac.gradients import GradientProxy
from fac.interpret import load_interpretations
from fac.store import Step
from fac.synthesis.method import Directions, MissingClusters, Need, Pool
from fac.synthesis.settings import Settings
from fac.vectors import unit_rows

if TYPE_CHECKING:
    from fac.encoder import FeatureEncoder


@dataclass(frozen=True)
class Extras:
    """Where some needs come from."""

    pool: Step | None = None  # a set of examples
    clusters: Step | None = None  # `fac.clusters.clusters_step`


def steps_for(needs: Iterable[Need], mining: Mining, extras: Extras) -> tuple[Step, ...]:
    """The inputs that a step has for these needs, in their order."""
    return tuple(step for need in needs for step in _steps(need, mining, extras))


def _steps(need: Need, mining: Mining, extras: Extras) -> tuple[Step, ...]:
    if need == "missing":
        return (mining.wanted,)
    if need == "pool":
        assert extras.pool is not None, "a method chooses from a pool, and there is none"
        return (extras.pool, mining.encoder.features(extras.pool))
    if need == "directions":
        return (mining.encoder.sae_step,)
    if need == "clusters":
        assert extras.clusters is not None, "a method writes for clusters, and there are none"
        return (extras.clusters,)
    return ()


def decided_by(needs: Iterable[Need], mining: Mining, settings: Settings) -> dict[str, Any]:
    """What decides these needs beside the steps behind them, for a step's parameters; nothing without needs."""
    told: dict[Need, Any] = dict.fromkeys(needs)
    if "missing" in told:
        told["missing"] = settings.ratio
    if "embeddings" in told:
        told["embeddings"] = mining.encoder.of_residuals
    if "gradients" in told:
        told["gradients"] = proxy_of(mining, settings)
    return {"needs": told} if told else {}


def loaded(
    needs: Iterable[Need], mining: Mining, schema: Schema[Any], settings: Settings, folders: Iterable[Path]
) -> dict[str, Any]:
    """Fields of `SynthesisInput` for these needs; `folders` are those of `steps_for`. Models load when first used."""
    held, fields = iter(folders), {}
    for need in needs:
        fields |= _fields(need, mining, schema, settings, held)
    return fields


def _fields(
    need: Need, mining: Mining, schema: Schema[Any], settings: Settings, folders: Iterator[Path]
) -> Mapping[str, Any]:
    if need == "missing":
        return of_missing(MissingFeatures.load(next(folders)), settings)
    if need == "pool":
        return {"pool": partial(load_pool, schema, next(folders), next(folders))}
    if need == "directions":
        return {"directions": partial(load_directions, mining.encoder, next(folders))}
    if need == "gradients":
        return {"gradients": partial(proxy_of(mining, settings), schema)}
    if need == "clusters":
        return {"clusters": partial(load_clusters, mining.encoder, settings, next(folders))}
    return {"embed": partial(embed, mining.encoder, schema)}


def proxy_of(mining: Mining, settings: Settings) -> GradientProxy:
    """The model whose gradients are taken: `synthesis.proxy`, or the one whose features are read."""
    from fac.model_ref import ModelRef

    return GradientProxy(mining.encoder.model if settings.proxy is None else ModelRef(settings.proxy))


def of_missing(found: MissingFeatures, settings: Settings) -> dict[str, Any]:
    """What `SynthesisInput` tells of features."""
    missing, active = (which.nonzero()[0].tolist() for which in (found.missing(), found.active()))
    return {
        "missing": share_of(missing, settings),
        "relevant": active,
        "thresholds": found.thresholds,
        "anchor_max": found.anchor_max,
    }


def load_pool(schema: Schema[Any], examples: Path, features: Path) -> Pool:
    """The examples of a set with the activations of their chats."""
    held, measured = load_examples(schema, [examples]), CorpusFeatures.load(features)
    owners = np.repeat(np.arange(len(held)), [len(schema.chats(example)) for example in held])
    return Pool(held, owners, measured.pooled, measured.lengths)


def load_directions(encoder: FeatureEncoder, sae: Path, features: Sequence[int]) -> Directions:
    """The decoder's directions of these features."""
    return Directions(encoder.layer, encoder.extractor(sae).sae.directions(features).numpy())


def load_clusters(encoder: FeatureEncoder, settings: Settings, folder: Path) -> MissingClusters:
    """What a step of clusters found, with a scorer that embeds by this encoder."""
    found = Clusters.load(folder)
    missing, relevant = (which.nonzero()[0].tolist() for which in (found.missing, found.relevant))
    told = load_interpretations(folder)
    scorer = ClusterScorer(encoder, found)
    return MissingClusters(share_of(missing, settings), relevant, told, scorer, NEAREST, MOST, found.count)


def embed(encoder: FeatureEncoder, schema: Schema[Any], examples: Sequence[Any]) -> NDArray[np.float32]:
    """Unit vectors [examples, d]: the mean direction of each example's chats (`FeatureEncoder.embed`)."""
    chats = [schema.chats(example) for example in examples]
    owners = np.repeat(np.arange(len(chats)), [len(own) for own in chats])
    vectors = encoder.embed([chat for own in chats for chat in own])
    summed = np.zeros((len(chats), vectors.shape[1]), np.float64)
    np.add.at(summed, owners, vectors)
    return unit_rows(summed).astype(np.float32)


def share_of(features: Sequence[int], settings: Settings) -> list[int]:
    """The missing features that are written for: a share of them (`synthesis.ratio`, Table 9), drawn by the seed."""
    if settings.ratio == 1 or not features:
        return list(features)
    count = max(round(settings.ratio * len(features)), 1)
    return sorted(random.Random(settings.seed).sample(list(features), count))
