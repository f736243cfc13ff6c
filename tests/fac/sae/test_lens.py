"""fac.sae.lens: an SAE is trained with sae-lens, twice alike, on few texts, and not on none."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from support.encoders import LAYER, SETTINGS, K, sentences, train_sae

from fac.chat import as_chat
from fac.errors import FacError
from fac.sae import held
from fac.sae.lens import CHECKPOINT_EVERY, train


def test_the_record_says_what_the_sae_was_trained_on(trained, backbone):
    record = json.loads((trained / "fac.json").read_text())
    assert record["layer"] == LAYER
    assert record["fingerprint"] == backbone.fingerprint()
    assert record["settings"] == SETTINGS.identity()
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


HELD = dataclasses.replace(SETTINGS, held=True)


class Killed(Exception):
    """In the place of a kill."""


def held_chats():
    return map(as_chat, sentences(400))


@pytest.fixture(scope="module")
def of_held(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    train(backbone, held_chats, HELD, folder, 400)
    return folder


def test_texts_that_go_through_the_model_once_train_as_good_an_sae(of_held, trained):
    streamed, once = (json.loads((f / "fac.json").read_text())["probe"] for f in (trained, of_held))
    assert once["explained_variance"] > streamed["explained_variance"] - 0.05
    assert sorted(file.name for file in of_held.iterdir()) == sorted(file.name for file in trained.iterdir())


@pytest.mark.parametrize("stops_at", [0, CHECKPOINT_EVERY, 2 * CHECKPOINT_EVERY])
def test_a_killed_training_on_held_activations_ends_in_the_same_sae(backbone, of_held, tmp_path, monkeypatch, stops_at):
    measured, step = [], held.batches

    def until(rows, size, seed, first=0):
        for number, batch in enumerate(step(rows, size, seed, first), start=first):
            if number == stops_at + 20 and not measured:
                measured.append(number)
                raise Killed
            yield batch

    monkeypatch.setattr(held, "batches", until)
    with pytest.raises(Killed):
        train(backbone, held_chats, HELD, tmp_path, 400)
    train(backbone, held_chats, HELD, tmp_path, 400)
    one, two = (load_file(folder / "sae_weights.safetensors") for folder in (of_held, tmp_path))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-5)


def test_a_killed_measuring_of_residuals_goes_on_where_it_stopped(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(held, "_WINDOW", 50)
    whole = held.measure(backbone, held_chats, 400, 128, tmp_path)

    (tmp_path / "again").mkdir()

    def cut():
        for number, chat in enumerate(held_chats()):
            if number == 130:
                raise Killed
            yield chat

    with pytest.raises(Killed):
        held.measure(backbone, cut, 400, 128, tmp_path / "again")
    with (tmp_path / "again" / held.ROWS).open("ab") as stream:
        stream.write(b"what a killed window began")
    again = held.measure(backbone, held_chats, 400, 128, tmp_path / "again")
    assert again.shape == whole.shape
    torch.testing.assert_close(torch.from_numpy(again.copy()), torch.from_numpy(whole.copy()))


def test_every_row_is_drawn_once_in_each_pass():
    rows = torch.arange(7, dtype=torch.float32).numpy().reshape(7, 1)
    drawn = held.batches(rows, 3, seed=1)
    places = torch.cat([next(drawn) for _ in range(7)]).flatten().tolist()
    assert all(sorted(places[start : start + 7]) == list(range(7)) for start in (0, 7, 14))
    later = held.batches(rows, 3, seed=1, first=4)
    assert next(later).flatten().tolist() == places[12:15]
