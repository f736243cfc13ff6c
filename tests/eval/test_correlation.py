"""Correlations against known answers, and their intervals against how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from eval.correlation import (
    Points,
    centred,
    correlated,
    partial,
    pearson,
    resampled_points,
    spearman,
)


def points(x, y, given=None, worlds=None, rows=None):
    """Every point a row of its own, all of one world, where nothing else is said."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    worlds = np.zeros(len(x)) if worlds is None else np.asarray(worlds)
    rows = np.arange(len(x)) if rows is None else np.asarray(rows)
    return Points(x, y, worlds, rows, None if given is None else np.asarray(given, float))


def drawn(rng, n, rho):
    """n points of a bivariate normal distribution."""
    x = rng.standard_normal(n)
    return points(x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(n))


def world_points(rng, worlds=3, rows=5, generations=2, level=1.0, rho=0.8):
    """Methods in worlds: every world has its level of y, a method's generations nearly agree."""
    x, y, w, r = [], [], [], []
    for world in range(worlds):
        shift = level * rng.standard_normal()
        for row in range(rows):
            at = rng.standard_normal()
            to = rho * at + np.sqrt(1 - rho**2) * rng.standard_normal()
            for _ in range(generations):
                x.append(at)
                y.append(to + shift)
                w.append(world)
                r.append(row)
    return points(x, y, worlds=w, rows=r)


class TestCoefficients:
    def test_are_those_of_scipy_with_and_without_ties(self):
        rng = np.random.default_rng(0)
        for decimals in (1, 9):
            p = points(np.round(rng.normal(size=12), decimals), np.round(rng.normal(size=12), decimals))
            assert pearson(p) == pytest.approx(stats.pearsonr(p.x, p.y)[0])
            assert spearman(p) == pytest.approx(stats.spearmanr(p.x, p.y)[0])

    def test_by_hand(self):
        p = points([1, 2, 3, 10], [2, 4, 6, 7])
        assert pearson(p) == pytest.approx(22 / np.sqrt(50 * 14.75))
        assert spearman(p) == 1.0

    def test_a_partial_correlation_is_that_of_the_residuals(self):
        rng = np.random.default_rng(1)
        given = rng.normal(size=30)
        p = points(given + rng.normal(size=30), 2 * given + rng.normal(size=30), given)
        left = [v - np.polyval(np.polyfit(given, v, 1), given) for v in (p.x, p.y)]
        assert partial(p) == pytest.approx(np.corrcoef(left)[0, 1])
        assert abs(partial(p)) < pearson(p)  # all that they share is what is given
        with pytest.raises(ValueError, match="held constant"):
            partial(points([1, 2, 3], [1, 2, 3]))

    @pytest.mark.parametrize("x", [[1, 2], [4, 4, 4, 4], [0.1 + 0.2, 0.3, 0.3, 0.3]])
    def test_there_is_none_of_two_points_or_of_a_number_that_does_not_vary(self, x):
        p = points(x, range(len(x)), given=np.arange(len(x)) ** 2)
        assert np.isnan([pearson(p), partial(p)]).all()
        assert correlated(p, pearson).interval is None

    def test_what_worlds_differ_in_is_left_out_within_worlds(self):
        p = points([1, 2, 3, 1, 2, 3], [1, 2, 3, 101, 102, 103], worlds=[0, 0, 0, 1, 1, 1], rows=[0, 1, 2] * 2)
        assert pearson(p) < 0.1
        assert pearson(p.within_worlds()) == pytest.approx(1)
        assert centred([1, 5, 2], np.array(["a", "b", "a"])).tolist() == [-0.5, 0, 0.5]


class TestInterval:
    def test_worlds_are_drawn_and_within_them_methods_with_all_their_points(self):
        p = points(range(12), range(12), worlds=np.repeat([7, 9], 6), rows=np.tile(np.repeat(["a", "b", "c"], 2), 2))
        sizes, worlds = set(), set()
        for one in resampled_points(p, draws=60):
            sizes.add(len(one.x))
            for copy in (0, 1):
                at = one.x[one.worlds == copy].astype(int)
                assert len(set(p.worlds[at])) == 1
                worlds.add((copy, int(p.worlds[at[0]])))
                assert (at.reshape(-1, 2)[:, 1] - at.reshape(-1, 2)[:, 0] == 1).all()  # both points of each method
        assert sizes == {12}
        assert worlds == {(0, 7), (0, 9), (1, 7), (1, 9)}

    def test_equal_arguments_give_equal_intervals(self):
        p = drawn(np.random.default_rng(3), 9, 0.5)
        assert correlated(p, pearson, 50) == correlated(p, pearson, 50)
        assert correlated(p, pearson, 50).interval != correlated(p, pearson, 50, seed=1).interval

    def test_two_methods_have_none(self):
        p = points([1, 2, 3, 4], [1, 3, 2, 4], rows=["a", "a", "b", "b"])
        found = correlated(p, pearson)
        assert (found.points, found.rows, found.interval) == (4, 2, None)
        assert found.value == pytest.approx(0.8)

    def test_holds_the_truth_about_as_often_as_it_says(self):
        rng = np.random.default_rng(4)
        held = 0
        for _ in range(300):
            low, high = correlated(drawn(rng, 15, 0.8), pearson, 200).interval or (1, -1)
            held += low <= 0.8 <= high
        assert 0.88 <= held / 300 <= 0.96

    def test_is_wider_for_points_that_are_no_points_of_their_own(self):
        """Two generations that agree tell no more than one: drawing points would take them for twice as many."""
        p = world_points(np.random.default_rng(5), worlds=1, rows=12)
        alone = Points(p.x, p.y, p.worlds, np.arange(len(p.x)))
        by_row, by_point = (correlated(q, pearson, 300).interval for q in (p, alone))
        assert by_row is not None
        assert by_point is not None
        assert by_row.high - by_row.low > 1.2 * (by_point.high - by_point.low)

    def test_within_worlds_its_levels_do_not_widen_it(self):
        p = world_points(np.random.default_rng(6), level=20.0)
        pooled, within = (correlated(q, pearson, 200).interval for q in (p, p.within_worlds()))
        assert pooled is not None
        assert within is not None
        assert pooled.low < 0 < within.low < within.high < 1
        assert within.high - within.low < 0.75 * (pooled.high - pooled.low)
