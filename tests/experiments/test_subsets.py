"""experiments.steps.subsets and its page: subsets of one size and length, and what goes with their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.pages.subsets import points
from experiments.steps.subsets import KINDS, Pooled, described, drawn, learned, quotas, strata_of


@pytest.fixture(scope="module")
def pool() -> Pooled:
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.03, 400)
    missing = rng.random((400, 60)) < np.minimum(lengths, 90)[:, None] / 1200  # longer texts activate more
    more = rng.random((400, 30)) < 0.3
    states = rng.normal(size=(400, 5)) + 4 * rng.integers(0, 6, 400)[:, None]
    texts = [f"text {n} of {n % 7} words" for n in range(400)]
    return Pooled(texts, lengths.astype(np.int64), missing, np.concatenate([missing, more], axis=1), states)


@pytest.fixture(scope="module")
def subsets(pool) -> list[tuple[str, list[int]]]:
    return list(drawn(pool, 40, 5, seed=1))


def test_every_subset_has_the_same_size_and_as_many_texts_of_each_length(pool, subsets):
    stratum = strata_of(pool.lengths)
    expected = quotas(stratum, 40).tolist()
    assert len(subsets) == 5 * len(KINDS)
    for _, chosen in subsets:
        assert len(set(chosen)) == 40
        assert np.bincount(stratum[chosen], minlength=len(expected)).tolist() == expected
    assert len({tuple(sorted(chosen)) for _, chosen in subsets}) == len(subsets)
    means = [pool.lengths[chosen].mean() for _, chosen in subsets]
    assert max(means) < 1.25 * min(means)


def test_kinds_cover_more_and_less_and_drawing_again_gives_the_same(pool, subsets):
    fac = {kind: np.mean([described(pool, rows)["fac"] for k, rows in subsets if k == kind]) for kind in KINDS}
    assert fac["covering"] > fac["random"] + 0.1
    assert fac["repeating"] < fac["random"] - 0.1
    assert list(drawn(pool, 40, 5, seed=1)) == subsets
    assert list(drawn(pool, 40, 5, seed=2)) != subsets


def test_clusters_hold_texts_that_are_alike(pool, subsets):
    group = np.rint(pool.states.mean(axis=1) / 4).astype(int)
    of_two = {kind: [np.sort(np.bincount(group[r]))[-2:].sum() / 40 for k, r in subsets if k == kind] for kind in KINDS}
    assert np.mean(of_two["clusters"]) > np.mean(of_two["random"]) + 0.15


def test_what_is_told_of_a_subset_is_that_of_its_texts(pool):
    told = described(pool, [3, 9])
    assert told["fac"] == np.mean(pool.missing[3] | pool.missing[9])
    assert told["active"] == (pool.all[3].sum() + pool.all[9].sum()) / 2
    assert told["length"] == (pool.lengths[3] + pool.lengths[9]) / 2


def test_quotas_are_in_proportion_and_add_up():
    stratum = np.repeat([0, 1, 2], [50, 30, 20])
    assert quotas(stratum, 10).tolist() == [5, 3, 2]
    assert quotas(stratum, 7).sum() == 7


def test_a_head_finds_what_sets_two_classes_apart():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    states = rng.normal(size=(200, 6)) * [1, 100, 1, 1, 1, 1] + labels[:, None] * [2, 0, 0, 0, 0, 0]
    test = rng.normal(size=(50, 6)) + np.repeat([0, 1], 25)[:, None] * [2, 0, 0, 0, 0, 0]
    scores = learned(states, labels, test)
    assert np.mean(scores[25:]) > np.mean(scores[:25]) + 1


def test_what_sets_kinds_apart_is_taken_out_within_them():
    told = [
        {"kind": kind, "fac": level + x, "auprc": level - x, "active": 0.0}
        for kind, level in (("random", 0), ("covering", 10))
        for x in (0.0, 1.0, 2.0)
    ]
    everywhere, within = (points(told, "fac", way) for way in ("", "within"))
    assert np.corrcoef(everywhere.x, everywhere.y)[0, 1] > 0.9
    assert np.corrcoef(within.x, within.y)[0, 1] == pytest.approx(-1)
