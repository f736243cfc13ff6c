"""Steered writing: what is added where, by which engine, and that nothing else of one step changes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.models import tiny_model
from support.writing import BreakdownError, Echo
from transformers import AutoModelForCausalLM, AutoTokenizer

from fac.chat import as_chat, encode
from fac.errors import FacError
from fac.llm.base import Request, Sampling, Shift
from fac.llm.openai import OpenAIChat, OpenAISettings
from fac.llm.settings import VllmSettings
from fac.llm.transformers import TransformersChat
from fac.llm.vllm import VllmChat
from fac.model_ref import ModelRef
from fac.synthesis.method import Directions
from fac.synthesis.methods import METHODS
from fac.synthesis.methods.fac import fac_one_step
from fac.synthesis.methods.steered import steered

LAYER = 2
SAMPLING = Sampling(temperature=0, max_new_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("steered") / "model")


def a_shift(seed, size=4.0, layer=LAYER):
    return Shift(str(seed), layer, (size * np.random.default_rng(seed).normal(size=64)).astype(np.float32))


def by_hand(folder, text, shift):
    """Greedy ids, token by token without a cache: the direction is added from the prompt's last token on."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = encode(tokenizer, as_chat(text), add_generation_prompt=True).ids
    prompt = len(ids)

    def add(_module, _args, out):
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[:, prompt - 1 :] += torch.as_tensor(shift.direction)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    model.model.layers[shift.layer - 1].register_forward_hook(add)
    while len(ids) < prompt + SAMPLING.max_new_tokens:
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tokenizer.decode(ids[prompt:], skip_special_tokens=True).strip()


def test_a_direction_is_added_where_each_token_of_the_reply_is_predicted(folder):
    """Each row has its own, and one without is written as ever, whatever stands beside it in the batch."""
    chat = TransformersChat(ModelRef(str(folder)))
    texts = ["hi", "How do I bake bread at home?", "Tell me why the sky is blue and the grass is green"]
    shifts = [a_shift(1), None, a_shift(2)]
    requests = [Request(str(n), as_chat(t), n, shift=s) for n, (t, s) in enumerate(zip(texts, shifts, strict=True))]
    replies = chat.chat(requests, SAMPLING)
    plain = chat.chat([replace(request, shift=None) for request in requests], SAMPLING)
    assert replies[1] == plain[1]
    for row in (0, 2):
        assert replies[row] != plain[row]
        if replies[row].finished:  # the hand goes on behind the end
            continue
        assert replies[row].text == by_hand(folder, texts[row], shifts[row])
    assert any(not replies[row].finished for row in (0, 2))
    assert chat.chat(requests, SAMPLING) == replies
    assert chat.chat([replace(r, shift=None) for r in requests], SAMPLING) == plain  # nothing of it stays


def test_a_direction_that_does_not_fit_is_refused(folder):
    chat = TransformersChat(ModelRef(str(folder)))
    request = Request("0", as_chat("hi"), 0, shift=a_shift(1, layer=9))
    with pytest.raises(FacError, match="has 4 layers of width 64: write with the model whose features are read"):
        chat.chat([request], SAMPLING)


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_an_engine_that_cannot_reach_into_a_model_refuses_and_names_one_that_can(engine, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    engines: Any = {
        "vllm": lambda: VllmChat(ModelRef(str(folder)), VllmSettings()),
        "openai": lambda: OpenAIChat(OpenAISettings(model="m"), tmp_path / "replies", print),
    }
    with pytest.raises(FacError, match=f"The {engine} engine cannot add directions .* use llm=transformers"):
        engines[engine]().chat([Request("0", as_chat("hi"), 0, shift=a_shift(1))], SAMPLING)
    assert METHODS["steered"].engines == ("transformers",)  # so a plan is refused before anything runs


def directions_of(features):
    return Directions(LAYER, np.array([np.full(4, feature) for feature in features], np.float32))


def test_the_requests_are_those_of_one_step_with_the_feature_s_direction_at_each_strength(synthesis_at, tmp_path):
    given, writer = synthesis_at(tmp_path / "store", model := Echo())
    settings = replace(given.settings, strengths=(0.5, 2.0), top_up=0)
    given = replace(given, directions=directions_of, settings=settings)
    outcome = steered(given, writer)
    plain, other = synthesis_at(tmp_path / "plain", unsteered := Echo())
    fac_one_step(replace(plain, settings=settings), other)
    assert [(r.id, r.messages, r.seed) for r in model.asked] == [(r.id, r.messages, r.seed) for r in unsteered.asked]
    for request in model.asked:
        feature, _, attempt = request.id.split("-")
        strength = (0.5, 2.0)[int(attempt) % 2]
        assert request.shift.layer == LAYER
        expected = strength * given.anchor_max[int(feature)] * int(feature)
        np.testing.assert_allclose(request.shift.direction, expected, rtol=1e-6)
    assert {s.feature for s in outcome.samples} == set(given.missing)
    assert METHODS["steered"].requests(settings, len(given.missing), 9) == len(model.asked)
    again = steered(given, replace(writer, model=Echo(limit=0)))
    assert again.samples == outcome.samples
    stronger = replace(given, settings=replace(settings, strengths=(0.5, 3.0)))
    with pytest.raises(BreakdownError):
        steered(stronger, replace(writer, model=Echo(limit=0)))  # another strength is another request


def test_a_direction_is_what_a_unit_of_activation_adds_to_the_reconstruction(world):
    _, extractor, *_ = world
    sae = extractor.sae
    features = [5, 17]
    found = sae.directions(features)
    at = torch.zeros(1, sae.width)
    at[0, 5], at[0, 17] = 2.0, 3.0
    apart = sae.module.decode(at) - sae.module.decode(torch.zeros(1, sae.width))
    torch.testing.assert_close(2 * found[0] + 3 * found[1], apart[0].float(), atol=1e-4, rtol=1e-4)
    assert sae.directions([]).shape == (0, sae.d_in)
