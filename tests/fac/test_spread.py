"""fac.spread: parts of a corpus, joined, are what one pass writes."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from support.encoders import LAYER, corpus_of, sentences, train_sae
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.corpus_features import CorpusFeatures, Tops
from fac.encoder import FeatureEncoder
from fac.features.settings import FeatureSettings
from fac.sae.ref import SaeRef
from fac.spread import Part, Spread, joined
from fac.store import Store

CHATS = [[], *(as_chat(text) for text in sentences(30, seed=3)), as_chat("very long text " * 60)]


@dataclass
class Hand:
    """Measures parts one after the other, in this process or another; can be killed after the first."""

    workers: int = 3
    other_process: bool = False
    killed: bool = False
    parts: list[tuple[int, int]] = field(default_factory=list)

    def each(self, work: Callable[[Part], None], parts: Sequence[Part]) -> None:
        for part in parts:
            if not part.folder.is_dir():
                self.parts.append((part.first, part.last))
            if self.other_process:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    pool.apply(work, (part,))
            else:
                work(part)
            if self.killed:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def model_and_sae(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelRef, SaeRef]:
    model = tiny_model(tmp_path_factory.mktemp("model"), "llama")
    return ModelRef(str(model)), SaeRef(str(train_sae(model, tmp_path_factory.mktemp("sae"))))


def measured(store: Path, model_and_sae: tuple[ModelRef, SaeRef], hand: Hand | None = None, least: int = 4) -> Path:
    spread = hand and Spread(hand.each, lambda: hand.workers, least)
    settings = FeatureSettings(max_tokens=48, top_spans=5)
    encoder = FeatureEncoder(*model_and_sae, LAYER, settings, spread=spread)
    return Store(store).get(encoder.features(corpus_of(CHATS)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_and_sae: tuple[ModelRef, SaeRef]) -> Path:
    return measured(tmp_path_factory.mktemp("whole"), model_and_sae)


def assert_same(one: Path, other: Path) -> None:
    assert one.name == other.name  # the step's key
    assert sorted(file.name for file in one.iterdir()) == sorted(file.name for file in other.iterdir())
    a, b = CorpusFeatures.load(one), CorpusFeatures.load(other)
    assert a.pooled.meta == b.pooled.meta
    for name in ("indptr", "indices"):
        np.testing.assert_array_equal(getattr(a.pooled, name)[:], getattr(b.pooled, name)[:])
    np.testing.assert_allclose(a.pooled.values[:], b.pooled.values[:], rtol=1e-4)
    np.testing.assert_array_equal(a.lengths, b.lengths)
    np.testing.assert_array_equal(a.tops.texts, b.tops.texts)
    np.testing.assert_array_equal(a.tops.tokens, b.tops.tokens)
    np.testing.assert_allclose(a.tops.values, b.tops.values, rtol=1e-4)


def test_parts_joined_are_what_one_pass_writes(whole: Path, tmp_path: Path, model_and_sae: tuple[ModelRef, SaeRef]):
    hand = Hand()
    assert_same(measured(tmp_path, model_and_sae, hand), whole)
    assert hand.parts == [(0, 10), (10, 21), (21, 32)]


@pytest.mark.slow
def test_a_part_is_measured_by_a_process_that_knows_nothing_else(
    whole: Path, tmp_path: Path, model_and_sae: tuple[ModelRef, SaeRef]
):
    assert_same(measured(tmp_path, model_and_sae, Hand(workers=2, other_process=True)), whole)


def test_parts_that_are_done_are_not_measured_again(
    whole: Path, tmp_path: Path, model_and_sae: tuple[ModelRef, SaeRef]
):
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, model_and_sae, Hand(killed=True))
    again = Hand()
    assert_same(measured(tmp_path, model_and_sae, again), whole)
    assert again.parts == [(10, 21), (21, 32)]


def test_a_run_with_other_workers_does_not_take_their_parts(
    whole: Path, tmp_path: Path, model_and_sae: tuple[ModelRef, SaeRef]
):
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, model_and_sae, Hand(killed=True))
    again = Hand(workers=2)
    assert_same(measured(tmp_path, model_and_sae, again), whole)
    assert again.parts == [(0, 16), (16, 32)]


def test_a_small_corpus_is_measured_here(whole: Path, tmp_path: Path, model_and_sae: tuple[ModelRef, SaeRef]):
    hand = Hand()
    assert_same(measured(tmp_path, model_and_sae, hand, least=17), whole)
    assert hand.parts == []


def test_of_equal_values_the_earlier_text_is_kept():
    def tops(values: list[float], texts: list[int]) -> Tops:
        tokens = np.array([[text + 100 for text in texts]], np.int32)
        return Tops(np.array([values], np.float32), np.array([texts], np.int64), tokens)

    found = joined([tops([3, 1, 0], [1, 0, -1]), tops([3, 2, 1], [0, 2, 1])], [0, 5])
    assert found.values.tolist() == [[3, 3, 2]]
    assert found.texts.tolist() == [[1, 5, 7]]
    assert found.tokens.tolist() == [[101, 100, 102]]
