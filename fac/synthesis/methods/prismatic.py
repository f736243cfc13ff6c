"""Prismatic Synthesis (arXiv 2505.20161): write like what is there, keep what pushes a proxy where little does yet."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.synthesis.likeness import judged, outcome, proposed, shown
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.samples import UNFIT, Sample
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Prompt, Writer

ROUNDS = 3  # at least: clusters are found anew in each
CAP = 8  # requests, as a multiple of the budget
SHOTS = 5  # examples that one request shows
CLUSTERS = 0.1  # for each row of what is there
SPARSE = 0.5  # share of the clusters, the least populated ones, whose candidates are kept
ITERATIONS = 20  # of k-means


def prismatic(given: SynthesisInput, writer: Writer) -> Outcome:
    """Rounds of few-shot writing; a candidate is kept if its gradient falls into a sparse cluster of what is there.

    What is there are the seed's examples and all that was kept. Prompts say nothing of clusters: diversity comes from
    rejection alone.
    """
    there, gradients = list(given.seed_examples), given.gradients(given.seed_examples)
    samples: list[Sample] = []
    unfit: set[int] = set()  # places of candidates in populated clusters
    rounds, asked = 0, 0
    while there and asked < CAP * given.budget and (rounds < ROUNDS or _kept(samples) < given.budget):
        count = min(_per_round(given.budget), CAP * given.budget - asked)
        prompts = _prompts(given, writer, there, range(asked, asked + count))
        candidates = [*samples, *proposed(writer, "writing few-shot", prompts)]
        found = _marked(judged(given, writer, candidates), unfit)
        new = [place for place in range(len(samples), len(found)) if found[place].kept]
        vectors = given.gradients([found[place].example for place in new])
        fits = in_sparse_cluster(gradients, vectors, given.seed + rounds)
        unfit |= {place for place, fit in zip(new, fits, strict=True) if not fit}
        there += [found[place].example for place, fit in zip(new, fits, strict=True) if fit]
        gradients = np.concatenate([gradients, vectors[fits]])
        samples, asked, rounds = _marked(found, unfit), asked + count, rounds + 1
    chosen = [sample for sample in samples if sample.kept][: given.budget]
    return outcome(given, samples, chosen, rounds)


def _kept(samples: Sequence[Sample]) -> int:
    return sum(sample.kept for sample in samples)


def _per_round(budget: int) -> int:
    """Half of the candidates are expected to fall into the sparse half of the clusters."""
    return ceil(budget / SPARSE / ROUNDS)


def _prompts(given: SynthesisInput, writer: Writer, there: Sequence[Any], attempts: range) -> list[Prompt]:
    prompts = []
    for attempt in attempts:
        rng = random.Random(f"{given.seed}/prismatic/{attempt}")
        shots = rng.sample(there, min(SHOTS, len(there)))
        prompts.append(Prompt("alike", shown(writer.schema, shots), None, attempt))
    return prompts


def _marked(samples: Sequence[Sample], unfit: set[int]) -> list[Sample]:
    return [
        replace(sample, kept=False, rejected_because=UNFIT) if place in unfit and sample.kept else sample
        for place, sample in enumerate(samples)
    ]


def in_sparse_cluster(there: NDArray[np.float32], new: NDArray[np.float32], seed: int) -> NDArray[np.bool_]:
    """Whether each of the unit vectors `new` falls into one of the least populated clusters of what is `there`.

    k-means by direction: a tenth as many clusters as rows (two at least), which start from rows drawn by the seed (the
    paper's code takes the first ones). Of as many texts, the earlier cluster counts as the less populated.
    """
    from sklearn.cluster import KMeans

    different = np.unique(there, axis=0)
    count = min(max(round(CLUSTERS * len(there)), 2), len(different))
    if not len(new) or count < 2:
        return np.ones(len(new), np.bool_)
    start = np.random.default_rng(seed).permutation(different)[:count]
    kmeans = KMeans(count, init=start, n_init=1, max_iter=ITERATIONS)  # pyright: ignore[reportArgumentType] (no stubs)
    sizes = np.bincount(kmeans.fit_predict(there), minlength=count)
    sparse = np.argsort(sizes, kind="stable")[: max(int(SPARSE * count), 1)]
    return np.isin(kmeans.predict(new), sparse)


def requests(settings: Settings, features: int, budget: int) -> int:
    """As many as bring the budget if half of them are kept."""
    return ROUNDS * _per_round(budget)


METHOD = Method(
    "prismatic",
    "Prismatic Synthesis",
    prismatic,
    ("alike",),
    requests,
    needs=("gradients",),
    note=(
        "arXiv 2505.20161: gradients of synthesis.proxy (none: of the run's own model; the paper's is "
        "Qwen2.5-0.5B-Instruct), by count sketch; the loss is that of a text itself, or of replies where it has them; "
        "instructions are answered after the choice and no answers are voted on; the sparse half of the clusters. In "
        "the lab requests show three examples (lab form)."
    ),
)
