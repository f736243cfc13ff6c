"""Modes "partial" and "full" of classifiers: which weights are trained, kept and read back."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.errors import FacError
from fac.train.classifier import fit_classifier, load_classifier
from fac.train.sequence import WEIGHTS, load_network, network_of, trained_count
from fac.train.settings import ClassifierSettings, RewardSettings

CHATS = [as_chat(text) for text in ("rob a bank", "bake a cake", "steal a car", "sing a song") * 3]
EXAMPLES = [(chat, n % 2) for n, chat in enumerate(CHATS)]
QUICK = ClassifierSettings("partial", epochs=2, learning_rate=1e-2, batch_size=4, gradient_accumulation=1, dropout=0.0)


@pytest.fixture(scope="module")
def ref(tmp_path_factory) -> ModelRef:
    return ModelRef(str(tiny_model(tmp_path_factory.mktemp("whole") / "llama")))


def settings(mode: str, float64: bool = False) -> ClassifierSettings:
    return dataclasses.replace(QUICK, mode=mode, float64=float64)


@pytest.mark.parametrize("mode", ["partial", "full"])
@pytest.mark.parametrize("float64", [False, True])
def test_what_is_trained_changes_is_kept_alone_and_scores_the_same_when_it_is_read_back(ref, tmp_path, mode, float64):
    how = settings(mode, float64)
    trained, log = fit_classifier(ref, EXAMPLES, how, seed=1)
    before = dict(load_network(ref, how, 2).named_parameters())
    after = dict(network_of(trained.model).named_parameters())
    changed = {name for name in after if name != "score.weight" and not torch.equal(before[name], after[name])}
    last = max(int(name.split(".")[2]) for name in after if name.startswith("model.layers."))
    if mode == "partial":
        assert changed
        assert all(name.startswith((f"model.layers.{last}.", "model.norm.")) for name in changed)
    else:
        assert {f"model.layers.{n}.self_attn.q_proj.weight" for n in range(last + 1)} <= changed
    trained.save(tmp_path)
    kept = load_file(tmp_path / WEIGHTS)
    assert changed | {"score.weight"} <= kept.keys()
    assert trained_count(tmp_path) == sum(tensor.numel() for tensor in kept.values())
    if mode == "full":
        assert kept.keys() == after.keys()
    np.testing.assert_array_equal(load_classifier(tmp_path).scores(CHATS), trained.scores(CHATS))
    assert len(log.losses) == 6


def test_what_else_is_counted(ref, tmp_path):
    for mode, least, most in (("head", 128, 128), ("lora", 129, 200_000)):
        trained, _ = fit_classifier(ref, EXAMPLES, dataclasses.replace(QUICK, mode=mode, epochs=1), seed=1)
        trained.save(tmp_path / mode)
        assert least <= trained_count(tmp_path / mode) <= most


def test_weights_of_other_layers_are_refused(ref, tmp_path):
    trained, _ = fit_classifier(ref, EXAMPLES, settings("partial"), seed=1)
    trained.save(tmp_path)
    kept = load_file(tmp_path / WEIGHTS)
    save_file({name.replace("layers.", "layers.1"): held for name, held in kept.items()}, tmp_path / WEIGHTS)
    with pytest.raises(FacError, match="does not fit"):
        load_classifier(tmp_path)


def test_more_layers_than_there_are_are_refused(ref):
    with pytest.raises(FacError, match="layers=99 will not do"):
        fit_classifier(ref, EXAMPLES, dataclasses.replace(QUICK, layers=99), seed=1)


def test_only_classifiers_have_these_modes_and_keys_of_others_know_nothing_of_layers():
    with pytest.raises(FacError, match="mode=full will not do: a training is lora or head"):
        RewardSettings("full")
    assert "layers" not in ClassifierSettings().identity()
    assert ClassifierSettings("partial").identity()["layers"] == 1
