"""The statistical judge against scipy on dense columns, and on data whose answer is known."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import false_discovery_control, mannwhitneyu

from fac.errors import FacError
from fac.pooled import Pooled, PooledWriter
from fac.relevance import associated


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 25), st.integers(1, 5)),
        elements=st.one_of(st.just(0.0), st.integers(0, 5).map(float), st.floats(0, 4, width=32)),
        fill=st.nothing(),
    ),
    st.data(),
)
def test_equals_scipy_on_dense_columns(dense, data):
    labels = data.draw(hnp.arrays(np.bool_, len(dense)))
    assume(labels.any() and not labels.all())
    got = associated(Pooled.from_dense(dense), labels)
    for i, column in enumerate(dense.T.astype(np.float64)):  # scipy computes in the precision it is given
        test = mannwhitneyu(
            column[labels], column[~labels], alternative="greater", method="asymptotic", use_continuity=True
        )
        assert got.p_values[i] == pytest.approx(test.pvalue, rel=1e-9, abs=1e-300)
        assert got.auc[i] == pytest.approx(test.statistic / (labels.sum() * (~labels).sum()))


def planted(
    seed: int = 0, *, texts: int = 400, features: int = 300, linked: int = 20, positives: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Features 0 ... linked − 1 fire in 40 % of the positives and 5 % of the negatives; the others in 10 % of all."""
    rng = np.random.default_rng(seed)
    labels = rng.random(texts) < positives
    rates = np.full((texts, features), 0.1)
    rates[:, :linked] = np.where(labels[:, None], 0.4, 0.05)
    fires = rng.random((texts, features)) < rates
    return (fires * rng.uniform(0.5, 3, fires.shape)).astype(np.float32), labels


def test_finds_planted_features_and_controls_the_share_of_false_ones():
    """The promise is about the mean over data sets (one data set may be unlucky), and holds for balanced labels."""
    found, false_share = [], []
    for seed in range(40):
        dense, labels = planted(seed)
        relevant = associated(Pooled.from_dense(dense), labels, fdr=0.05).relevant
        found.append(relevant[:20].mean())
        false_share.append(relevant[20:].sum() / max(relevant.sum(), 1))
    assert np.mean(found) > 0.99
    assert 0 < np.mean(false_share) < 0.05 + 3 * np.std(false_share) / np.sqrt(40)


def test_the_test_is_one_sided():
    dense, labels = planted()
    got = associated(Pooled.from_dense(dense), ~labels)
    assert not got.relevant[:20].any()
    assert (got.auc[:20] < 0.4).all()


def test_rare_features_are_not_tested_and_do_not_cost_power():
    dense, labels = planted()
    rare = np.zeros((len(dense), 1), dtype=np.float32)
    rare[np.flatnonzero(labels)[:4]] = 9.0
    with_rare = associated(Pooled.from_dense(np.hstack([dense, np.repeat(rare, 50, axis=1)])), labels)
    assert not with_rare.relevant[300:].any()
    np.testing.assert_array_equal(with_rare.relevant[:300], associated(Pooled.from_dense(dense), labels).relevant)
    tested = associated(Pooled.from_dense(rare), labels, min_active=4, fdr=0.05)
    assert tested.relevant.all()


def test_benjamini_hochberg_runs_over_the_tested_features():
    dense, labels = planted()
    for fdr in (0.001, 0.05, 0.5):
        got = associated(Pooled.from_dense(dense), labels, fdr=fdr, min_active=1)
        np.testing.assert_array_equal(got.relevant, false_discovery_control(got.p_values) <= fdr)


def test_reads_from_disk(tmp_path):
    dense, labels = planted(texts=60, features=30, linked=5)
    writer = PooledWriter(tmp_path, 30)
    writer.append(dense)
    writer.close()
    for a, b in zip(
        associated(Pooled.load(tmp_path), labels), associated(Pooled.from_dense(dense), labels), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_features_that_never_or_always_fire_alike_say_nothing():
    dense = np.tile(np.array([0.0, 2.0], dtype=np.float32), (20, 1))
    got = associated(Pooled.from_dense(dense), np.arange(20) < 10)
    assert got.p_values.tolist() == [1, 1]
    assert got.auc.tolist() == [0.5, 0.5]
    assert not got.relevant.any()


def test_nothing_to_test_is_nothing_relevant():
    got = associated(Pooled.from_dense(np.zeros((4, 3), dtype=np.float32)), np.array([1, 0, 1, 0], dtype=bool))
    assert not got.relevant.any()


@pytest.mark.parametrize("label", [True, False])
def test_one_class_is_refused(label):
    with pytest.raises(FacError, match="both classes"):
        associated(Pooled.from_dense(np.ones((4, 3), dtype=np.float32)), np.full(4, label))


def test_every_text_needs_a_label():
    with pytest.raises(ValueError, match="3 labels for 4 texts"):
        associated(Pooled.from_dense(np.ones((4, 3), dtype=np.float32)), np.array([1, 0, 1], dtype=bool))
