"""Many subsets of a pool, of one size and one distribution of lengths, that cover more or less: what each teaches.

A head alone is trained on each, beside the task's fixed rows and its seed: scikit-learn's logistic regression (L2, C 1)
on the model's last states, standardised. It is convex, so a subset has one score and no seed of training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.classification import auprc
from fac.data.corpus import Corpus
from fac.data.example_set import load_examples
from fac.data.schemas import QUERY, Query
from fac.diversity.metrics.text import distinct
from fac.errors import FacError
from fac.gap import Mining, MissingFeatures
from fac.store import Step
from fac.synthesis.methods.selection import activated
from fac.synthesis.needs import load_pool

SUBSETS = "subsets.json"
KINDS = {  # how the texts of a subset are taken from half of the pool, drawn anew for each
    "random": "at random",
    "covering": "those that add most missing features",
    "repeating": "those that add fewest missing features",
    "clusters": "of two clusters of their states",
}
STRATA = 8  # of length, with as many texts of each in every subset as the pool has in proportion
CLUSTERS = 12


class Pooled(NamedTuple):
    """What is known of the texts of the pool; arrays are over texts."""

    texts: list[str]
    lengths: NDArray[np.int64]  # content tokens
    missing: NDArray[np.bool_]  # [texts, missing features]: which of them each activates
    all: NDArray[np.bool_]  # [texts, features]
    states: NDArray[np.floating]  # [texts, width]


def subsets_step(mining: Mining, pool: Step, states: Mapping[str, Step], size: int, each: int, seed: int) -> Step:
    """`each` subsets of every kind, of `size` texts (`load_subsets`).

    `states` are kept states (`fac.train.states`) of the pool, of what every training has beside it (fixed, seed), and
    of the test.
    """
    params = {"size": size, "each": each, "seed": seed}
    inputs = (mining.wanted, pool, mining.encoder.features(pool), *(states[name] for name in STATES))
    return Step("subsets", partial(_measure, size, each, seed), params, inputs)


STATES = ("pool", "fixed", "seed", "test")


def load_subsets(folder: Path) -> list[dict[str, Any]]:
    """Of each subset its kind, fac (share of the missing features), plain (of all features), distinct_2, length (mean
    content tokens), active (mean number of features a text activates), auprc; shares are fractions."""
    return json.loads((folder / SUBSETS).read_text(encoding="utf-8"))


def _measure(
    size: int, each: int, seed: int, folder: Path, missing: Path, pool: Path, features: Path, *parts: Path
) -> None:
    from fac.train.states import load_parts

    found = MissingFeatures.load(missing)
    known = dict(zip(STATES, parts, strict=True))
    told = load_pool(QUERY, pool, features)
    if size * 4 > len(told.examples):
        raise FacError(
            f"experiment.size={size} will not do: the pool has {len(told.examples):,} texts, and subsets that differ "
            f"are a quarter of it at most; lower it."
        )
    lacking = np.flatnonzero(found.missing()).tolist()
    examples: list[Query] = load_examples(QUERY, [pool])
    of = Pooled(
        [example.text for example in examples],
        told.lengths.astype(np.int64),
        _matrix(activated(told, found.thresholds, lacking), told.activations.n_features)[:, lacking],
        _matrix(activated(told, found.thresholds), told.activations.n_features),
        load_parts([known["pool"]]).numpy(),
    )
    beside = load_parts([known["fixed"], known["seed"]]).numpy()
    labels = np.concatenate([Corpus.load(known[name]).labels() for name in ("fixed", "seed")])  # type: ignore[arg-type]
    test, truth = load_parts([known["test"]]).numpy(), Corpus.load(known["test"]).labels()
    if truth is None:
        raise FacError("The test set has no labels: name their column.")
    rows = []
    for kind, chosen in tqdm(drawn(of, size, each, seed), total=len(KINDS) * each, desc="subsets", leave=False):
        scores = learned(np.concatenate([beside, of.states[chosen]]), np.append(labels, np.ones(size)), test)
        rows.append({"kind": kind, **described(of, chosen), "auprc": auprc(truth, scores)})
    (folder / SUBSETS).write_text(json.dumps(rows), encoding="utf-8")


def _matrix(sets: Sequence[NDArray[np.integer]], width: int) -> NDArray[np.bool_]:
    found = np.zeros((len(sets), width), np.bool_)
    for row, own in enumerate(sets):
        found[row, own] = True
    return found


def described(of: Pooled, chosen: Sequence[int]) -> dict[str, float]:
    """What of a subset may go with what it teaches."""
    rows = list(chosen)
    return {
        "fac": float(of.missing[rows].any(axis=0).mean()) if of.missing.shape[1] else 0.0,
        "plain": float(of.all[rows].any(axis=0).mean()),
        "distinct_2": distinct([of.texts[row] for row in rows], 2),
        "length": float(of.lengths[rows].mean()),
        "active": float(of.all[rows].sum(axis=1).mean()),
    }


def learned(states: NDArray[np.floating], labels: NDArray[Any], test: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores [test rows] of a head trained on states [rows, width]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    return head.fit(states, labels).decision_function(test)


# Drawing


def drawn(of: Pooled, size: int, each: int, seed: int) -> Iterator[tuple[str, list[int]]]:
    """(kind, texts) of every subset: `each` of every kind, all with the same number of texts of each length."""
    from sklearn.cluster import KMeans

    stratum = strata_of(of.lengths)
    quota = quotas(stratum, size)
    count = min(CLUSTERS, len(of.texts))
    cluster = KMeans(count, n_init=3, random_state=seed).fit_predict(of.states)  # pyright: ignore[reportArgumentType]
    for kind in KINDS:
        for number in range(each):
            rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
            half = _half(stratum, quota, rng)
            yield kind, taken(kind, of, half, stratum, quota.copy(), cluster, rng)


def strata_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stratum of each text: about as many texts in each, texts of one length in one."""
    return np.searchsorted(np.unique(np.quantile(lengths, np.arange(1, STRATA) / STRATA)), lengths)


def quotas(stratum: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """How many texts of each stratum make `size`, in proportion; the largest remainders are rounded up."""
    shares = size * np.bincount(stratum) / len(stratum)
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: size - counts.sum()]] += 1
    return counts


def _half(stratum: NDArray[np.int64], quota: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Half of the texts of each stratum, or as many as its quota asks for."""
    parts = []
    for number, least in enumerate(quota):
        own = np.flatnonzero(stratum == number)
        parts.append(rng.permutation(own)[: max(len(own) // 2, int(least))])
    return rng.permutation(np.concatenate(parts))


def taken(
    kind: str,
    of: Pooled,
    half: NDArray[np.int64],
    stratum: NDArray[np.int64],
    quota: NDArray[np.int64],
    cluster: NDArray[np.integer],
    rng: np.random.Generator,
) -> list[int]:
    """Texts of the half that fill the quotas, in the way of the kind; what two clusters lack, others give."""
    chosen: list[int] = []
    open_ones = np.ones(of.missing.shape[1], np.bool_)
    if kind == "clusters":
        first = rng.permutation(np.unique(cluster))[:2]
        half = half[np.argsort(~np.isin(cluster[half], first), kind="stable")]
    left = half.tolist()
    while quota.any():
        left = [row for row in left if quota[stratum[row]]]
        if kind in ("covering", "repeating"):
            gains = of.missing[left] @ open_ones.astype(np.float32)
            row = left[int(gains.argmax() if kind == "covering" else gains.argmin())]
        else:
            row = left[0]
        left.remove(row)
        chosen.append(row)
        quota[stratum[row]] -= 1
        open_ones &= ~of.missing[row]
    return chosen
