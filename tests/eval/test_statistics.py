"""Intervals: each against an independent computation, and each at its stated level."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from eval.statistics import (
    Estimate,
    Interval,
    holm,
    interval,
    nested_mean,
    resampled,
    resampled_auprc,
    resampled_means,
    verdict,
)
from fac.errors import FacError


def design(rng, worlds=3, generations=2, seeds=3, world=1.0, generation=1.0, seed=1.0, mean=0.0):
    """Numbers of a nested design with the given standard deviation at each level."""
    values = {}
    for w in range(worlds):
        at_world = mean + world * rng.standard_normal()
        for g in range(generations):
            at_generation = at_world + generation * rng.standard_normal()
            for s in range(seeds):
                values[w, g, s] = at_generation + seed * rng.standard_normal()
    return values


class TestResampled:
    def test_each_stratum_keeps_its_size_in_every_draw(self):
        strata = np.array(["b", "a", "a", "b", "a"])
        counts = resampled(strata, draws=200)
        assert counts.shape == (200, 5)
        assert set(counts[:, strata == "a"].sum(axis=1)) == {3}
        assert set(counts[:, strata == "b"].sum(axis=1)) == {2}
        assert np.allclose(counts.mean(axis=0), 1, atol=0.25)

    def test_equal_arguments_give_equal_draws_so_that_rows_can_be_compared_draw_by_draw(self):
        assert np.array_equal(resampled([0, 1, 1, 0], 50), resampled([0, 1, 1, 0], 50))
        assert not np.array_equal(resampled([0, 1, 1, 0], 50), resampled([0, 1, 1, 0], 50, seed=1))

    def test_a_thousand_draws_where_none_are_named(self):
        assert resampled([0, 1]).shape == (1000, 2)

    def test_a_stratum_of_one_is_always_drawn(self):
        assert (resampled([0, 1, 1], 20)[:, 0] == 1).all()


class TestReplicates:
    def test_means_are_those_of_the_drawn_items(self):
        counts = np.array([[2, 0, 1], [0, 3, 0]], np.uint16)
        assert resampled_means([1.0, 5.0, 4.0], counts) == pytest.approx([2.0, 5.0])

    @pytest.mark.parametrize("decimals", [1, 8])  # with many ties, and with none
    def test_auprc_is_that_of_sklearn_in_every_draw(self, decimals):
        rng = np.random.default_rng(0)
        labels = rng.random(80) < 0.2
        scores = np.round(rng.random(80) + 0.3 * labels, decimals)
        counts = resampled(labels, draws=40)
        expected = [average_precision_score(labels, scores, sample_weight=drawn) for drawn in counts]
        assert resampled_auprc(labels, scores, counts) == pytest.approx(expected, abs=1e-12)

    def test_the_interval_holds_the_middle_95_percent(self):
        assert interval(np.arange(1001)) == pytest.approx((25.0, 975.0))


class TestNestedMean:
    def test_is_students_t_over_the_worlds_means(self):
        values = {(w, g, s): 10.0 * w + g for w in range(3) for g in range(2) for s in range(2)}
        found = nested_mean(values)
        assert found.mean == pytest.approx(10.5)
        # means .5, 10.5, 20.5: sd 10, error 10/sqrt(3), t of .975 with 2 degrees of freedom 4.302653
        half = 4.302653 * 10 / np.sqrt(3)
        assert found.interval == pytest.approx((10.5 - half, 10.5 + half), abs=1e-4)
        assert found.p == pytest.approx(0.2106, abs=1e-4)

    def test_says_how_much_each_level_adds(self):
        rng = np.random.default_rng(1)
        found = nested_mean(design(rng, worlds=400, world=3.0, generation=2.0, seed=1.0))
        assert found.spread["world"] == pytest.approx(3.0, rel=0.15)
        assert found.spread["generation"] == pytest.approx(2.0, rel=0.1)
        assert found.spread["seed"] == pytest.approx(1.0, rel=0.05)

    def test_the_levels_are_those_of_the_mean_squares(self):
        """Of the nested analysis of variance, each less the one below it, over what it is repeated."""
        values = design(np.random.default_rng(5), worlds=3, generations=2, seeds=4, world=3.0, generation=2.0)
        table = np.array([[[values[w, g, s] for s in range(4)] for g in range(2)] for w in range(3)])
        cells, means = table.mean(axis=2), table.mean(axis=(1, 2))
        of_seeds = ((table - cells[:, :, None]) ** 2).sum() / (3 * 2 * 3)
        of_generations = 4 * ((cells - means[:, None]) ** 2).sum() / 3
        of_worlds = 2 * 4 * ((means - table.mean()) ** 2).sum() / 2
        variances = of_seeds, (of_generations - of_seeds) / 4, (of_worlds - of_generations) / 8
        assert min(variances) > 0.4
        found = nested_mean(values).spread
        assert [found[name] ** 2 for name in ("seed", "generation", "world")] == pytest.approx(variances)

    @pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.0, 1.0, 2.0), (3.0, 0.1, 0.1)])
    def test_holds_the_truth_in_95_of_100_whatever_the_levels_shares_are(self, shares):
        rng = np.random.default_rng(2)
        held = 0
        for _ in range(1000):
            low, high = nested_mean(design(rng, 3, 2, 3, *shares, mean=4.0)).interval
            held += low <= 4.0 <= high
        assert 930 <= held <= 970

    def test_one_world_or_one_that_lacks_a_seed_is_refused(self):
        with pytest.raises(FacError, match="two of them"):
            nested_mean({(0, 0, 0): 1.0, (0, 0, 1): 2.0})
        with pytest.raises(FacError, match="lacks"):
            nested_mean({(0, 0, 0): 1.0, (0, 0, 1): 2.0, (1, 0, 0): 1.0})

    def test_numbers_without_any_spread_are_certain(self):
        alike = {(w, 0, 0): 2.0 for w in range(3)}
        assert nested_mean(alike).p == 0.0
        assert nested_mean(dict.fromkeys(alike, 0.0)).p == 1.0


class TestHolm:
    def test_is_holms_step_down(self):
        # sorted .01 .02 .03 .04: x4, x3, x2, x1, each at least the one before
        assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
        assert holm([]) == []

    def test_a_claim_is_worded_after_its_corrected_p(self):
        estimate = Estimate(2.0, Interval(0.5, 3.5), 0.02, 3, {})
        assert verdict(estimate, 0.04) == "more"
        assert verdict(estimate, 0.06) == "not told apart"
        assert verdict(Estimate(-2.0, Interval(-3.5, -0.5), 0.02, 3, {}), 0.04) == "less"
