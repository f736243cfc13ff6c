"""fac.features.batches: every content token goes through the model once, in windows and batches of any size."""

import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.encoders import sentences
from support.models import tiny_model

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat, encode
from fac.features import batches
from fac.features.batches import ahead, token_batches, windows
from fac.features.settings import FeatureSettings

CHATS = [[], *(as_chat(text) for text in sentences(30, seed=1)), as_chat("  "), as_chat("long text " * 30)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone(ModelRef(str(tiny_model(tmp_path_factory.mktemp("model"), "llama"))), 1)


@pytest.mark.parametrize(("together", "tokens"), [(256, 1 << 19), (4, 100), (1, 1)])
@pytest.mark.parametrize(("budget", "most"), [(1, None), (150, None), (150, 3), (1 << 20, 1 << 20)])
def test_every_content_token_is_in_one_batch(backbone, monkeypatch, together, tokens, budget, most):
    monkeypatch.setattr(batches, "TOGETHER", together)
    monkeypatch.setattr(batches, "WINDOW_TOKENS", tokens)
    found: dict[int, tuple[list[int], list[int]]] = {}
    first = 0
    for window in windows(backbone, iter(CHATS), FeatureSettings(max_tokens=40)):
        assert window.first == first
        first += len(window.lengths())
        for batch in window.batches(budget, most):
            sizes = [len(ids) for ids in batch.ids]
            assert len(sizes) == 1 or len(sizes) * max(sizes) <= budget
            assert most is None or len(sizes) <= most
            for row, (text, ids) in enumerate(zip(batch.texts.tolist(), batch.ids, strict=True)):
                assert text not in found
                found[text] = ids.tolist(), batch.position[batch.row == row].tolist()
    assert first == len(CHATS)
    for text, chat in enumerate(CHATS):
        ids, content = encode(backbone.tokenizer, chat, max_tokens=40) if chat else ([], [])
        if not any(content):
            assert text not in found
            continue
        places = np.flatnonzero(content).tolist()
        assert found[text] == (list(ids)[: places[-1] + 1], places)  # what no content token sees is left out


def test_the_next_window_is_made_while_one_is_in_use():
    made, used = threading.Event(), []

    def source():
        yield 1
        made.set()
        yield 2

    for item in ahead(source()):
        if item == 1:
            assert made.wait(10)
        used.append(item)
    assert used == [1, 2]


def test_what_goes_wrong_in_the_thread_is_raised():
    def source():
        yield 1
        raise KeyError("two")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=30), budget=st.integers(1, 200))
def test_batches_keep_to_the_budget_and_to_the_order(lengths, budget):
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = list(token_batches(order, lengths, budget))
    assert [i for batch in batches for i in batch] == order
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= budget for b in batches)
    for one, two in pairwise(batches):  # no batch could have taken one more
        assert (len(one) + 1) * lengths[two[0]] > budget
