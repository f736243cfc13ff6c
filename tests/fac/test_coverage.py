"""Coverage maths against brute force on dense matrices."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fac import coverage as cov
from fac.errors import FacError
from fac.pooled import Pooled, PooledWriter

N_FEATURES = 6
QUARTERS = st.integers(0, 8).map(lambda q: q / 4)  # a coarse grid, so that values often equal their cut
SOME_FEATURES = hnp.arrays(np.bool_, N_FEATURES)


def matrices(min_texts: int = 1):
    """Dense activations [n_texts, N_FEATURES], about half zeros."""
    shape = st.tuples(st.integers(min_texts, 9), st.just(N_FEATURES))
    return hnp.arrays(np.float32, shape, elements=st.one_of(st.just(0.0), QUARTERS), fill=st.nothing())


def brute_counts(dense: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.array([[sum(1 for x in dense if x[i] > cut[i]) for i in range(dense.shape[1])] for cut in cuts])


def in_chunks_of(pooled: Pooled, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every pass over any Pooled read `entries` stored values at a time."""
    original = Pooled.chunks
    monkeypatch.setattr(Pooled, "chunks", lambda self, _=0: original(self, entries))
    assert sum(len(rows.indptr) - 1 for rows in pooled.chunks()) == pooled.n_texts


# --- thresholds -------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_threshold_survives_its_text(value, relative):
    threshold = cov.Threshold(value, relative)
    assert cov.Threshold.parse(str(threshold)) == threshold


@pytest.mark.parametrize(
    ("text", "value", "relative"),
    [("0.5", 0.5, False), ("0.25max", 0.25, True), (" 1e-2 × max ", 0.01, True), (2, 2.0, False)],
)
def test_threshold_reads_config_text(text, value, relative):
    assert cov.Threshold.parse(text) == cov.Threshold(value, relative)


@pytest.mark.parametrize("text", ["", "max", "half", "0.5min", "-1", "nan", "inf", "1max", "0.5 0.6"])
def test_threshold_refuses_other_text(text):
    with pytest.raises(FacError):
        cov.Threshold.parse(text)


def test_relative_cut_is_a_share_of_each_features_own_maximum_and_strict():
    anchor_max = np.array([4.0, 0.0, 1.0], dtype=np.float32)
    cut = cov.Threshold(0.5, relative=True).cut(anchor_max)
    assert cut.tolist() == [2.0, 0.0, 0.5]
    dense = np.array([[2.0, 0.1, 0.6]], dtype=np.float32)
    assert cov.counts(Pooled.from_dense(dense), cut[None])[0].tolist() == [0, 1, 1]


def test_grid_holds_absolute_then_relative_cuts():
    grid = cov.threshold_grid([0.0, 1.5], [0.5], np.array([4.0, 1.0], dtype=np.float32))
    assert [str(t) for t in grid.thresholds] == ["0.0", "1.5", "0.5×max"]
    assert grid.cuts.tolist() == [[0, 0], [1.5, 1.5], [2, 0.5]]
    assert cov.threshold_grid([], [], np.ones(3, dtype=np.float32)).cuts.shape == (0, 3)


# --- counts -----------------------------------------------------------------------------------------------------------


@given(matrices(), st.lists(QUARTERS, max_size=3), st.sampled_from([[], [0.5], [0.25, 0.75]]))
def test_counts_equal_brute_force(dense, absolute, relative):
    pooled = Pooled.from_dense(dense)
    cuts = cov.threshold_grid(absolute, relative, pooled.maxima()).cuts
    np.testing.assert_array_equal(cov.counts(pooled, cuts), brute_counts(dense, cuts).reshape(cuts.shape))
    np.testing.assert_allclose(cov.mean_activation(pooled), dense.mean(axis=0), rtol=1e-6)


def test_many_thresholds_in_any_order_are_counted_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(1)
    dense = (rng.integers(0, 9, (70, N_FEATURES)) / 2 - 1).astype(np.float32)
    cuts = rng.permutation(np.arange(300, dtype=np.float32)[:, None] / 80 + rng.random((1, N_FEATURES), np.float32))
    cuts[5] = 0.5
    for block in (3, 1 << 16):
        monkeypatch.setattr(cov, "BLOCK", block)
        np.testing.assert_array_equal(cov.counts(Pooled.from_dense(dense), cuts), brute_counts(dense, cuts))


@given(matrices(), st.data())
def test_own_counts_equal_brute_force(dense, data):
    written_for = data.draw(hnp.arrays(np.int64, len(dense), elements=st.integers(-1, N_FEATURES - 1)))
    cuts = cov.threshold_grid([0.0, 0.5], [0.5], dense.max(axis=0)).cuts
    own = cov.own_counts(Pooled.from_dense(dense), written_for, cuts)
    for t, cut in enumerate(cuts):
        for i in range(N_FEATURES):
            assert own[t, i] == sum(1 for x, f in zip(dense, written_for, strict=True) if f == i and x[i] > cut[i])


@given(matrices(), st.lists(QUARTERS, min_size=2, max_size=5))
def test_active_set_shrinks_as_the_threshold_grows(dense, values):
    pooled = Pooled.from_dense(dense)
    counts = cov.counts(pooled, cov.threshold_grid(sorted(values), [], pooled.maxima()).cuts)
    assert (np.diff(counts, axis=0) <= 0).all()


def test_passes_do_not_depend_on_chunks_or_on_lying_on_disk(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    dense = (rng.random((300, 40)) * (rng.random((300, 40)) < 0.1)).astype(np.float32)
    dense[50:120] = 0  # texts that activate nothing
    writer = PooledWriter(tmp_path, 40)
    for part in np.array_split(dense, 7):
        writer.append(part)
    writer.close()
    written_for = rng.integers(-1, 40, 300)
    every = np.ones(40, dtype=bool)

    def passes(pooled: Pooled):
        cuts = cov.threshold_grid([0.0, 0.3], [0.5], pooled.maxima()).cuts
        boot = cov.bootstrap(pooled, cuts[1], anchor=every, missing=every, relevant=every, replicates=50)
        return cov.counts(pooled, cuts), cov.own_counts(pooled, written_for, cuts), cov.mean_activation(pooled), boot

    whole = passes(Pooled.from_dense(dense))
    in_chunks_of(Pooled.load(tmp_path), 7, monkeypatch)
    for a, b in zip(whole, passes(Pooled.load(tmp_path)), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6)


def test_other_sae_width_is_refused():
    pooled = Pooled.from_dense(np.ones((2, 3), dtype=np.float32))
    for measure in (
        lambda: cov.counts(pooled, np.zeros((1, 4), dtype=np.float32)),
        lambda: cov.own_counts(pooled, np.zeros(2, dtype=np.int64), np.zeros((1, 2), dtype=np.float32)),
    ):
        with pytest.raises(FacError, match="same SAE"):
            measure()


def test_every_text_needs_the_feature_it_was_written_for():
    pooled = Pooled.from_dense(np.ones((2, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="1 entries for 2 texts"):
        cov.own_counts(pooled, np.zeros(1, dtype=np.int64), np.zeros((1, 3), dtype=np.float32))


def test_empty_corpus_activates_nothing_and_has_no_mean():
    empty = Pooled.from_dense(np.zeros((0, 3), dtype=np.float32))
    assert cov.counts(empty, np.zeros((2, 3), dtype=np.float32)).tolist() == [[0] * 3] * 2
    with pytest.raises(FacError, match="no text"):
        cov.mean_activation(empty)


# --- FAC --------------------------------------------------------------------------------------------------------------


@given(matrices(), matrices(), matrices(), SOME_FEATURES, QUARTERS)
def test_missing_and_fac_equal_brute_force(anchor, seed, generated, relevant, delta):
    cuts = np.full((1, N_FEATURES), delta, dtype=np.float32)
    a, s, g = (cov.counts(Pooled.from_dense(d), cuts)[0] for d in (anchor, seed, generated))
    mean = cov.mean_activation(Pooled.from_dense(anchor))

    def fires(dense: np.ndarray) -> set[int]:
        return {i for i in range(N_FEATURES) if relevant[i] and any(x[i] > delta for x in dense)}

    in_anchor, gap, covered = fires(anchor), fires(anchor) - fires(seed), fires(generated)
    missing = cov.missing_features(a, s, relevant)
    assert set(np.flatnonzero(cov.active_features(a, relevant))) == in_anchor
    assert set(np.flatnonzero(missing)) == gap
    weights = {
        "binary": lambda _: 1,
        "frequency": lambda i: np.mean([x[i] > delta for x in anchor]),
        "magnitude": lambda i: np.mean([x[i] for x in anchor]),
    }

    def check(fac: cov.Fac, part: set[int], whole: set[int]) -> None:
        assert (fac.covered, fac.total) == (len(part), len(whole))
        for name, weight in weights.items():
            want = sum(weight(i) for i in part) / sum(weight(i) for i in whole)
            assert getattr(fac, name) == pytest.approx(want, rel=1e-5)

    if in_anchor:
        check(cov.fac_ratio(a, g, relevant, mean), covered, in_anchor)
    else:
        with pytest.raises(FacError, match="lower the threshold"):
            cov.fac_ratio(a, g, relevant, mean)
    if gap:
        check(cov.covered_missing(missing, g, a, mean), gap & covered, gap)
    else:
        with pytest.raises(FacError, match="No feature is missing"):
            cov.covered_missing(missing, g, a, mean)


def test_the_two_readings_differ_and_the_ratio_may_exceed_one():
    anchor, seed, generated = (np.array(c) for c in ([5, 3, 1, 0], [2, 0, 0, 0], [1, 1, 0, 4]))
    relevant, mean = np.ones(4, dtype=bool), np.array([2.0, 1.0, 0.5, 0.0])
    missing = cov.missing_features(anchor, seed, relevant)
    assert cov.fac_ratio(anchor, generated, relevant, mean)[:3] == (3, 3, 1.0)
    assert cov.covered_missing(missing, generated, anchor, mean) == (1, 2, 0.5, 0.75, pytest.approx(2 / 3))
    assert cov.fac_ratio(anchor, np.ones(4, dtype=np.int64), relevant, mean).binary == pytest.approx(4 / 3)


def test_paper_counts_give_paper_percentages():
    """Tables 10 and 6: 175 of 214 missing toxicity features are 81.78 %."""
    missing, generated = np.ones(214, dtype=bool), np.arange(214) < 175
    fac = cov.covered_missing(missing, generated.astype(np.int64), np.ones(214, dtype=np.int64), np.ones(214))
    assert round(100 * fac.binary, 2) == 81.78


@given(matrices(), matrices(), SOME_FEATURES)
def test_own_samples_cover_no_more_than_any_sample(anchor, generated, missing):
    cuts = cov.threshold_grid([0.0, 0.5, 1.0], [0.5], anchor.max(axis=0)).cuts
    pooled = Pooled.from_dense(generated)
    own = cov.own_counts(pooled, np.arange(len(generated)) % N_FEATURES, cuts)
    assert ((own > 0) & missing <= (cov.counts(pooled, cuts) > 0)).all()
    assert (own <= cov.counts(pooled, cuts)).all()


@given(SOME_FEATURES, SOME_FEATURES)
def test_overlap_equals_set_arithmetic(first, second):
    a, b = set(np.flatnonzero(first)), set(np.flatnonzero(second))
    got = cov.overlap(first, second)
    assert got[:3] == (len(a & b), len(a - b), len(b - a))
    assert got.jaccard == (len(a & b) / len(a | b) if a | b else 1.0)


# --- bootstrap --------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(matrices(), SOME_FEATURES, SOME_FEATURES, st.integers(1, 19), st.integers(0, 99), QUARTERS)
def test_bootstrap_equals_a_direct_one_with_the_same_draws(dense, relevant, missing, replicates, seed, delta):
    missing &= relevant
    assume(missing.any())
    pooled, cut = Pooled.from_dense(dense), np.full(N_FEATURES, delta, dtype=np.float32)
    anchor = relevant.copy()
    got = cov.bootstrap(
        pooled, cut, anchor=anchor, missing=missing, relevant=relevant, replicates=replicates, level=0.9, seed=seed
    )
    bits = np.unpackbits(cov._presence(seed, 0, len(dense), -(-replicates // 8)), axis=1)[:, :replicates]
    for interval, among in ((got.ratio, relevant), (got.covered_missing, missing)):
        point = (dense > delta).any(axis=0)[among].sum() / among.sum()
        drawn = np.array([(dense[b == 1] > delta).any(axis=0)[among].sum() / among.sum() for b in bits.T])
        centred = drawn + point - drawn.mean()
        assert interval.point == pytest.approx(point)
        assert interval.bias == pytest.approx(drawn.mean() - point)
        want = np.clip(np.quantile(centred, [0.05, 0.95]), 0, 1)
        np.testing.assert_allclose((interval.low, interval.high), want, atol=1e-12)


def test_draws_are_poisson_presence_and_belong_to_the_text():
    bits = cov._presence(seed=3, first=0, texts=5000, width=25)
    share = np.unpackbits(bits).mean()
    assert share == pytest.approx(1 - np.exp(-1), abs=4 * np.sqrt(0.233 / bits.size / 8))
    np.testing.assert_array_equal(cov._presence(3, 4321, 10, 25), bits[4321:4331])
    np.testing.assert_array_equal(cov._presence(3, 0, 5000, 25, block=77), bits)
    assert (cov._presence(4, 0, 5000, 25) != bits).any()


def test_interval_holds_the_expected_coverage_about_as_often_as_it_says():
    """Texts drawn from a world where each feature fires with a known probability; most features are rare."""
    rng = np.random.default_rng(1)
    rates = np.concatenate([np.full(60, 0.3), np.full(60, 0.02), np.full(80, 0.005)])
    texts, every, cut = 100, np.ones(200, dtype=bool), np.zeros(200, dtype=np.float32)
    truth = (1 - (1 - rates) ** texts).mean()
    hits = 0
    for world in range(100):
        pooled = Pooled.from_dense((rng.random((texts, 200)) < rates).astype(np.float32))
        got = cov.bootstrap(pooled, cut, anchor=every, missing=every, relevant=every, seed=world).covered_missing
        assert got.low <= got.point <= got.high
        assert got.bias < 0
        hits += got.low <= truth <= got.high
    assert 85 <= hits <= 100


def test_features_that_many_texts_cover_have_no_spread():
    pooled = Pooled.from_dense(np.ones((200, 3), dtype=np.float32))
    every = np.ones(3, dtype=bool)
    got = cov.bootstrap(pooled, np.zeros(3, dtype=np.float32), anchor=every, missing=every, relevant=every)
    assert got.ratio == got.covered_missing == (1.0, 1.0, 1.0, 0.0)


def test_bootstrap_needs_something_to_cover():
    pooled, none = Pooled.from_dense(np.ones((2, 3), dtype=np.float32)), np.zeros(3, dtype=bool)
    with pytest.raises(FacError, match="another threshold"):
        cov.bootstrap(pooled, np.zeros(3, dtype=np.float32), anchor=~none, missing=none, relevant=~none)


# --- rarefaction ------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(matrices())
def test_rarefaction_is_the_mean_over_all_subsets(dense):
    n = len(dense)
    counts = cov.counts(Pooled.from_dense(dense), np.zeros((1, N_FEATURES), dtype=np.float32))[0]
    want = [np.mean([(dense[list(s)] > 0).any(axis=0).sum() for s in combinations(range(n), m)]) for m in range(n + 1)]
    np.testing.assert_allclose(cov.rarefaction(counts, n, range(n + 1)), want, atol=1e-9)


def test_rarefaction_of_a_large_corpus():
    """One feature in c of n texts: seen among m with probability 1 − (1 − c/n)^m, nearly, when m is much below n."""
    n, m = 2_000_000, 100
    got = cov.rarefaction(np.array([20_000]), n, [m])[0]
    assert got == pytest.approx(1 - 0.99**m, rel=1e-3)
    assert cov.rarefaction(np.array([1, 1, n, 0]), n, [0, n]).tolist() == pytest.approx([0, 3])


def test_rarefaction_cannot_draw_more_texts_than_there_are():
    with pytest.raises(ValueError, match="between 0 and"):
        cov.rarefaction(np.array([1, 2]), 5, [6])
