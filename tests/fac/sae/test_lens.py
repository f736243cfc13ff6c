"""fac.sae.lens: an SAE is trained with sae-lens, twice alike, on few texts, and not on none."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from support.encoders import LAYER, SETTINGS, K, sentences, train_sae

from fac.chat import as_chat
from fac.errors import FacError
from fac.sae import train


def test_the_record_says_what_the_sae_was_trained_on(trained, backbone):
    record = json.loads((trained / "fac.json").read_text())
    assert record["layer"] == LAYER
    assert record["fingerprint"] == backbone.fingerprint()
    assert record["settings"] == dataclasses.asdict(SETTINGS)
    assert record["probe"]["chats"] == [as_chat(text) for text in sentences(400)[:16]]
    assert 0.5 < record["probe"]["explained_variance"] < 1
    assert 0 < record["probe"]["l0"] <= K


def test_training_twice_gives_the_same_sae(model, trained, tmp_path):
    again = train_sae(model, tmp_path)
    one, two = (load_file(folder / "sae_weights.safetensors") for folder in (trained, again))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-4)


def test_texts_shorter_than_a_batch_still_train(backbone, tmp_path):
    """Seven texts give fewer tokens than one batch: what is left over is carried to the next pass."""
    few = dataclasses.replace(SETTINGS, steps=20, batch_size=512)
    train(backbone, lambda: map(as_chat, sentences(7)), few, tmp_path)
    assert json.loads((tmp_path / "fac.json").read_text())["probe"]["explained_variance"] > 0.3


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_nothing_to_train_on_is_said(backbone, tmp_path, texts):
    with pytest.raises(FacError, match="no texts to train the SAE on: name a data set"):
        train(backbone, lambda: map(as_chat, texts), SETTINGS, tmp_path)
