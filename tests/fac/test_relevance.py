"""The statistical judge against every permutation, against scipy, and on data whose answer is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import false_discovery_control, mannwhitneyu, pearson3, rankdata, skew
from statsmodels.stats.contingency_tables import StratifiedTable

from fac.errors import FacError
from fac.pooled import Pooled, PooledWriter
from fac.relevance import associated, strata, upper_tail

values = st.one_of(st.just(0.0), st.integers(0, 5).map(float), st.floats(0, 4, width=32))


def alike(texts):
    """Lengths that say nothing."""
    return np.full(len(texts), 7)


@given(
    st.integers(1, 12).flatmap(lambda half: hnp.arrays(np.float32, (2 * half, 3), elements=values, fill=st.nothing())),
    st.randoms(use_true_random=False),
)
def test_equal_classes_of_one_length_are_scipys_test(dense, random):
    """Then nothing is skewed, and what is left is Mann-Whitney with its correction for ties."""
    labels = np.arange(len(dense)) % 2 == 0
    random.shuffle(labels)
    got = associated(Pooled.from_dense(dense), labels, alike(dense))
    for i, column in enumerate(dense.T.astype(np.float64)):
        if np.ptp(column) == 0:
            assert (got.p_values[i], got.auc[i]) == (1, 0.5)
            continue
        test = mannwhitneyu(
            column[labels], column[~labels], alternative="greater", method="asymptotic", use_continuity=False
        )
        assert got.p_values[i] == pytest.approx(test.pvalue, rel=1e-9)  # pyright: ignore[reportAttributeAccessIssue]
        assert got.auc[i] == pytest.approx(test.statistic / (len(dense) / 2) ** 2)


def every_labelling(labels, stratum):
    """All ways to give the same numbers of labels within each stratum."""
    parts = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
    choices = [itertools.combinations(part, int(labels[part].sum())) for part in parts]
    for chosen in itertools.product(*choices):
        drawn = np.zeros(len(labels), bool)
        drawn[[i for part in chosen for i in part]] = True
        yield drawn


def test_the_moments_are_those_of_every_labelling_of_equal_length():
    """van Elteren's sum, standardised, and the skewness of its exact distribution, from dense ranks."""
    rng = np.random.default_rng(0)
    lengths = np.repeat([3, 9, 20], [10, 12, 11])  # each fills a stratum
    labels = np.zeros(33, bool)
    labels[[0, 5, 10, 11, 25, 26, 27]] = True
    dense = (rng.random((33, 6)) < [0.1, 0.2, 0.4, 0.8, 1.0, 0.3]) * rng.integers(1, 4, (33, 6)).astype(np.float32)
    stratum = strata(lengths)
    assert len(np.unique(stratum)) == 3
    got = associated(Pooled.from_dense(dense), labels, lengths, min_active=1)
    scores = np.zeros(dense.shape)
    for s in range(3):
        inside = stratum == s
        scores[inside] = rankdata(dense[inside], axis=0) / (inside.sum() + 1)
    sums = np.array([scores[drawn].sum(axis=0) for drawn in every_labelling(labels, stratum)])
    z = (scores[labels].sum(axis=0) - sums.mean(axis=0)) / sums.std(axis=0)
    assert skew(sums)[0] > 0.2
    np.testing.assert_allclose(got.p_values, upper_tail(z, skew(sums)), rtol=1e-6)


def test_the_tail_is_pearsons_type_iii():
    z, skews = np.array([-1.0, 0.5, 3.0, 8.0]), np.array([0.3, 0.9, 2.0, 3.0])
    np.testing.assert_allclose(upper_tail(z, skews), pearson3.sf(z, skews), rtol=1e-9)
    np.testing.assert_allclose(upper_tail(z, np.zeros(4)), pearson3.sf(z, 0), rtol=1e-9)
    np.testing.assert_allclose(upper_tail(z, -skews), pearson3.sf(z, 0), rtol=1e-9)


def test_strata_hold_texts_of_equal_length():
    lengths = np.array([5] * 30 + [6] * 4 + [7] * 7 + [50] * 10 + [90] * 3)
    found = strata(lengths, least=10)
    assert [sorted(set(lengths[found == s].tolist())) for s in range(3)] == [[5], [6, 7], [50, 90]]
    assert set(strata(np.array([1, 2, 3]), least=10)) == {0}


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


def corpus(
    seed: int, texts: int, positives: float, longer: float, features: int = 500, linked: int = 50
) -> tuple[Pooled, np.ndarray, np.ndarray]:
    """Max-pooled features that fire by chance on every token, the first `linked` of them 3 to 10 times as often in
    positives, whose texts are longer by the factor exp(`longer`); features, labels and lengths."""
    rng = np.random.default_rng(seed)
    labels = np.arange(texts) < round(texts * positives)
    lengths = np.exp(rng.normal(np.log(20) + longer * labels, 0.6)).clip(1, 512).astype(int)
    rates = np.exp(rng.uniform(np.log(2e-4), np.log(3e-2), features))
    lift = np.ones(features)
    lift[:linked] = rng.uniform(3, 10, linked)
    fires = rng.binomial(lengths[:, None], np.where(labels[:, None], rates * lift, rates))
    strongest = -np.log1p(-(rng.random(fires.shape) ** (1 / np.maximum(fires, 1)))) + 0.1
    return Pooled.from_dense(np.where(fires > 0, strongest, 0).astype(np.float32)), labels, lengths


@pytest.mark.parametrize("longer", [0.0, 0.7])
@pytest.mark.parametrize(
    ("texts", "positives", "power"),
    [(1000, 0.02, 0.35), (1000, 0.07, 0.6), (1000, 0.4, 0.85), (5000, 0.02, 0.7), (5000, 0.07, 0.9), (5000, 0.4, 0.97)],
)
def test_false_features_stay_under_the_promise_few_positives_and_longer_texts_or_not(texts, positives, power, longer):
    """The promise is about the mean over data sets. A test that is blind to length breaks it where texts are longer."""
    false, blind, found = [], [], []
    for seed in range(12 if texts == 1000 else 4):
        pooled, labels, lengths = corpus(seed, texts, positives, longer)
        relevant = associated(pooled, labels, lengths, fdr=0.05).relevant
        false.append(relevant[50:].sum() / max(relevant.sum(), 1))
        found.append(relevant[:50].mean())
        relevant = associated(pooled, labels, alike(labels), fdr=0.05).relevant
        blind.append(relevant[50:].sum() / max(relevant.sum(), 1))
    error = max(float(np.std(false)), 0.02) / np.sqrt(len(false))
    assert np.mean(false) < 0.05 + 3 * error
    assert np.mean(found) > power
    assert (np.mean(blind) > 0.3) == (longer > 0)


def together(seed: int, texts: int = 600, groups: int = 30, of_each: int = 15) -> tuple[Pooled, np.ndarray]:
    """Features of which 15 at a time fire together, all of them more often in longer texts; with the lengths."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(30), 0.8, texts)).clip(1, 512).astype(int)
    rates = 1 - (1 - np.exp(rng.uniform(np.log(1e-3), np.log(2e-2), groups))) ** lengths[:, None]
    common = rng.random((texts, groups)) < rates
    fires = np.repeat(common, of_each, axis=1) & (rng.random((texts, groups * of_each)) < 0.9)
    strength = np.repeat(np.log1p(lengths[:, None] * rng.random((texts, groups))), of_each, axis=1)
    return Pooled.from_dense((fires * (strength + 0.1 * rng.random(fires.shape))).astype(np.float32)), lengths


def test_labels_that_are_nothing_but_length_make_no_feature_relevant_also_where_features_fire_together():
    """Of data sets in which nothing is true, a share of `fdr` may show anything; a test blind to length shows all."""
    shown, blind = [], []
    for seed in range(30):
        pooled, lengths = together(seed)
        odds = 1.5 * (np.log(lengths) - np.log(30)) / 0.8 - 2
        labels = np.random.default_rng(seed + 100).random(len(lengths)) < 1 / (1 + np.exp(-odds))
        assert 0.1 < labels.mean() < 0.35
        shown.append(associated(pooled, labels, lengths, fdr=0.1).relevant.any())
        blind.append(associated(pooled, labels, alike(labels), fdr=0.1).relevant.mean())
    assert np.mean(shown) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 30)
    assert np.mean(blind) > 0.5


def test_of_presence_it_is_cochran_mantel_haenszel():
    """By statsmodels, without its correction for continuity, where strata are of one size and nothing is skewed."""
    rng = np.random.default_rng(1)
    stratum = np.repeat(np.arange(8), 40)
    labels = np.tile(np.arange(40) < 20, 8)
    fires = rng.random((320, 5)) < np.where(labels[:, None], [0.2, 0.4, 0.5, 0.9, 0.05], [0.1, 0.3, 0.5, 0.7, 0.05])
    got = associated(Pooled.from_dense(fires.astype(np.float32)), labels, stratum * 10 + 1, min_active=1)
    for i in range(5):
        tables = [
            [[(fires[own, i] & labels[own]).sum(), (~fires[own, i] & labels[own]).sum()],
             [(fires[own, i] & ~labels[own]).sum(), (~fires[own, i] & ~labels[own]).sum()]]
            for own in (stratum == s for s in range(8))
        ]  # fmt: skip
        test = StratifiedTable(np.moveaxis(np.array(tables), 0, -1)).test_null_odds(correction=False)
        assert 2 * min(got.p_values[i], 1 - got.p_values[i]) == pytest.approx(test.pvalue, rel=1e-9)  # pyright: ignore[reportAttributeAccessIssue]


def test_what_fires_everywhere_is_judged_by_how_strongly():
    """With Top-K off every feature is present in every text, and its maximum grows with the text."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) < 120
    lengths = np.where(labels, rng.integers(25, 60, 600), rng.integers(5, 60, 600))
    dense = np.array([rng.normal(5, 1, (n, 200)).max(axis=0) for n in lengths]).astype(np.float32)
    dense[labels, :20] += 0.6
    got = associated(Pooled.from_dense(dense), labels, lengths, fdr=0.05)
    assert got.relevant[:20].mean() > 0.9
    assert got.relevant[20:].mean() < 0.02
    assert associated(Pooled.from_dense(dense), labels, alike(labels), fdr=0.05).relevant[20:].mean() > 0.3


def test_the_test_is_one_sided():
    dense, labels = planted()
    got = associated(Pooled.from_dense(dense), ~labels, alike(labels))
    assert not got.relevant[:20].any()
    assert (got.auc[:20] < 0.4).all()


def test_rare_features_are_not_tested_and_do_not_cost_power():
    dense, labels = planted()
    rare = np.zeros((len(dense), 1), dtype=np.float32)
    rare[np.flatnonzero(labels)[:4]] = 9.0
    both = Pooled.from_dense(np.hstack([dense, np.repeat(rare, 50, axis=1)]))
    with_rare = associated(both, labels, alike(labels))
    assert not with_rare.relevant[300:].any()
    alone = associated(Pooled.from_dense(dense), labels, alike(labels))
    np.testing.assert_array_equal(with_rare.relevant[:300], alone.relevant)
    assert associated(Pooled.from_dense(rare), labels, alike(labels), min_active=4, fdr=0.05).relevant.all()


def test_what_is_too_rare_to_be_tested_is_no_comparison():
    dense, labels = planted()
    rare = np.zeros((len(dense), 3000), dtype=np.float32)
    rare[np.flatnonzero(labels)[:4]] = 9.0
    got = associated(Pooled.from_dense(np.hstack([dense, rare])), labels, alike(labels), fdr=0.2)
    tested = np.arange(3300) < 300
    assert ((dense > 0).sum(axis=0) >= 5).all()
    among = false_discovery_control(got.p_values[tested]) <= 0.2
    assert among.tolist() != (false_discovery_control(got.p_values)[tested] <= 0.2).tolist()
    np.testing.assert_array_equal(got.relevant, np.append(among, [False] * 3000))


def test_benjamini_hochberg_runs_over_the_tested_features():
    dense, labels = planted()
    for fdr in (0.001, 0.05, 0.5):
        got = associated(Pooled.from_dense(dense), labels, alike(labels), fdr=fdr, min_active=1)
        np.testing.assert_array_equal(got.relevant, false_discovery_control(got.p_values) <= fdr)


def test_one_in_a_hundred_may_be_false_where_nothing_is_said():
    dense, labels = planted(seed=3, linked=60)
    pooled = Pooled.from_dense(dense)
    told, bolder = (associated(pooled, labels, alike(labels), fdr=fdr, min_active=5).relevant for fdr in (0.01, 0.05))
    np.testing.assert_array_equal(associated(pooled, labels, alike(labels)).relevant, told)
    assert told.sum() < bolder.sum()


def test_reads_from_disk(tmp_path):
    dense, labels = planted(texts=60, features=30, linked=5)
    lengths = np.arange(60) // 12
    writer = PooledWriter(tmp_path, 30)
    writer.append(dense)
    writer.close()
    on_disk = associated(Pooled.load(tmp_path), labels, lengths)
    for a, b in zip(on_disk, associated(Pooled.from_dense(dense), labels, lengths), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("entries", [1, 7, 100])
def test_how_much_is_held_at_a_time_changes_nothing(monkeypatch, entries):
    """Bit for bit: blocks of features, each read in pieces that end in the midst of a text."""
    pooled, labels, lengths = corpus(0, 120, 0.3, 0.7, features=40, linked=5)
    whole = associated(pooled, labels, lengths, fdr=0.2)
    assert 0 < whole.relevant.sum() < 40
    monkeypatch.setattr("fac.relevance.ENTRIES", entries)
    for a, b in zip(whole, associated(pooled, labels, lengths, fdr=0.2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_features_that_never_or_always_fire_alike_say_nothing():
    dense = np.tile(np.array([0.0, 2.0], dtype=np.float32), (20, 1))
    got = associated(Pooled.from_dense(dense), np.arange(20) < 10, alike(dense))
    assert got.p_values.tolist() == [1, 1]
    assert got.auc.tolist() == [0.5, 0.5]
    assert not got.relevant.any()


def test_nothing_to_test_is_nothing_relevant():
    got = associated(
        Pooled.from_dense(np.zeros((4, 3), dtype=np.float32)), np.array([1, 0, 1, 0], bool), np.ones(4, int)
    )
    assert not got.relevant.any()


@pytest.mark.parametrize("label", [True, False])
def test_one_class_is_refused(label):
    with pytest.raises(FacError, match="both classes"):
        associated(Pooled.from_dense(np.ones((4, 3), dtype=np.float32)), np.full(4, label), np.ones(4, int))


def test_classes_of_other_lengths_are_refused():
    labels, lengths = np.arange(40) < 20, np.where(np.arange(40) < 20, 90, 5)
    with pytest.raises(FacError, match="cannot be told from what goes with length"):
        associated(Pooled.from_dense(np.ones((40, 3), dtype=np.float32)), labels, lengths)


def test_every_text_needs_a_label_and_a_length():
    four = Pooled.from_dense(np.ones((4, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="3 labels and 4 lengths for 4 texts"):
        associated(four, np.array([1, 0, 1], dtype=bool), np.ones(4, int))
    with pytest.raises(ValueError, match="4 labels and 2 lengths for 4 texts"):
        associated(four, np.array([1, 0, 1, 0], dtype=bool), np.ones(2, int))
