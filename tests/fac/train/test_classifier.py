"""fac.train.classifier on tiny real models of each family."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.models import tiny_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from fac.chat import as_chat, encode
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.classifier import fit_classifier, load_classifier, train_classifier
from fac.train.settings import ClassifierSettings

QUICK = ClassifierSettings(epochs=1, learning_rate=1e-3, batch_size=4, gradient_accumulation=1)
HEAD = dataclasses.replace(QUICK, mode="head", learning_rate=1e-2)

HARMFUL = ["steal my parcels", "spy on someone", "threaten the landlord"]
HARMLESS = ["bake bread at home", "play the piano", "walk with a dog near the river", "take a list to the beach"]
EXAMPLES = [
    (as_chat(f"{opening} {text}"), label)
    for opening in ("How do I", "Tell me how to", "Explain to me how people")
    for texts, label in ((HARMFUL, 1), (HARMLESS, 0))
    for text in texts
]
CHATS = [chat for chat, _ in EXAMPLES]
LABELS = np.array([label for _, label in EXAMPLES])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_model(root / family, family) for family in ("llama", "mistral", "qwen2")}


@pytest.fixture(scope="module")
def trained(models):
    """One classifier per mode, trained for a moment."""
    return {s.mode: fit_classifier(ModelRef(str(models["llama"])), EXAMPLES, s, seed=42)[0] for s in (QUICK, HEAD)}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_lora_learns_to_tell_the_classes_apart(models, family):
    many = dataclasses.replace(QUICK, epochs=8, learning_rate=1e-2)
    classifier, log = fit_classifier(ModelRef(str(models[family])), EXAMPLES, many, seed=42)
    scores = classifier.scores(CHATS)
    assert scores.shape == (len(CHATS),)
    assert scores.dtype == np.float32
    assert scores[LABELS == 1].min() > scores[LABELS == 0].max()
    assert log.steps == len(log.losses) == 8 * 6  # 21 examples in batches of 4
    assert np.mean(log.losses[-6:]) < 0.2 < 0.5 < np.mean(log.losses[:3])


def test_the_head_alone_learns_and_leaves_the_backbone_as_it_was(models):
    many = dataclasses.replace(HEAD, epochs=40)
    classifier, log = fit_classifier(ModelRef(str(models["llama"])), EXAMPLES, many, seed=42)
    before = AutoModelForSequenceClassification.from_pretrained(models["llama"], num_labels=2).model.state_dict()
    after = classifier.model.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert np.mean(log.losses[-6:]) < np.mean(log.losses[:6]) / 2


def test_the_head_is_trained_as_with_the_whole_model_in_the_loop(models):
    """Against a plain loop: full model in every step, one batch of all examples, AdamW, linear schedule, clip 1."""
    steps = 4
    whole = dataclasses.replace(HEAD, epochs=steps, batch_size=len(EXAMPLES))
    classifier, log = fit_classifier(ModelRef(str(models["llama"])), EXAMPLES, whole, seed=7)

    set_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(models["llama"], num_labels=2, dtype=torch.float32)
    model.requires_grad_(False)
    model.score.requires_grad_(True)
    tokenizer = AutoTokenizer.from_pretrained(models["llama"])
    batch = tokenizer.pad({"input_ids": [encode(tokenizer, chat).ids for chat in CHATS]}, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.score.parameters(), lr=whole.learning_rate, weight_decay=0.0)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = whole.learning_rate * (1 - step / steps)
        loss = model(**batch, labels=torch.tensor(LABELS)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.score.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())

    assert log.losses == pytest.approx(losses, abs=1e-4)
    score = classifier.model.get_parameter("score.weight")
    torch.testing.assert_close(score, model.get_parameter("score.weight"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["lora", "head"])
def test_accumulated_batches_train_like_whole_ones(models, mode):
    base = dataclasses.replace(QUICK if mode == "lora" else HEAD, dropout=0.0)
    runs = []
    for batch, accumulation in ((8, 1), (2, 4)):  # 21 examples: the last batch is partial in both
        split = dataclasses.replace(base, batch_size=batch, gradient_accumulation=accumulation)
        classifier, log = fit_classifier(ModelRef(str(models["llama"])), EXAMPLES, split, seed=1)
        runs.append((classifier.scores(CHATS), log))
    (whole_scores, whole), (split_scores, split) = runs
    assert whole.steps == split.steps == 3
    assert split.losses == pytest.approx(whole.losses, abs=1e-4)
    np.testing.assert_allclose(split_scores, whole_scores, atol=1e-4)


@pytest.mark.parametrize("mode", ["lora", "head"])
def test_a_reloaded_classifier_scores_as_the_trained_one(trained, tmp_path, mode):
    trained[mode].save(tmp_path)
    loaded = load_classifier(tmp_path)
    np.testing.assert_array_equal(loaded.scores(CHATS), trained[mode].scores(CHATS))
    assert loaded.settings == trained[mode].settings
    assert loaded.seed == 42
    assert loaded.tokenizer.chat_template == trained[mode].tokenizer.chat_template


def test_the_base_model_may_move(trained, models, tmp_path):
    trained["lora"].save(tmp_path / "adapter")
    record = tmp_path / "adapter" / "classifier.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "model": {**told["model"], "path": str(tmp_path / "gone")}}))
    with pytest.raises(FacError, match="gone"):
        load_classifier(tmp_path / "adapter")
    loaded = load_classifier(tmp_path / "adapter", ModelRef(str(models["llama"])))
    np.testing.assert_array_equal(loaded.scores(CHATS), trained["lora"].scores(CHATS))


@pytest.mark.parametrize("base", [QUICK, HEAD], ids=["lora", "head"])
def test_the_same_seed_trains_the_same_bits(models, tmp_path, base):
    weights = []
    for name, seed in (("a", 42), ("b", 42), ("c", 43)):
        torch.rand(len(weights) + 1)  # the state of the global generator must not matter
        train_classifier(ModelRef(str(models["llama"])), EXAMPLES, base, seed, tmp_path / name)
        (file,) = (tmp_path / name).glob("*.safetensors")
        weights.append(load_file(file))
    first, again, other = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(CHATS))), tokens=st.integers(1, 300))
def test_scores_depend_neither_on_what_is_read_at_once_nor_on_order(trained, order, tokens):
    """Against the model's own logits for one chat at a time, without padding."""
    model, tokenizer = trained["lora"].model, trained["lora"].tokenizer
    with torch.no_grad():
        one_by_one = [torch.softmax(model(torch.tensor([encode(tokenizer, c).ids])).logits[0], -1)[1] for c in CHATS]
    scores = trained["lora"].scores([CHATS[i] for i in order], tokens)
    np.testing.assert_allclose(scores, np.array(one_by_one)[list(order)], atol=1e-5)


def test_no_chats_have_no_scores(trained):
    assert trained["lora"].scores([]).shape == (0,)


def test_long_chats_lose_their_end(trained):
    long, longer = (as_chat("Write a short letter. " * n) for n in (30, 60))
    classifier = trained["lora"]
    assert classifier.scores([long], max_tokens=64) == classifier.scores([longer], max_tokens=64)
    assert classifier.scores([long], max_tokens=64) != classifier.scores([long])


def test_scoring_cuts_chats_where_training_did(trained):
    """Unless it is told otherwise."""
    short = dataclasses.replace(trained["lora"], settings=dataclasses.replace(QUICK, max_tokens=64))
    long = as_chat("Write a short letter. " * 30)
    assert short.scores([long]) == trained["lora"].scores([long], max_tokens=64)
    assert short.scores([long]) != trained["lora"].scores([long])


def test_training_cuts_chats_at_max_tokens(models):
    endings = [([{"role": "user", "content": chat[0]["content"] + " please" * 20}], label) for chat, label in EXAMPLES]
    short = dataclasses.replace(QUICK, max_tokens=8)
    logs = [
        fit_classifier(ModelRef(str(models["llama"])), examples, short, seed=0)[1] for examples in (EXAMPLES, endings)
    ]
    assert logs[0].losses == logs[1].losses


def test_a_run_reports_progress_and_leaves_neither_prints_nor_checkpoints(models, tmp_path, capfd):
    seen = []
    log = train_classifier(
        ModelRef(str(models["llama"])),
        EXAMPLES,
        QUICK,
        0,
        tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, log.steps) for step in range(1, log.steps + 1)]
    assert capfd.readouterr() == ("", "")
    files = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "classifier.json"} <= files
    assert not any(name.startswith("checkpoint") for name in files)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "has none"),
        ([(as_chat("hello"), 1)] * 3, "only class 1"),
        ([(as_chat("hello"), 0), (as_chat("good day"), 2)], r"classes \[0, 2\]"),
    ],
)
def test_training_needs_both_classes(models, tmp_path, examples, message):
    with pytest.raises(FacError, match=message):
        train_classifier(ModelRef(str(models["llama"])), examples, QUICK, 0, tmp_path)


def test_settings_are_plain_values_and_know_their_modes():
    assert ClassifierSettings(target_modules=["q_proj"]).target_modules == ("q_proj",)  # type: ignore[arg-type]
    with pytest.raises(FacError, match="mode=some will not do: a training is lora, head, partial or full"):
        ClassifierSettings(mode="some")  # type: ignore[arg-type]


def test_what_cannot_be_loaded_is_said_in_one_sentence(models, trained, tmp_path):
    with pytest.raises(FacError, match="no model folder"):
        fit_classifier(ModelRef(str(tmp_path / "nowhere")), EXAMPLES, QUICK, 0)
    with pytest.raises(FacError, match="train_classifier"):
        load_classifier(tmp_path)
    trained["lora"].save(tmp_path / "adapter")
    with pytest.raises(FacError, match="is not the model that .* was trained on"):
        load_classifier(tmp_path / "adapter", ModelRef(str(_wider(models["llama"], tmp_path / "wider"))))


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path):
    folder = tiny_model(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(FacError, match="chat template"):
        fit_classifier(ModelRef(str(folder)), EXAMPLES, QUICK, 0)


def _wider(model, folder):
    """A model of another width with the same tokenizer."""
    config = json.loads((model / "config.json").read_text())
    network = AutoModelForSequenceClassification.from_pretrained(model).config
    network.update({**config, "hidden_size": 32})
    AutoModelForSequenceClassification.from_config(network).save_pretrained(folder)
    return folder
