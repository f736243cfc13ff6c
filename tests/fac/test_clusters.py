"""fac.clusters: the clusters of App. G, what the seed misses of them, and how far they stand for features."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.encoders import sentences, train_sae
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.clusters import (
    Clusters,
    ClusterScorer,
    cluster_of_features,
    clusters_step,
    compare,
    dense_coverage,
    fit,
    load_dense_coverage,
    representatives,
)
from fac.corpus_features import CorpusFeatures
from fac.data.corpus import Corpus, write_examples
from fac.data.example_set import load_examples, save_examples
from fac.data.examples import Example
from fac.data.held_out import HeldOut
from fac.data.schemas import QUERY, Query
from fac.encoder import FeatureEncoder
from fac.features.settings import FeatureSettings
from fac.gap import InterpretSettings, MissingFeatures, Thresholds, mine
from fac.interpret import ROLES, load_interpretations
from fac.llm.base import Completion
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.sae.ref import SaeRef
from fac.store import Step, Store
from fac.synthesis.covered import coverage, load_coverage
from fac.synthesis.generate import Generated, synthesis
from fac.synthesis.methods import METHODS
from fac.synthesis.needs import Extras
from fac.synthesis.settings import Settings
from fac.vectors import unit_rows

TEXTS = {"anchor": sentences(80, seed=5), "seed": sentences(6, seed=6)}


def clumps(count, size, seed=0):
    """Unit vectors in clumps of `size` around orthogonal directions, which share one large direction."""
    rng = np.random.default_rng(seed)
    rows = (
        np.repeat(np.eye(count, 12), size, axis=0) + 0.05 * rng.normal(size=(count * size, 12)) + 3 * np.eye(1, 12, 11)
    )
    return unit_rows(rows).astype(np.float32)


def test_texts_belong_to_the_direction_that_is_nearest_once_what_all_share_is_taken_away():
    vectors = clumps(4, 12)
    found = fit(vectors, vectors[:13], 4, 0)
    assert [len(set(found.labels[i : i + 12])) for i in range(0, 48, 12)] == [1, 1, 1, 1]
    assert len(set(found.labels)) == 4
    assert found.seed_counts[found.labels[0]] == 12
    assert found.seed_counts[found.labels[12]] == 1
    assert found.seed_counts.sum() == 13
    cosines = unit_rows(vectors - vectors.mean(axis=0)) @ found.directions.T
    np.testing.assert_allclose(found.cosines(vectors), cosines, atol=1e-5)
    assert found.labels.tolist() == cosines.argmax(axis=1).tolist()
    assert fit(vectors, vectors[:0], 40, 0).count == 4  # ten texts for each at least
    assert fit(vectors, vectors[:0], 0, 0).count == 1


def test_missing_is_what_is_relevant_and_holds_anchor_texts_and_no_seed_text(tmp_path):
    labels, seed = np.array([0, 0, 1, 2, 3]), np.array([1, 0, 0, 0, 0])
    found = Clusters(
        np.zeros(2, np.float32), np.zeros((5, 2), np.float32), labels, seed, np.array([1, 1, 0, 1, 1], bool)
    )
    assert np.flatnonzero(found.missing).tolist() == [1, 3]  # 0: known, 2: not relevant, 4: empty
    found.save(tmp_path)
    assert np.flatnonzero(Clusters.load(tmp_path).missing).tolist() == [1, 3]


def test_a_cluster_is_shown_by_the_texts_nearest_its_centre():
    vectors = clumps(3, 10, seed=3)
    found = fit(vectors, vectors[:0], 3, 0)
    shown = representatives(found, vectors, 4)
    assert list(shown) == [0, 1, 2]
    for cluster, rows in shown.items():
        own = np.flatnonzero(found.labels == cluster)
        cosines = found.cosines(vectors)[:, cluster]
        assert rows == own[np.argsort(-cosines[own], kind="stable")][:4].tolist()


def test_the_cluster_of_a_feature_holds_most_of_the_anchor_texts_that_activate_it():
    rng = np.random.default_rng(1)
    matrix = rng.random((40, 9)) * (rng.random((40, 9)) < 0.5)
    cuts, labels = np.full(9, 0.3, np.float32), rng.integers(0, 5, 40)
    found = Clusters(np.zeros(2), np.zeros((5, 2)), labels, np.zeros(5, int), np.ones(5, bool))  # type: ignore[arg-type]
    features = np.array([7, 2, 4])
    expected = [np.bincount(labels[matrix[:, f] > 0.3], minlength=5).argmax() for f in features]
    assert cluster_of_features(Pooled.from_dense(matrix), features, cuts, found).tolist() == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_error_of_the_surrogate_is_never_below_the_loss_by_merging(pairs):
    """Prop. G.1; with both as App. G defines them."""
    dense, sae = (np.array(part) for part in zip(*pairs, strict=True))
    found = compare(dense, sae)
    assert found.merge_loss == pytest.approx(sum(d and not s for d, s in pairs) / len(pairs))
    assert found.surrogate_error == pytest.approx(sum(abs(int(d) - int(s)) for d, s in pairs) / len(pairs))
    assert found.surrogate_error >= found.merge_loss >= 0
    assert (found.features, found.dense, found.sae) == (len(pairs), dense.mean(), sae.mean())


class Obliging:
    """Finds every cluster and feature relevant, and writes what a request's seed draws of the anchor's texts."""

    engine, identity, batch = "obliging", "obliging", 64

    def __init__(self):
        self.asked = []

    def chat(self, requests, sampling):
        self.asked += [request.messages[0]["content"] for request in requests]
        return [Completion(self.reply(r), 1, 1, True) for r in requests]

    def reply(self, request):
        role = request.messages[0]["content"].partition("|")[0]
        told = {"explain": "some texts", "judge": "[[Yes]]"}
        return told.get(role) or TEXTS["anchor"][request.seed % 80] + " indeed"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(mining, its step of clusters, the store, the annotator, prompts)."""
    root = tmp_path_factory.mktemp("clusters")
    train_sae(tiny_model(root / "model"), root / "sae")
    prompts = root / "prompts"
    prompts.mkdir()
    for role in ("explain", "verify", "judge", "write", "contrast"):
        shown = "{{ spans | join(';') }}" if role == "explain" else "{{ good.text }}" if role == "contrast" else ""
        (prompts / f"{role}.jinja").write_text(f"{role}|{shown}")
    encoder = FeatureEncoder(
        ModelRef(str(root / "model")), SaeRef(str(root / "sae")), None, FeatureSettings(max_tokens=48)
    )
    corpora = {name: Step("texts", partial(_corpus, texts), {"of": name}) for name, texts in TEXTS.items()}
    annotator, how = Obliging(), InterpretSettings(spans=3)
    annotators: Any = dict.fromkeys(ROLES, annotator)
    thresholds = Thresholds(absolute=(0.0,), relative=(), default="0.0")
    mining = mine(encoder, corpora["anchor"], corpora["seed"], annotators, Prompts(prompts), how, thresholds)
    step = clusters_step(mining, annotators, Prompts(prompts), how, 1.0, 0)
    return mining, step, Store(root / "store"), annotator, Prompts(prompts)


def _corpus(texts, folder: Path):
    write_examples((Example(as_chat(text), None, str(i)) for i, text in enumerate(texts, 1)), folder)


def test_clusters_are_explained_by_whole_texts_and_judged_as_features_are(world):
    mining, step, store, annotator, _ = world
    folder = store.get(step)
    found, told = Clusters.load(folder), load_interpretations(folder)
    assert found.count == 8  # a tenth of the anchor's texts; there are more features
    assert set(told) == set(found.labels.tolist())
    assert all(spans in {tuple(said.spans) for said in told.values()} for spans in [told[found.labels[0]].spans])
    assert all(set(said.spans) <= set(TEXTS["anchor"]) for said in told.values())
    assert any(f"explain|{';'.join(told[found.labels[0]].spans)}" == asked for asked in annotator.asked)
    vectors = mining.encoder.embed([text.messages for text in Corpus.load(store.get(mining.seed))])
    assert found.seed_counts.tolist() == np.bincount(found.nearest(vectors), minlength=8).tolist()
    assert found.missing.sum() == np.sum(found.seed_counts == 0) > 0


def test_a_score_tells_the_nearest_cluster_and_ranks_by_cosine(world, tmp_path):
    mining, step, store, _, _ = world
    found = Clusters.load(store.get(step))
    chats = [as_chat(text) for text in TEXTS["seed"]]
    cosines = found.cosines(mining.encoder.embed(chats))
    scorer = ClusterScorer(mining.encoder, found)
    watched = scorer.extract([*chats, []], tmp_path, watch=[0, 1, 2, 3, 4, 5, 6])
    for row in range(6):
        nearest = cosines[row].argmax() == row
        assert (watched.values[row] > 1) == nearest
        assert watched.values[row] - nearest == pytest.approx((1 + cosines[row, row]) / 2, abs=1e-5)
    assert watched.values[6] == 0
    assert Pooled.load(tmp_path).n_texts == 7
    assert scorer.span(chats[0], 0, 3).text == TEXTS["seed"][0]


def save_queries(folder):
    save_examples(QUERY, [Query("a query")], folder)


def test_dense_clusters_write_for_missing_clusters_what_no_other_is_nearer_to(world):
    """As FAC does for features: n and m requests for each, by the same prompts; nothing of it is told to be about
    features, so that no cluster's number is taken for a feature's."""
    mining, step, store, _, prompts = world
    writer, known = Obliging(), Step("queries", save_queries)
    draw = Step("draw", lambda folder: HeldOut().save(folder))
    settings = Settings(n=2, m=3, top_up=0, max_new_tokens=8)
    added = synthesis(
        METHODS["dense_clusters"], mining, writer, prompts, QUERY, settings, 30, known, known, draw,
        Extras(clusters=step),
    )  # fmt: skip
    folder = store.get(added)
    found, made = Clusters.load(store.get(step)), Generated.load(QUERY, folder)
    lacking = np.flatnonzero(found.missing).tolist()
    assert sorted({sample.cluster or 0 for sample in made.samples}) == lacking
    assert len(writer.asked) == (2 + 3) * len(lacking)
    assert {(s.feature, s.activation, s.relative_activation) for s in made.samples} == {(None, None, None)}
    assert made.first_round is None
    nearest = {s.text: found.nearest(mining.encoder.embed([as_chat(s.text)]))[0] for s in made.samples}
    assert all(nearest[s.text] == s.cluster for s in made.chosen)
    reasons = {s.rejected_because for s in made.samples if nearest[s.text] != s.cluster}
    assert reasons == {"does not activate"}
    assert made.counts.kept == made.counts.added == len(made.chosen) > 0
    covered = load_coverage(store.get(coverage(mining, QUERY, added)))["chosen"]
    assert "any" in covered
    assert "own" not in covered

    measured = load_dense_coverage(store.get(dense_coverage(step, mining, added)))
    mined = MissingFeatures.load(store.get(mining.wanted))
    anchor = CorpusFeatures.load(store.get(mining.anchor_features)).pooled
    texts = [query.text for query in load_examples(QUERY, [folder])]
    hit = set(found.nearest(mining.encoder.embed([as_chat(text) for text in texts])).tolist())
    active = np.flatnonzero(mined.active())
    of = cluster_of_features(anchor, active, mined.thresholds, found)
    assert measured.dense == pytest.approx(np.mean([cluster in hit for cluster in of]))
    pooled = CorpusFeatures.load(store.get(mining.encoder.features(added))).pooled
    assert measured.sae == pytest.approx(np.mean([pooled.maxima()[f] > mined.thresholds[f] for f in active]))
    assert measured.surrogate_error >= measured.merge_loss
