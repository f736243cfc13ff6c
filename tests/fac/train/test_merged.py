"""fac.train.merged: a classifier's language model has the layers that were trained and the head that it wrote with."""

import dataclasses

import pytest
import torch
from support.encoders import sentences
from support.models import tiny_model

from fac.backbone import Backbone, load_causal_lm
from fac.chat import as_chat
from fac.model_ref import ModelRef
from fac.train.classifier import fit_classifier, load_classifier, train_classifier
from fac.train.merged import save_as_causal_lm
from fac.train.settings import ClassifierSettings

QUICK = ClassifierSettings(epochs=1, learning_rate=1e-2, batch_size=4, gradient_accumulation=1)
CHATS = [as_chat(text) for text in sentences(12)]
EXAMPLES = [(chat, number % 2) for number, chat in enumerate(CHATS)]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_layers_are_the_trained_ones_and_the_head_is_the_model_s_own(tmp_path, mode):
    ref = ModelRef(str(tiny_model(tmp_path / "model", "llama")))
    settings = dataclasses.replace(QUICK, mode=mode)
    train_classifier(ref, EXAMPLES, settings, 42, tmp_path / "trained")
    trained = load_classifier(tmp_path / "trained", ref)
    network = trained.model
    inputs = trained.tokenizer([chat[0]["content"] for chat in CHATS[:3]], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = network(**inputs, output_hidden_states=True).hidden_states[-1]
    save_as_causal_lm(trained, tmp_path / "merged")
    merged, tokenizer = load_causal_lm(ModelRef(str(tmp_path / "merged")))
    before, _ = load_causal_lm(ref)
    with torch.no_grad():
        found = merged.model(**inputs).last_hidden_state
        untrained = before.model(**inputs).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - untrained).abs().max() > 1e-2
    assert torch.equal(merged.lm_head.weight, before.lm_head.weight)
    assert tokenizer.chat_template == trained.tokenizer.chat_template


def test_it_is_trained_again_as_a_model_of_its_own(tmp_path):
    ref = ModelRef(str(tiny_model(tmp_path / "model", "llama")))
    save_as_causal_lm(fit_classifier(ref, EXAMPLES, QUICK, 42)[0], tmp_path / "merged")
    again = ModelRef(str(tmp_path / "merged"))
    assert Backbone(again, 2).fingerprint() != Backbone(ref, 2).fingerprint()
    train_classifier(again, EXAMPLES, QUICK, 42, tmp_path / "again")
    assert len(load_classifier(tmp_path / "again", again).scores(CHATS)) == len(CHATS)
