"""SynAlign (arXiv 2502.08661): explore the seed data, describe them, write that, match their distribution.

What is known of it: the code of the first two parts; of the third (maximum mean discrepancy) the abstract.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.synthesis.likeness import judged, outcome, proposed, shown
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.samples import Sample
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Prompt, Writer

EACH = 10  # texts written from the attributes of one row, as the released code asks for
OVER = 2  # texts written for each that is added, from which matching draws
NEIGHBOURS = 2  # rows that count as explored with each pick: itself and the nearest
STEPS = 200  # of the projected gradient
Vectors = NDArray[np.floating]


def synalign(given: SynthesisInput, writer: Writer) -> Outcome:
    """Rows of the seed by Gaussian-process variance, their attributes, new texts of those, weights by MMD.

    The budget is drawn without replacement by the weights, where the paper resamples: equally many different rows.
    """
    known = given.embed(given.seed_examples)
    samples: list[Sample] = []
    rounds, tried = 0, 0  # rows of the seed whose attributes were taken
    while sum(sample.kept for sample in samples) < given.budget and rounds <= given.settings.top_up:
        more = ceil((OVER if rounds == 0 else 1) * given.budget / EACH)
        rows = explored(known, tried + more, given.seed)[tried:]
        if not rows:
            break
        samples = judged(given, writer, [*samples, *_written(given, writer, rows, tried)])
        rounds, tried = rounds + 1, tried + more
    kept = [sample for sample in samples if sample.kept]
    weights = matched(given.embed([sample.example for sample in kept]), known)
    drawn = draw_by(weights, given.budget, given.seed)
    return outcome(given, samples, [kept[i] for i in drawn], rounds)


def _written(given: SynthesisInput, writer: Writer, rows: Sequence[int], first: int) -> list[Sample]:
    """`EACH` texts of the kind of each row; none of a row that the writer would not describe."""
    told: list[tuple[int, dict[str, Any]]] = [
        (place, shown(writer.schema, [given.seed_examples[row]])) for place, row in enumerate(rows, first)
    ]
    if not writer.prompts.is_blank("attributes"):
        asked = [Prompt("attributes", values, None, place) for place, values in told]
        replies = writer.ask("describing seed data", asked)
        told = [
            (place, {**values, "attributes": reply.text})
            for (place, values), reply in zip(told, replies, strict=True)
            if reply.text and not reply.refused
        ]
    prompts = [
        Prompt("attributed", {"attributes": "", **values, "attempt": n}, None, place * EACH + n)
        for place, values in told
        for n in range(EACH)
    ]
    return proposed(writer, "writing by attributes", prompts)


def explored(vectors: Vectors, count: int, seed: int) -> list[int]:
    """`count` rows of unit vectors [n, d], each where a Gaussian process that saw those before knows least.

    The variance needs no targets, so the greedy choice is a pivoted Cholesky factorisation of the kernel: RBF, its
    scale the median distance (with the released code's scale of 0.1 and vectors of any length every variance is 1).
    The first row is drawn. With each pick its nearest row counts as explored, too; once all are, it begins anew.
    """
    n, rng = len(vectors), np.random.default_rng(seed)
    wide, picks = np.asarray(vectors, np.float64), list[int]()
    scale = median_distance(wide, rng) if n else 1.0
    while n and len(picks) < count:
        variance, used, factors = np.ones(n), np.zeros(n, np.bool_), list[NDArray[np.float64]]()
        row = int(rng.integers(n))
        while len(picks) < count and not used.all():
            picks.append(row)
            near = kernel(wide[row : row + 1], wide, scale)[0]
            column = near - sum((factor[row] * factor for factor in factors), np.zeros(n))
            if variance[row] > 1e-9:
                factors.append(column / np.sqrt(variance[row]))
                variance = (variance - factors[-1] ** 2).clip(min=0)
            nearest = np.argsort(-near, kind="stable")
            used[[row, *nearest[nearest != row][: NEIGHBOURS - 1]]] = True
            row = int(np.where(used, -1, variance).argmax())
    return picks


def kernel(one: Vectors, other: Vectors, scale: float) -> NDArray[np.float64]:
    """RBF of the distances between rows, [len(one), len(other)]."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.exp(-squares.clip(min=0) / (2 * scale**2))


def median_distance(vectors: Vectors, rng: np.random.Generator, most: int = 1000) -> float:
    """Between different rows, of at most so many drawn ones; 1 where all are alike."""
    part = vectors if len(vectors) <= most else vectors[rng.choice(len(vectors), most, replace=False)]
    cosines = (part @ part.T)[np.triu_indices(len(part), 1)]
    found = float(np.median(np.sqrt((2 - 2 * cosines).clip(min=0)))) if len(cosines) else 0.0
    return found or 1.0


def matched(written: Vectors, reference: Vectors) -> NDArray[np.float64]:
    """Weights of the written rows, adding up to 1, with the least MMD from the reference rows: [written].

    min w' K w - 2 w' k over the simplex, by projected gradient; K is the kernel among the written rows, k their mean
    kernel with the reference. Of learnt projections, as the paper has them, nothing is known.
    """
    if not len(written):
        return np.zeros(0)
    ours, theirs = np.asarray(written, np.float64), np.asarray(reference, np.float64)
    scale = median_distance(np.concatenate([ours, theirs]), np.random.default_rng(0))
    among, mean = kernel(ours, ours, scale), kernel(ours, theirs, scale).mean(axis=1)
    weights, step = np.full(len(ours), 1 / len(ours)), 1 / np.linalg.norm(among, 2)
    for _ in range(STEPS):
        weights = onto_simplex(weights - step * (among @ weights - mean))
    return weights


def onto_simplex(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest weights that are none below 0 and add up to 1."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(values) + 1)
    return (values - excess[np.flatnonzero(falling > excess)[-1]]).clip(min=0)


def draw_by(weights: NDArray[np.float64], count: int, seed: int) -> list[int]:
    """At most `count` different rows drawn by weight, one after the other; those without weight come last."""
    chance = np.random.default_rng(seed).random(len(weights))
    with np.errstate(divide="ignore"):
        keys = np.where(weights > 0, np.log(chance) / weights, -np.inf)
    return np.lexsort((chance, -keys))[:count].tolist()


def requests(settings: Settings, features: int, budget: int) -> int:
    """One for the attributes of each row, and `EACH` for texts."""
    rows = ceil(OVER * budget / EACH)
    return rows + rows * EACH


METHOD = Method(
    "synalign",
    "SynAlign",
    synalign,
    ("attributes", "attributed"),
    requests,
    needs=("embeddings",),
    note=(
        "arXiv 2502.08661: exploration by the variance of a Gaussian process on unit vectors, its scale their median "
        "distance; a request for each text; MMD without learnt projections, drawn without replacement; the reference "
        "is the seed data. In the lab, whose models describe nothing, the explored text itself is imitated (lab form)."
    ),
)
