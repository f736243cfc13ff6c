"""fac.gradients: the sketch of a gradient against the gradient itself, and G-Vendi against its definition."""

import numpy as np
import pytest
import torch
from support.encoders import sentences
from support.models import tiny_model

from fac.backbone import ModelRef, load_causal_lm
from fac.chat import as_chat, encode, encode_lesson
from fac.data.pairs import Pair
from fac.data.schemas import PAIR, QUERY, Query
from fac.gradients import GradientProxy, g_vendi

TEXTS = sentences(7, seed=3)


@pytest.fixture(scope="module")
def ref(tmp_path_factory):
    return ModelRef(str(tiny_model(tmp_path_factory.mktemp("proxy") / "model")))


@pytest.fixture(scope="module")
def proxy(ref):
    return GradientProxy(ref)


def whole_gradient(loaded, chat):
    """The whole gradient of the loss of what a chat says, or of its replies, by transformers' own loss."""
    model, tokenizer = loaded
    model.zero_grad()
    replies = any(turn["role"] == "assistant" for turn in chat)
    ids, counted = (encode_lesson if replies else encode)(tokenizer, chat)
    labels = torch.tensor([[i if c else -100 for i, c in zip(ids, counted, strict=True)]])
    model(input_ids=torch.tensor([ids]), labels=labels).loss.backward()
    return np.concatenate([w.grad.flatten().double().numpy() for w in model.parameters()])


def cosines(vectors):
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows @ rows.T


def test_cosines_of_sketches_are_those_of_whole_gradients(ref, proxy):
    model = load_causal_lm(ref)
    whole = np.array([whole_gradient(model, as_chat(text)) for text in TEXTS])
    found = cosines(proxy(QUERY, [Query(text) for text in TEXTS]).astype(np.float64))
    error = np.abs(found - cosines(whole))[np.triu_indices(7, 1)]
    assert error.max() < 0.12  # 1 / sqrt(1024) = .03 is one standard deviation, as for a dense random projection
    assert np.abs(found - cosines(whole[::-1]))[np.triu_indices(7, 1)].max() > 0.12  # which is no matter of course


def test_the_sketch_s_length_is_the_gradient_s(ref, proxy):
    whole = whole_gradient(load_causal_lm(ref), as_chat(TEXTS[0]))
    assert np.linalg.norm(proxy.of_chat(as_chat(TEXTS[0]))) == pytest.approx(np.linalg.norm(whole), rel=0.15)


def test_a_pair_is_the_chosen_reply_s_gradient_less_the_rejected_one_s(proxy):
    pair = Pair(as_chat(TEXTS[0]), TEXTS[1], TEXTS[2])
    apart = proxy.of_chat(pair.chosen_chat) - proxy.of_chat(pair.rejected_chat)
    np.testing.assert_allclose(proxy(PAIR, [pair])[0], apart / np.linalg.norm(apart), atol=1e-5)
    turned = proxy(PAIR, [Pair(pair.prompt, pair.rejected, pair.chosen)])[0]
    np.testing.assert_allclose(turned, -proxy(PAIR, [pair])[0], atol=1e-5)


def test_gradients_are_unit_vectors_the_same_every_time_and_hang_on_the_seed(ref, proxy):
    first = proxy(QUERY, [Query(TEXTS[0]), Query(TEXTS[1])])
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.array_equal(GradientProxy(ref)(QUERY, [Query(TEXTS[0]), Query(TEXTS[1])]), first)
    assert not np.allclose(GradientProxy(ref, seed=1)(QUERY, [Query(TEXTS[0])]), first[:1])
    assert GradientProxy(ref, seed=1).identity() != proxy.identity()


def test_g_vendi_is_the_effective_number_of_directions():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for part in (rows, rows[:4]):
        values = np.linalg.eigvalsh(part @ part.T / len(part))
        values = values[values > 1e-12]
        assert g_vendi(part) == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-6)
    assert g_vendi(np.eye(6)) == pytest.approx(6)
    assert g_vendi(np.ones((6, 1))) == pytest.approx(1)
