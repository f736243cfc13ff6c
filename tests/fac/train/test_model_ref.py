"""One ModelRef from training to scoring: at the pinned commit, with its template and dtype, or said to be another."""

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.hub_cache import cached_model
from support.models import tiny_model

from fac.backbone import Backbone, load_causal_lm, load_tokenizer
from fac.chat import PLAIN_TEMPLATE, as_chat, encode, exchange
from fac.data.pairs import Pair
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.classifier import fit_classifier, load_classifier, train_classifier
from fac.train.reward import load_reward, train_reward
from fac.train.settings import ClassifierSettings, RewardSettings, SftSettings
from fac.train.sft import load_sft, train_sft

NAME, PINNED, NEWER = "owner/model", "a" * 40, "b" * 40
EXAMPLES = [(as_chat(f"message {n}"), n % 2) for n in range(8)]
PAIRS = [Pair(as_chat(f"question {n}"), "yes " * (n % 3 + 1), "no") for n in range(4)]
CHATS = [exchange(f"Say it {n} times", "again and " * (n % 3 + 1)) for n in range(4)]
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 4, "rank": 2}
TEXTS = [chat for chat, _ in EXAMPLES]
KINDS = {
    "classifier": (
        lambda ref, folder, **how: train_classifier(ref, EXAMPLES, ClassifierSettings(**QUICK | how), 0, folder),
        lambda folder, ref: load_classifier(folder, ref).scores(TEXTS),
    ),
    "reward": (
        lambda ref, folder, **how: train_reward(ref, PAIRS, RewardSettings(**QUICK | how), 0, folder),
        lambda folder, ref: load_reward(folder, ref).rewards(TEXTS),
    ),
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A model as it was pinned, and as its main branch is now."""
    root = tmp_path_factory.mktemp("versions")
    return {PINNED: tiny_model(root / "pinned", seed=0), NEWER: tiny_model(root / "newer", seed=1)}


@pytest.fixture
def hub(versions, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached_model(tmp_path / "hub", NAME, versions, main=NEWER)


@pytest.mark.parametrize("mode", ["lora", "head"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_at_a_pinned_commit_is_scored_at_it(versions, hub, tmp_path, kind, mode):
    train, score = KINDS[kind]
    train(ModelRef(NAME, PINNED), tmp_path / "out", mode=mode)
    train(ModelRef(str(versions[PINNED])), tmp_path / "local", mode=mode)
    right = score(tmp_path / "local", None)
    for ref in (None, ModelRef(NAME, PINNED)):
        assert score(tmp_path / "out", ref).tolist() == right.tolist()
    with pytest.raises(FacError, match=f"{NAME} is not the model that .* was trained on"):
        score(tmp_path / "out", ModelRef(NAME))  # the main branch has moved on


def test_a_model_without_revision_is_scored_at_the_commit_that_was_main_in_training(versions, hub, tmp_path):
    train, score = KINDS["classifier"]
    train(ModelRef(NAME), tmp_path / "out")
    right = score(tmp_path / "out", None)
    (tmp_path / "hub" / "models--owner--model" / "refs" / "main").write_text(PINNED)
    assert score(tmp_path / "out", None).tolist() == right.tolist()


def test_fine_tuning_and_its_answers_are_at_the_pinned_commit(versions, hub, tmp_path):
    settings = SftSettings(**QUICK)
    train_sft(ModelRef(NAME, PINNED), CHATS, settings, 0, tmp_path / "out")
    train_sft(ModelRef(str(versions[PINNED])), CHATS, settings, 0, tmp_path / "local")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        (right, *_), (own, *_), (given, *_) = (
            (load_causal_lm(ref)[0](ids).logits,)
            for ref in (
                load_sft(tmp_path / "local"),
                load_sft(tmp_path / "out"),
                load_sft(tmp_path / "out", ModelRef(NAME, PINNED)),
            )
        )
    assert torch.equal(own, right)
    assert torch.equal(given, right)
    assert load_sft(tmp_path / "out").revision == PINNED
    with pytest.raises(FacError, match="is not the model that"):
        load_sft(tmp_path / "out", ModelRef(NAME))


def test_measuring_is_at_the_pinned_commit(versions, hub):
    ids = [[5, 6, 7, 8]]
    pinned, main = (Backbone(ModelRef(str(versions[commit])), 2).residual(ids) for commit in (PINNED, NEWER))
    assert torch.equal(Backbone(ModelRef(NAME, PINNED), 2).residual(ids), pinned)
    assert torch.equal(Backbone(ModelRef(NAME), 2).residual(ids), main)
    assert ModelRef(NAME).identity() == ModelRef(NAME, "main").identity() == ModelRef(NAME, NEWER).identity()
    assert ModelRef(NAME).identity() != ModelRef(NAME, PINNED).identity()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_changed_since_training_are_not_scored(versions, tmp_path, kind):
    train, score = KINDS[kind]
    folder = shutil.copytree(versions[PINNED], tmp_path / "model")
    train(ModelRef(str(folder)), tmp_path / "out")
    shutil.copy(versions[NEWER] / "model.safetensors", folder)
    for ref in (None, ModelRef(str(folder))):
        with pytest.raises(FacError, match="is not the model that .*files or its commit differ"):
            score(tmp_path / "out", ref)


def test_the_chats_of_training_are_those_of_measuring(versions, tmp_path):
    """S2-4: a base model without a template, and one whose own is replaced."""
    plain = ModelRef(str(versions[PINNED]), chat_template="plain")
    measured = [encode(load_tokenizer(plain), chat).ids for chat in TEXTS]
    classifier, _ = fit_classifier(plain, EXAMPLES, ClassifierSettings(**QUICK), 0)
    assert classifier.tokenizer.chat_template == PLAIN_TEMPLATE
    classifier.save(tmp_path / "out")
    loaded = load_classifier(tmp_path / "out", plain)
    assert [encode(loaded.tokenizer, chat).ids for chat in TEXTS] == measured
    bare = shutil.copytree(versions[PINNED], tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    fit_classifier(ModelRef(str(bare), chat_template="plain"), EXAMPLES, ClassifierSettings(**QUICK), 0)
    train_sft(replace(plain, chat_template="alpaca"), CHATS, SftSettings(**QUICK), 0, tmp_path / "sft")
    tuned = load_sft(tmp_path / "sft")
    assert tuned.chat_template == "alpaca"


@pytest.mark.parametrize("mode", ["lora", "head"])
def test_the_dtype_of_measuring_is_that_of_training_and_scoring(versions, tmp_path, mode):
    settings = ClassifierSettings(mode, **QUICK)
    ref = ModelRef(str(versions[PINNED]), dtype="bfloat16")
    rounded, _ = fit_classifier(ref, EXAMPLES, settings, 0)
    full, _ = fit_classifier(ModelRef(str(versions[PINNED])), EXAMPLES, settings, 0)
    weights: Any = full.model.get_input_embeddings().weight
    kept: Any = rounded.model.get_input_embeddings().weight
    assert torch.equal(kept, weights.bfloat16().float())
    assert not torch.equal(weights, weights.bfloat16().float())
    rounded.save(tmp_path / "out")
    assert load_classifier(tmp_path / "out").scores(TEXTS).tolist() == rounded.scores(TEXTS).tolist()
    assert json.loads((tmp_path / "out" / "classifier.json").read_text())["model"]["dtype"] == "bfloat16"
