"""fac.matching against numpy.corrcoef on dense columns, and on two encoders whose correspondence is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fac.errors import FacError
from fac.matching import Match, carry, correlations, mutual
from fac.pooled import Pooled, PooledWriter


@st.composite
def two_encoders(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Dense activations of the same texts: ties, silent features, features that fire everywhere or nearly alike."""
    texts = draw(st.integers(2, 20))
    values = st.one_of(
        st.just(0.0), st.integers(0, 3).map(float), st.floats(0, 8, width=32), st.floats(7, 7.25, width=32)
    )
    return tuple(
        draw(hnp.arrays(np.float32, (texts, draw(st.integers(1, 7))), elements=values, fill=st.nothing()))
        for _ in range(2)
    )  # type: ignore[return-value]


def pearson(a: NDArray[np.float32], b: NDArray[np.float32], min_active: int) -> NDArray[np.float64]:
    """All correlations [features of a, features of b] from `numpy.corrcoef`; -inf where there is none."""
    r = np.full((a.shape[1], b.shape[1]), -np.inf)
    for i, j in np.ndindex(r.shape):
        columns = a[:, i].astype(np.float64), b[:, j].astype(np.float64)
        if all(np.ptp(column) > 0 and (column > 0).sum() >= min_active for column in columns):
            # the largest value in the column may be tiny: corrcoef must not underflow
            r[i, j] = np.corrcoef(*(column / column.max() for column in columns))[0, 1]
    return r


@given(two_encoders(), st.integers(1, 3), st.integers(1, 8))
def test_equals_corrcoef(dense, min_active, block):
    a, b = dense
    match = correlations(Pooled.from_dense(a), Pooled.from_dense(b), min_active=min_active, block=block)
    r = pearson(a, b, min_active)
    for best, found, expected in ((match.best_ab, match.r_ab, r), (match.best_ba, match.r_ba, r.T)):
        assert len(best) == len(found) == len(expected)
        for i, row in enumerate(expected):
            if np.isinf(row).all():
                assert best[i] == -1
                assert np.isnan(found[i])
            else:
                assert found[i] == pytest.approx(row.max(), abs=1e-6)
                assert row[best[i]] == pytest.approx(row.max(), abs=1e-6)  # among equals any id
                assert -1 <= found[i] <= 1


@given(two_encoders(), st.floats(0.1, 1.0))
def test_mutual_pairs_are_each_other_s_best(dense, at_least):
    a, b = (Pooled.from_dense(matrix) for matrix in dense)
    match = correlations(a, b)
    pairs = mutual(match, at_least)
    expected = [
        (f, g)
        for f, g in enumerate(match.best_ab.tolist())
        if g >= 0 and match.best_ba[g] == f and match.r_ab[f] >= at_least
    ]
    assert pairs.shape == (len(expected), 2)
    assert [tuple(pair) for pair in pairs.tolist()] == expected
    assert len(set(pairs[:, 0].tolist())) == len(set(pairs[:, 1].tolist())) == len(pairs)
    assert sorted(map(tuple, mutual(match.turned(), at_least)[:, ::-1].tolist())) == expected


@given(two_encoders(), st.data())
def test_what_is_carried_over_and_back_is_what_has_a_counterpart(dense, data):
    a, b = (Pooled.from_dense(matrix) for matrix in dense)
    match = correlations(a, b)
    features = data.draw(hnp.arrays(np.bool_, a.n_features))
    carried = carry(features, match, 0.5)
    assert carried.shape == (b.n_features,)
    matched = np.zeros(a.n_features, np.bool_)
    matched[mutual(match, 0.5)[:, 0]] = True
    assert (carry(carried, match.turned(), 0.5) == (features & matched)).all()


def test_a_shuffled_and_rescaled_encoder_is_matched_feature_by_feature(tmp_path):
    """Also from disk, and with more features than a block."""
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((500, 60)) < 0.2, rng.gamma(2, size=(500, 60)), 0).astype(np.float32)
    dense[:, 7] = 0
    dense[:, 9] = 3
    order = rng.permutation(60)
    writer = PooledWriter(tmp_path, 60)
    writer.append(dense[:, order] * rng.uniform(0.1, 10, 60).astype(np.float32))
    writer.close()
    match = correlations(Pooled.from_dense(dense), Pooled.load(tmp_path), block=16)
    alive = ~np.isin(np.arange(60), [7, 9])
    assert (order[match.best_ab[alive]] == np.flatnonzero(alive)).all()
    assert match.r_ab[alive] == pytest.approx(1)
    assert match.best_ab[[7, 9]].tolist() == [-1, -1]
    assert len(mutual(match, 0.99)) == 58


def test_among_equals_the_lowest_id_is_matched_whatever_the_block():
    dense = np.zeros((6, 4), np.float32)
    dense[1:3] = 2
    twins = Pooled.from_dense(dense)
    for block in (1, 3, 4):
        match = correlations(twins, twins, block=block)
        assert match.best_ab.tolist() == match.best_ba.tolist() == [0, 0, 0, 0]
        assert mutual(match, 0.9).tolist() == [[0, 0]]


def test_features_that_differ_by_rounding_errors_are_equally_good():
    rng = np.random.default_rng(2)
    column = np.where(rng.random(300) < 0.1, rng.gamma(2, size=300), 0)
    multiples = Pooled.from_dense(np.stack([column * factor for factor in (1, 0.1, 3.3, 0.7, 1e-3)], axis=1))
    match = correlations(multiples, multiples)
    assert match.best_ab.tolist() == match.best_ba.tolist() == [0] * 5


def test_a_small_variation_on_a_large_activation_is_not_lost():
    """Features that fire everywhere, as with Top-K off, where naive sums would cancel to nothing."""
    rng = np.random.default_rng(1)
    wave = rng.normal(size=(200, 1))
    a = (4096 + wave + 0.1 * rng.normal(size=(200, 3))).astype(np.float32)
    b = (9000 + wave + 0.1 * rng.normal(size=(200, 2))).astype(np.float32)
    match = correlations(Pooled.from_dense(a), Pooled.from_dense(b))
    r = np.corrcoef(a.T.astype(np.float64), b.T.astype(np.float64))[:3, 3:]
    assert match.r_ab == pytest.approx(r.max(axis=1), abs=1e-9)
    assert match.r_ba == pytest.approx(r.max(axis=0), abs=1e-9)


def test_two_features_that_share_their_only_text_match_by_chance_unless_rare_ones_are_left_out():
    dense = np.zeros((50, 1), np.float32)
    dense[3] = 1
    once = Pooled.from_dense(dense)
    assert correlations(once, once).r_ab.tolist() == pytest.approx([1])
    assert correlations(once, once, min_active=2).best_ab.tolist() == [-1]


def test_carry_follows_the_pairs():
    match = Match(
        best_ab=np.array([1, 1, 0, -1]),
        r_ab=np.array([0.9, 0.8, 0.4, np.nan]),
        best_ba=np.array([2, 0]),
        r_ba=np.array([0.4, 0.9]),
    )
    everything = np.ones(4, np.bool_)
    assert mutual(match, 0.7).tolist() == [[0, 1]]
    assert mutual(match, 0.4).tolist() == [[0, 1], [2, 0]]
    assert carry(everything, match, 0.7).tolist() == [False, True]
    assert carry(np.array([False, True, True, True]), match, 0.4).tolist() == [True, False]


def test_what_cannot_be_matched_is_said():
    two, three = (Pooled.from_dense(np.eye(n, dtype=np.float32)) for n in (2, 3))
    with pytest.raises(FacError, match="one model read 2 texts and the other 3: measure both on the same texts"):
        correlations(two, three)
    one = Pooled.from_dense(np.ones((1, 2)))
    with pytest.raises(FacError, match="on more texts"):
        correlations(one, one)
