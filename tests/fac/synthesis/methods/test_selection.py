"""fac.synthesis.methods.selection: which human examples each rule chooses, and what none of them may look at."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fac.data.schemas import Query
from fac.pooled import Pooled
from fac.synthesis.method import Pool, SynthesisInput, undeclared
from fac.synthesis.methods import METHODS
from fac.synthesis.methods.selection import activated, covering, scaling
from fac.synthesis.samples import Counts
from fac.synthesis.settings import Settings

SELECTING = [method for method in METHODS.values() if method.name.startswith("select_")]
WIDTH = 40


class Poison(Sequence):
    """What a method may not see: whoever looks fails."""

    def __getitem__(self, *_):
        raise AssertionError("a method looked at what it may not see")

    __len__ = __iter__ = __getitem__  # type: ignore[assignment]


def pool_of(matrix, chats=1):
    """Examples of `chats` rows each of a dense matrix of activations."""
    count = len(matrix) // chats
    lengths = np.arange(len(matrix), dtype=np.int32) % 7 + 1
    return Pool(
        [Query(f"text {i}") for i in range(count)],
        np.repeat(np.arange(count), chats),
        Pooled.from_dense(matrix),
        lengths,
    )


def random_pool(seed=0, count=60):
    rng = np.random.default_rng(seed)
    return pool_of(rng.random((count, WIDTH)) * (rng.random((count, WIDTH)) < 0.15))


def vectors_of(examples):
    """An embedding that depends on the example alone."""
    rows = [np.random.default_rng(int(example.text.split()[-1])).normal(size=8) for example in examples]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def given(pool, budget=10, missing=(1, 2, 3), seed=42, **changes):
    held = SynthesisInput(
        [Query(f"seed {i}") for i in range(100, 104)], Poison(), missing, Poison(), {},
        np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32), budget, Settings(seed=seed), pool=lambda: pool,
        embed=vectors_of,
    )  # fmt: skip
    return replace(held, **changes)


def rows_of(outcome):
    return [int(example.text.split()[-1]) for example in outcome.examples]


def chosen(name, *args, **named):
    return rows_of(METHODS[name].run(given(*args, **named), None))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", SELECTING, ids=lambda method: method.name)
def test_each_adds_its_budget_of_different_examples_and_says_where_they_come_from(method):
    pool = random_pool()
    for budget in (0, 1, 25):
        outcome = method.run(given(pool, budget, missing=range(WIDTH)), None)
        rows = rows_of(outcome)
        assert len(rows) == len(set(rows)) == budget
        assert outcome.counts == Counts(added=budget, budget=budget)
        assert outcome.samples == outcome.chosen == []
    assert method.note.startswith("Selection from human data")
    assert method.prompts == ()  # nobody writes


@pytest.mark.parametrize("method", SELECTING, ids=lambda method: method.name)
def test_each_chooses_the_same_for_the_same_seed_and_never_looks_at_what_it_has_not_named(method):
    """Poison stands in the place of the test's role `human`, of F(P), and of whatever the method does not need."""
    pool = random_pool()
    blind: dict[str, Any] = {} if "missing" in method.needs else {"missing": Poison(), "thresholds": Poison()}
    blind |= {} if "embeddings" in method.needs else {"embed": undeclared, "seed_examples": Poison()}
    first, again = (rows_of(method.run(given(pool, **blind), None)) for _ in range(2))
    assert first == again
    whatever = rows_of(method.run(given(pool, seed=43, **blind), None))
    assert (whatever != first) == method.drawn


def test_at_random_is_another_draw_than_that_of_the_row_of_human_data():
    pool = random_pool()
    full = METHODS["full"].run(given(pool, human_examples=pool.examples), None)  # type: ignore[arg-type]
    assert sorted(chosen("select_random", pool)) != sorted(rows_of(full))


def test_the_longest_count_the_tokens_of_all_chats_of_an_example():
    pool = pool_of(np.ones((8, WIDTH)), chats=2)
    pool = replace(pool, lengths=np.array([5, 5, 9, 0, 4, 6, 1, 1], np.int32))
    assert chosen("select_longest", pool, 3) == [0, 2, 1]  # 10, 10, 9, 2; ties by row


def test_an_example_activates_what_any_of_its_chats_does_above_the_threshold():
    matrix = np.zeros((4, WIDTH))
    matrix[0, 3], matrix[1, 5], matrix[1, 3], matrix[3, 7] = 0.4, 2.0, 0.6, 1.0
    pool = pool_of(matrix, chats=2)
    cuts = np.full(WIDTH, 0.5, np.float32)
    assert [own.tolist() for own in activated(pool, cuts)] == [[3, 5], [7]]
    assert [own.tolist() for own in activated(pool, cuts * 2)] == [[5], []]
    assert [own.tolist() for own in activated(pool, cuts, [7, 3])] == [[3], [7]]
    assert activated(pool_of(np.zeros((0, WIDTH))), cuts) == []


def test_examples_whose_chats_are_parted_by_the_chunks_of_a_large_matrix_are_whole():
    """By brute force, on more entries than a chunk holds, so that its end falls within an example."""
    rng = np.random.default_rng(3)
    matrix = rng.random((650, 2000), np.float32) * (rng.random((650, 2000)) < 0.9)
    pool = pool_of(matrix, chats=50)
    assert len(list(pool.activations.chunks())) > 1
    cuts = np.full(2000, 0.99, np.float32)
    found = activated(pool, cuts, range(0, 2000, 2))
    for own, chats in zip(found, np.split(matrix, 13), strict=True):
        assert own.tolist() == [f for f in np.flatnonzero((chats > 0.99).any(axis=0)).tolist() if f % 2 == 0]


def test_the_control_for_length_takes_other_texts_as_long_as_those_chosen_for_missing_features():
    """By the numbers of each stratum: at random it would take as many of each length as there are."""
    rng = np.random.default_rng(0)
    lengths = np.repeat(np.array([5, 50], np.int32), [180, 60])
    matrix = (lengths[:, None] / 50) * (rng.random((240, WIDTH)) < 0.2)  # long texts alone pass the threshold
    pool = replace(pool_of(matrix), lengths=lengths)
    cuts = {"missing": range(WIDTH), "thresholds": np.full(WIDTH, 0.5, np.float32)}
    for_missing, matched = (set(chosen(name, pool, 20, **cuts)) for name in ("select_fac", "select_length_matched"))
    assert set(lengths[list(for_missing)]) == set(lengths[list(matched)]) == {50}
    assert matched != for_missing
    assert set(lengths[chosen("select_random", pool, 20)]) == {5, 50}


def greedy(sets, budget):
    """The definition, by trying every row every time."""
    rows, covered = [], set()
    while len(rows) < budget:
        gains = {row: len(set(own) - covered) for row, own in enumerate(sets) if row not in rows and len(own)}
        if not gains:
            return rows
        if not max(gains.values()):
            covered = set()
            continue
        row = max(gains, key=lambda row: (gains[row], -row))
        rows.append(row)
        covered |= set(sets[row])
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_lazy_greedy_is_greedy_with_ties_by_row_and_starts_anew_once_all_is_covered(seed):
    rng = random.Random(seed)
    sets = [np.array(sorted(rng.sample(range(12), rng.randint(0, 4))), np.int64) for _ in range(30)]
    for budget in (3, 11, 100):
        assert covering(sets, budget) == greedy([own.tolist() for own in sets], budget)


def test_selecting_for_missing_features_looks_at_those_alone_and_leaves_out_what_has_none():
    matrix = np.zeros((5, WIDTH))
    matrix[0, 10:30] = 1  # many features, none of them missing
    matrix[1, [1, 2]] = matrix[2, [2, 3]] = matrix[4, 1] = 1
    matrix[3, 3] = 0.5
    pool = pool_of(matrix)
    assert chosen("select_fac", pool) == [1, 2, 3, 4]
    assert chosen("select_fac", pool, thresholds=np.full(WIDTH, 0.6, np.float32)) == [1, 2, 4]
    assert chosen("select_fac", pool, missing=[3]) == [2, 3]
    assert chosen("select_sae_greedy", pool)[:2] == [0, 1]


def test_scaling_prefers_many_features_if_enough_of_them_are_new():
    sets = [np.array(own) for own in ([1, 2, 3, 4], [1, 2, 3, 5], [6, 7], [8], [1, 9, 10])]
    assert scaling(sets, 3) == [0, 2, 3]  # more than nine tenths new
    assert scaling(sets, 4) == [0, 4, 2, 3]  # more than six tenths
    assert scaling(sets, 5) == [0, 1, 4, 2, 3]
    assert scaling([*sets, np.array([1])], 9) == [0, 1, 4, 2, 3, 5]  # what is all known comes in a second round
    assert scaling([np.zeros(0, np.int64)], 1) == []


def test_dense_clusters_that_the_seed_holds_are_left_out():
    """Ten clumps of three; the seed stands in six of them. One of each other clump, the nearest, then the second."""

    def embed(examples):
        rows = np.zeros((len(examples), 10), np.float32)
        for row, example in zip(rows, examples, strict=True):
            place = int(example.text.split()[-1])
            row[place % 10] = 1
            row[(place + 1) % 10] = 0.1 * (place // 10)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    pool, seed = pool_of(np.ones((30, WIDTH))), [Query(f"seed {i}") for i in (100, 101, 102, 103, 104, 105)]
    rows = chosen("select_dense", pool, 4, embed=embed, seed_examples=seed)
    assert sorted(row % 10 for row in rows) == [6, 7, 8, 9]
    assert {row // 10 for row in rows} == {1}  # the middle one of three
    more = chosen("select_dense", pool, 5, embed=embed, seed_examples=seed)
    assert more[:4] == rows
    assert more[4] % 10 in (6, 7, 8, 9)
    everywhere = [*seed, *(Query(f"seed {i}") for i in (100, 106, 107, 108))]
    assert chosen("select_dense", pool, 1, embed=embed, seed_examples=everywhere)[0] % 10 == 9
