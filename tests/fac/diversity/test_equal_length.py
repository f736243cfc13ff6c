"""fac.diversity.equal_length: coverage of parts of equal length, against what it must be."""

import numpy as np
import pytest

from fac.coverage import rarefaction
from fac.diversity.equal_length import covered_at_length
from fac.pooled import Pooled

CUT = np.full(6, 0.5, np.float32)


def pooled(rng, texts, share=0.15):
    return Pooled.from_dense(np.where(rng.random((texts, 6)) < share, 1.0, 0.4) * (rng.random((texts, 6)) < 0.9))


def test_all_of_a_set_covers_what_it_covers():
    dense = np.array([[1, 0, 0, 0.4, 0, 0], [0, 1, 0, 0, 0, 1]], np.float32)
    missing = np.array([True, True, True, True, False, False])
    shares = covered_at_length(Pooled.from_dense(dense), np.array([3, 5]), CUT, missing, 8, 5)
    assert shares.tolist() == [0.5] * 5  # two of four; what lies below the cut or is not missing does not count


def test_of_texts_alike_in_length_it_is_the_rarefaction_curve():
    matrix = pooled(np.random.default_rng(0), 40)
    missing = np.array([True] * 5 + [False])
    shares = covered_at_length(matrix, np.full(40, 7), CUT, missing, 70, 2000)
    tally = (np.array([matrix.row(i) for i in range(40)]) > 0.5).sum(axis=0)[missing]
    assert shares.mean() == pytest.approx(rarefaction(tally, 40, [10])[0] / 5, abs=0.01)


def test_a_part_is_as_long_as_it_is_said_to_be_on_average():
    """Every text activates a feature of its own, so that what is covered counts the texts: 25 tokens are 2.5 of 10."""
    matrix = Pooled.from_dense(np.eye(6, dtype=np.float32))
    shares = covered_at_length(matrix, np.full(6, 10), CUT, np.ones(6, bool), 25, 3000)
    assert set(np.round(6 * shares)) == {2, 3}
    assert 6 * shares.mean() == pytest.approx(2.5, abs=0.03)
    assert covered_at_length(matrix, np.full(6, 10), CUT, np.ones(6, bool), 0, 3).tolist() == [0, 0, 0]


def test_a_wordy_set_covers_no_more_for_being_wordy():
    """Of twice as many tokens for the same features, half as many features are left at equal length."""
    matrix = pooled(np.random.default_rng(1), 60, share=0.03)
    terse, wordy = (
        covered_at_length(matrix, np.full(60, length), CUT, np.ones(6, bool), 200, 300).mean() for length in (10, 20)
    )
    assert terse > 1.3 * wordy


def test_a_shorter_set_is_refused():
    with pytest.raises(ValueError, match="has 8 tokens, fewer than 9"):
        covered_at_length(Pooled.from_dense(np.eye(6)[:2]), np.array([3, 5]), CUT, np.ones(6, bool), 9, 1)
