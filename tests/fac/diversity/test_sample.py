"""fac.diversity.sample: sets of different sizes and lengths, made comparable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.encoders import corpus_of, sentences
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.diversity import diversity
from fac.diversity.anchor import Anchor
from fac.diversity.measured import embedded, load_embeddings
from fac.diversity.metrics.text import distinct, words
from fac.diversity.sample import Sampled, load_sampled, sampled, sampled_diversity
from fac.encoder import FeatureEncoder
from fac.features.means import content_means
from fac.features.settings import FeatureSettings
from fac.sae.ref import SaeRef
from fac.store import Store

OF_WORDS = {"distinct_1", "distinct_2", "unigram_entropy", "bigram_entropy", "compression_ratio", "pos_distinct_2"}


def vectors(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 6))


def test_every_draw_has_so_many_texts_and_so_many_words():
    texts, held, anchor = sentences(40, 1), vectors(40), Anchor(vectors(50, 9))
    found = sampled(texts, held, anchor, 10, 60, 3)
    assert {len(values) for values in found.values()} == {3}
    for draw in range(3):
        order = np.random.default_rng(draw).permutation(40)
        drawn = [texts[i] for i in order[:10]]
        alone = diversity(drawn, held[order[:10]], anchor)
        for name in alone.keys() - OF_WORDS:
            assert found[name][draw] == alone[name]
        sixty = " ".join(texts[i] for i in order).split()[:60]
        assert len(set(sixty)) / 60 == found["distinct_1"][draw]  # each of these texts is its words
    assert len(set(found["bigram_entropy"])) == 3  # the draws differ


def test_a_set_as_large_as_a_draw_has_no_spread_of_texts_and_a_smaller_one_no_numbers():
    texts, held, anchor = sentences(12, 2), vectors(12), Anchor(vectors(50, 9))
    whole = sampled(texts, held, anchor, 12, 30, 4)
    assert np.ptp(whole["mean_cosine_distance"]) < 1e-12
    assert sampled(texts, held, anchor, 13, 30, 4) == {}
    assert sampled(texts[:1], held[:1], anchor, 1, 1, 4) == {}


def test_a_set_of_too_few_words_has_no_shares_of_words():
    texts, held, anchor = sentences(12, 2), vectors(12), Anchor(vectors(50, 9))
    total = sum(len(words(text)) for text in texts)
    assert sampled(texts, held, anchor, 12, total, 2).keys() >= OF_WORDS
    few = sampled(texts, held, anchor, 12, total + 1, 2)
    assert not few.keys() & OF_WORDS
    assert {"self_bleu_4", "vendi", "mean_length"} <= few.keys()


def test_a_longer_or_larger_set_of_the_same_kind_is_no_more_diverse():
    """Raw Distinct-1 of twice as many texts, or of texts twice as long, is much smaller."""
    rng = np.random.default_rng(3)

    def kind(count, length):
        """Texts over one vocabulary, whose words are as frequent as words are."""
        return [" ".join(f"w{int(i)}" for i in rng.zipf(1.3, length) % 5000) for _ in range(count)]

    sets = {"few": kind(100, 12), "many": kind(400, 12), "long": kind(100, 48)}
    anchor = Anchor(vectors(50))
    found = {name: sampled(texts, vectors(len(texts)), anchor, 20, 600, 6) for name, texts in sets.items()}
    equal = {name: np.mean(of["distinct_1"]) for name, of in found.items()}
    raw = {name: distinct(texts, 1) for name, texts in sets.items()}
    assert raw["few"] > 1.3 * max(raw["many"], raw["long"])
    assert max(equal.values()) < 1.1 * min(equal.values())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FeatureEncoder:
    """No SAE is read for embeddings, so none is there: its layer is said."""
    model = ModelRef(str(tiny_model(tmp_path_factory.mktemp("models") / "model")))
    made = FeatureEncoder(model, SaeRef(path="/nowhere"), 2, FeatureSettings(max_tokens=64))
    made.__dict__["layer"] = 2
    return made


def test_the_step_measures_against_the_anchors_mean_and_its_texts_length(encoder: FeatureEncoder, tmp_path: Path):
    texts, anchor = sentences(20, 4), sentences(30, 5)
    one, other = (corpus_of([as_chat(text) for text in held]) for held in (texts, anchor))
    step = sampled_diversity(encoder, one, other, 8, 3)
    found = load_sampled(Store(tmp_path).get(step))
    of_words = round(8 * np.mean([len(text.split()) for text in anchor]))
    seen = content_means(encoder.backbone, [as_chat(text) for text in anchor], encoder.settings)
    own = content_means(encoder.backbone, [as_chat(text) for text in texts], encoder.settings)
    draws = sampled(texts, own - seen.mean(axis=0), Anchor(seen - seen.mean(axis=0)), 8, of_words, 3)
    assert replace(found, draws={}) == Sampled({}, 20, sum(len(t.split()) for t in texts), 8, of_words)
    assert found.draws.keys() == draws.keys()
    assert all(found.draws[name] == pytest.approx(draws[name], abs=1e-6) for name in draws)
    assert step.key != sampled_diversity(encoder, one, other, 8, 4).key != sampled_diversity(encoder, one, other, 9, 4)


def test_some_of_a_large_corpus_are_embedded_and_it_is_known_which(encoder: FeatureEncoder, tmp_path: Path):
    corpus, store = corpus_of([as_chat(text) for text in sentences(9, 6)]), Store(tmp_path)
    some, rows = load_embeddings(store.get(embedded(encoder, corpus, 4)))
    everything, all_rows = load_embeddings(store.get(embedded(encoder, corpus)))
    assert all_rows.tolist() == list(range(9))
    assert len(set(rows.tolist())) == 4
    assert some == pytest.approx(everything[rows], abs=1e-5)
