"""Rows that choose from what people wrote about everything, where others write: no LLM has a part in them.

Longer texts activate more features (arXiv 2502.14050 finds r = .92), so tables print how long the added texts are.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fac.synthesis.method import Method, Outcome, Pool, SynthesisInput
from fac.synthesis.samples import Counts
from fac.synthesis.writer import Writer
from fac.vectors import unit_rows

HUMAN = "Selection from human data"
TAUS = tuple(n / 10 for n in range(9, -1, -1))  # shares of new features that SimScale asks for, the highest first
Sets = Sequence[NDArray[np.integer]]  # features by example, increasing


def chosen(given: SynthesisInput, pool: Pool, rows: Sequence[int]) -> Outcome:
    """The examples of these rows of the pool, in their order, at most the budget."""
    rows = rows[: given.budget]
    return Outcome([pool.examples[row] for row in rows], counts=Counts(added=len(rows), budget=given.budget))


def select_random(given: SynthesisInput, _: Writer) -> Outcome:
    """Examples drawn by the seed: another draw than that of the row "full"."""
    pool = given.pool()
    order = list(range(len(pool.examples)))
    random.Random(f"{given.seed}/select_random").shuffle(order)
    return chosen(given, pool, order)


def select_longest(given: SynthesisInput, _: Writer) -> Outcome:
    """The examples with the most content tokens in all their chats (arXiv 2402.04833); ties by row."""
    pool = given.pool()
    return chosen(given, pool, np.argsort(-_tokens(pool), kind="stable").tolist())


def select_length_matched(given: SynthesisInput, _: Writer) -> Outcome:
    """Examples drawn by the seed that are as long as those that `select_fac` chooses: what length alone would do.

    As many of each stratum of length (`fac.relevance.strata`), in random order. Longer texts activate more features, so
    this is the control for whatever chooses by features.
    """
    from fac.relevance import strata  # which loads scipy

    pool = given.pool()
    tokens, rng = _tokens(pool), random.Random(f"{given.seed}/select_length_matched")
    stratum = strata(tokens)
    rows: list[int] = []
    for held, count in Counter(stratum[_for_missing(given, pool)].tolist()).items():
        rows += rng.sample(np.flatnonzero(stratum == held).tolist(), count)
    rng.shuffle(rows)
    return chosen(given, pool, rows)


def select_fac(given: SynthesisInput, _: Writer) -> Outcome:
    """Greedy coverage of the missing features: FAC as a rule of selection. What activates none of them stays out."""
    pool = given.pool()
    return chosen(given, pool, _for_missing(given, pool))


def _for_missing(given: SynthesisInput, pool: Pool) -> list[int]:
    return covering(activated(pool, given.thresholds, given.missing), given.budget)


def _tokens(pool: Pool) -> NDArray[np.int64]:
    """Content tokens of each example in all its chats."""
    return np.bincount(pool.owners, pool.lengths, minlength=len(pool.examples)).astype(np.int64)


def select_sae_greedy(given: SynthesisInput, _: Writer) -> Outcome:
    """SAE-GreedSelect (arXiv 2502.14050): greedy coverage of all features, relevant or not, missing or not."""
    pool = given.pool()
    return chosen(given, pool, covering(activated(pool, given.thresholds), given.budget))


def select_sae_scale(given: SynthesisInput, _: Writer) -> Outcome:
    """SAE-SimScale (arXiv 2502.14050): the examples with many features, if enough of them are new (`scaling`)."""
    pool = given.pool()
    return chosen(given, pool, scaling(activated(pool, given.thresholds), given.budget))


def select_dense(given: SynthesisInput, _: Writer) -> Outcome:
    """Coverage without an SAE: one example of each cluster of embeddings that holds nothing of the seed data.

    There are twice as many clusters as rows are added, at least ten. Where each holds something, those that hold least
    count; where they are fewer than the rows, each gives the text nearest its centre, then the second nearest.
    """
    from sklearn.cluster import KMeans

    pool = given.pool()
    vectors, known = given.embed(pool.examples), given.embed(given.seed_examples)
    centre = vectors.mean(axis=0)  # a few directions that all texts share would else decide every distance
    vectors, known = unit_rows(vectors - centre), unit_rows(known - centre)
    count = min(max(2 * given.budget, 10), len(np.unique(vectors, axis=0)))
    if not count:
        return chosen(given, pool, [])
    kmeans = KMeans(count, n_init=10, random_state=given.seed)  # pyright: ignore[reportArgumentType] (no stubs)
    cluster, distance = kmeans.fit_predict(vectors), kmeans.transform(vectors).min(axis=1)
    held = np.bincount(kmeans.predict(known) if len(known) else [], minlength=count)
    lacking = set(np.flatnonzero(held == held.min()).tolist())
    taken: dict[int, int] = {}
    ranked = []
    for row in np.argsort(distance, kind="stable").tolist():
        if (own := int(cluster[row])) in lacking:
            taken[own] = taken.get(own, 0) + 1
            ranked.append((taken[own], own, row))
    return chosen(given, pool, [row for *_, row in sorted(ranked)])


def activated(pool: Pool, thresholds: NDArray[np.float32], among: Sequence[int] | None = None) -> Sets:
    """The features that some chat of each example activates (g_i > δ_i), of all or `among` these; increasing.

    Memory: four bytes for each of them, and a chunk of the matrix.
    """
    width, count = pool.activations.n_features, len(pool.examples)
    counted = np.ones(width, np.bool_)
    if among is not None:
        counted[:] = False
        counted[list(among)] = True
    features: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    sizes = np.zeros(count, np.int64)
    last = np.zeros(0, np.int64)  # of the example whose chats a chunk may have parted
    for rows in pool.activations.chunks():
        active = counted[rows.indices] & (rows.values > thresholds[rows.indices])
        pairs = np.unique(pool.owners[rows.row_of_entry()[active]] * width + rows.indices[active])
        pairs = pairs[~np.isin(pairs, last)]
        features.append((pairs % width).astype(np.int32))
        sizes += np.bincount(pairs // width, minlength=count)
        latest = pool.owners[rows.first + len(rows.indptr) - 2]
        last = np.concatenate([last[last // width == latest], pairs[pairs // width == latest]])
    together = np.concatenate(features)
    parted = np.split(together, np.cumsum(sizes)[:-1]) if count else []
    return parted if _alone(pool) else [np.sort(own) for own in parted]


def _alone(pool: Pool) -> bool:
    """Whether every example is one chat, so that no chunk parts its features."""
    return len(pool.owners) == len(pool.examples)


def covering(sets: Sets, budget: int) -> list[int]:
    """Rows by lazy greedy coverage: always the one with the most features that no chosen one has; ties by row.

    Once all that can be is covered, it starts anew with the rows that are left: so what is chosen covers everything
    once, then twice. (What the paper's algorithm does there is not known.) Rows without a feature are never chosen.
    """
    rows: list[int] = []
    left = [row for row, own in enumerate(sets) if len(own)]
    open_ones = _all_open(sets)
    while left and len(rows) < budget:
        open_ones[:] = True
        heap = [(-len(sets[row]), row) for row in left]
        heapq.heapify(heap)
        while heap and len(rows) < budget:
            bound, row = heapq.heappop(heap)
            new = int(open_ones[sets[row]].sum())
            if new < -bound:  # gains only fall: an old one is an upper bound
                if new:
                    heapq.heappush(heap, (-new, row))
                continue
            rows.append(row)
            open_ones[sets[row]] = False
        taken = set(rows)
        left = [row for row in left if row not in taken]
    return rows


def scaling(sets: Sets, budget: int) -> list[int]:
    """Rows by falling number of features, each kept if more than a share tau of its features is new.

    tau is the highest of TAUS with which `budget` rows are kept; if there is none, what the lowest leaves is gone
    through anew. Order and shares are not known of the paper's algorithm: this is a reading of its idea, to ask for
    dissimilar rows in a way that large budgets can meet.
    """
    left = sorted((row for row, own in enumerate(sets) if len(own)), key=lambda row: (-len(sets[row]), row))
    rows: list[int] = []
    while left and len(rows) < budget:
        kept = next(filter(lambda kept: len(rows) + len(kept) >= budget, (_new(sets, left, tau) for tau in TAUS)), None)
        rows += _new(sets, left, TAUS[-1]) if kept is None else kept
        taken = set(rows)
        left = [row for row in left if row not in taken]
    return rows[:budget]


def _new(sets: Sets, order: Sequence[int], tau: float) -> list[int]:
    """The rows of which more than a share tau of the features stands in no row that was kept before them."""
    rows, open_ones = [], _all_open(sets)
    for row in order:
        if open_ones[sets[row]].sum() > tau * len(sets[row]):
            rows.append(row)
            open_ones[sets[row]] = False
    return rows


def _all_open(sets: Sets) -> NDArray[np.bool_]:
    """A flag for every feature up to the highest in the sets."""
    return np.ones(max((int(own[-1]) for own in sets if len(own)), default=0) + 1, np.bool_)


METHODS = (
    Method("select_random", "Selected at random", select_random, drawn=True, needs=("pool",), note=f"{HUMAN}, drawn."),
    Method(
        "select_length_matched",
        "Selected at random, length-matched",
        select_length_matched,
        drawn=True,
        needs=("missing", "pool"),
        note=f"{HUMAN}, drawn: as long as the row selected for missing features, a control for length.",
    ),
    Method("select_longest", "Selected for length", select_longest, needs=("pool",), note=f"{HUMAN}, the longest."),
    Method(
        "select_fac",
        "Selected for missing features",
        select_fac,
        needs=("missing", "pool"),
        note=f"{HUMAN}: greedy coverage of the missing features.",
    ),
    Method(
        "select_sae_greedy",
        "SAE-GreedSelect",
        select_sae_greedy,
        needs=("missing", "pool"),
        note=f"{HUMAN} (arXiv 2502.14050): greedy coverage of all features above the run's thresholds, then anew.",
    ),
    Method(
        "select_sae_scale",
        "SAE-SimScale",
        select_sae_scale,
        needs=("missing", "pool"),
        note=f"{HUMAN} (arXiv 2502.14050): most features first, if enough are new; its exact algorithm is not known.",
    ),
    Method(
        "select_dense",
        "Selected by dense clusters",
        select_dense,
        drawn=True,
        needs=("pool", "embeddings"),
        note=f"{HUMAN}: one text of each k-means cluster of embeddings that the seed data lack.",
    ),
)
