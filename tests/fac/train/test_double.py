"""float64 throughout: equal to transformers' own computation, and without a step that rounds to float32."""

import numpy as np
import pytest
import torch
from support.models import tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.train.classifier import fit_classifier, load_classifier
from fac.train.double import in_double
from fac.train.settings import ClassifierSettings

IDS = torch.tensor([[5, 9, 2, 7, 11, 3, 8], [4, 4, 10, 6, 1, 0, 0]])
MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
EXAMPLES = [(as_chat(f"steal {i} cars"), 1) for i in range(12)] + [(as_chat(f"bake {i} cakes"), 0) for i in range(12)]
SETTINGS = ClassifierSettings(dropout=0.0, epochs=2, learning_rate=6e-3, batch_size=4, max_tokens=32, float64=True)


def network(folder, theta=10000.0):
    """With norms whose weights are not all one, as trained ones are."""
    config = AutoConfig.from_pretrained(folder, num_labels=2)
    config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    torch.manual_seed(0)
    found = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    for name, parameter in found.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return found


@torch.no_grad()
def states(model):
    return model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_is_the_same_network(tmp_path, family):
    folder = tiny_model(tmp_path / family, family=family)
    for theta in (10000.0, 500.0):
        found, expected = states(in_double(network(folder, theta))), states(network(folder, theta))
        assert found.dtype == torch.float64
        assert torch.allclose(found.float(), expected, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_positions_are_rotated_in_float64(tmp_path, family):
    """A cosine in float32 is another one on another CPU."""
    rotary = in_double(network(tiny_model(tmp_path / family, family=family), 500.0)).base_model.rotary_emb
    places = np.arange(900)
    angles = places[:, None] * 500.0 ** -(np.arange(16) / 16)  # heads are 32 wide
    for found, function in zip(rotary(torch.zeros(1), torch.tensor(places)[None]), (np.cos, np.sin), strict=True):
        np.testing.assert_allclose(found[0].numpy(), np.tile(function(angles), 2), atol=1e-11)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_nothing_within_rounds_to_float32(tmp_path, family):
    """A change of 1e-12 comes out as one of about that size; a float32 on the way would swallow it or make it 1e-7."""
    folder = tiny_model(tmp_path / family, family=family)
    plain, moved = in_double(network(folder)), in_double(network(folder))
    moved.get_input_embeddings().weight.data *= 1 + 1e-12 * torch.randn(1, dtype=torch.float64).sign()
    moved.get_input_embeddings().weight.data[:, 0] += 1e-12
    difference = (states(moved) - states(plain)).abs()
    assert 1e-14 < difference[MASK.bool()].mean() < 1e-10


def test_a_training_forgets_a_difference_that_another_cpu_would_make(tmp_path, monkeypatch):
    ref = ModelRef(str(tiny_model(tmp_path / "model")))
    chats = [chat for chat, _ in EXAMPLES]
    scores = []
    for change in (0.0, 1e-15):
        with monkeypatch.context() as patch:
            patch.setattr("fac.train.sequence.in_double", lambda net, by=change: shifted(in_double(net), by))
            classifier, _ = fit_classifier(ref, EXAMPLES, SETTINGS, seed=0)
        scores.append(classifier.scores(chats))
    assert scores[0].std() > 0.01  # it has learnt something
    assert np.abs(scores[0] - scores[1]).max() < 1e-6


def shifted(net, by):
    net.get_input_embeddings().weight.data *= 1 + by
    return net


def test_a_trained_classifier_scores_as_before_when_it_is_read_back(tmp_path):
    ref = ModelRef(str(tiny_model(tmp_path / "model")))
    classifier, _ = fit_classifier(ref, EXAMPLES, SETTINGS, seed=0)
    classifier.save(tmp_path / "saved")
    again = load_classifier(tmp_path / "saved")
    chats = [chat for chat, _ in EXAMPLES]
    assert np.array_equal(again.scores(chats), classifier.scores(chats))
    assert {parameter.dtype for parameter in again.model.parameters()} == {torch.float64}
