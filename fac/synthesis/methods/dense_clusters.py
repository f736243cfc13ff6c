"""FAC Synthesis with clusters of text embeddings in the place of SAE features (App. G, Table 12)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.methods.fac import requests, two_step
from fac.synthesis.samples import Sample
from fac.synthesis.writer import Writer


def dense_clusters(given: SynthesisInput, writer: Writer) -> Outcome:
    """Two steps for each cluster that the seed data miss: the same n, m, prompts and budget as for missing features.

    Candidates are paired and ranked by cosine with the cluster's centre, and kept if no other centre is nearer.
    """
    found = given.clusters()
    inside = replace(
        given,
        missing=found.missing,
        relevant=found.relevant,
        interpretations=found.interpretations,
        thresholds=np.full(found.count, found.cut, np.float32),
        anchor_max=np.full(found.count, found.most, np.float32),
    )
    scoring = replace(writer, extractor=lambda: found.scorer, anchor_max=inside.anchor_max)
    outcome = two_step(inside, scoring, inside.missing)
    samples, chosen = ([_of_cluster(sample) for sample in part] for part in (outcome.samples, outcome.chosen))
    return replace(outcome, samples=samples, chosen=chosen, written=None)  # nothing of it is about features


def _of_cluster(sample: Sample) -> Sample:
    return replace(sample, feature=None, cluster=sample.feature, activation=None, relative_activation=None)


METHOD = Method(
    "dense_clusters",
    "Dense clusters + coverage",
    dense_clusters,
    ("write", "contrast"),
    requests,
    needs=("clusters",),
    note=(
        "App. G with settings that the paper does not tell: k-means of mean residuals at the SAE's layer, as many "
        "clusters as relevant active features, at most one for ten anchor texts; a cluster is shown by whole texts."
    ),
)
