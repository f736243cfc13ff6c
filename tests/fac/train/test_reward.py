"""fac.train.reward on tiny real models of each family."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from support.models import tiny_model
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from fac.chat import as_chat, encode, exchange
from fac.data.pairs import Pair, read_pairs
from fac.data.source import Source
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.reward import fit_reward, load_reward, train_reward
from fac.train.settings import RewardSettings

QUICK = RewardSettings(rank=4, alpha=8, learning_rate=1e-3, max_tokens=96)
HEAD = dataclasses.replace(QUICK, mode="head", learning_rate=1e-2)

KIND = ("I will help you with that.", "Here is what you should know.")
RUDE = ("No, go away!", "Nobody cares.")
PROMPTS = ("How do I bake bread?", "Where can I walk with a dog?", "What is blue?", "Is the piano broken?")
PAIRS = [Pair(as_chat(p), kind, rude) for p, kind, rude in itertools.product(PROMPTS, KIND, RUDE)]
CHATS = [chat for pair in PAIRS[::3] for chat in (pair.chosen_chat, pair.rejected_chat)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_model(root / family, family) for family in ("llama", "mistral", "qwen2")}


@pytest.fixture(scope="module")
def trained(models):
    """One reward model per mode, trained for a moment."""
    return {s.mode: fit_reward(ModelRef(str(models["llama"])), PAIRS, s, seed=42)[0] for s in (QUICK, HEAD)}


def margins(model, pairs=PAIRS):
    return model.rewards([p.chosen_chat for p in pairs]) - model.rewards([p.rejected_chat for p in pairs])


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_two_steps_on_real_pairs_then_reloaded(models, family, real_data, tmp_path):
    source = Source(real_data("ultrafeedback") / "eval_clean.jsonl", limit=16)
    pairs = list(read_pairs(source))
    seen = []
    log = train_reward(
        ModelRef(str(models[family])),
        pairs,
        QUICK,
        0,
        tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert log.steps == len(log.losses) == 2  # of 2 x 4 pairs
    assert seen == [(1, 2), (2, 2)]
    assert np.isfinite(log.losses).all()
    fresh, _ = fit_reward(ModelRef(str(models[family])), pairs, QUICK, 0)
    loaded = load_reward(tmp_path)
    chats = [pair.rejected_chat for pair in pairs[:5]]
    np.testing.assert_array_equal(loaded.rewards(chats), fresh.rewards(chats))
    assert loaded.settings == QUICK
    assert "lora_A" in " ".join(load_file(tmp_path / "adapter_model.safetensors"))


@pytest.mark.parametrize("base", [QUICK, HEAD], ids=["lora", "head"])
def test_it_learns_which_replies_are_chosen_and_the_reverse_if_they_are_swapped(models, base):
    many = dataclasses.replace(base, epochs=8, learning_rate=1e-2, batch_size=8, gradient_accumulation=1)
    swapped = [Pair(pair.prompt, pair.rejected, pair.chosen) for pair in PAIRS]
    model, log = fit_reward(ModelRef(str(models["llama"])), PAIRS, many, seed=1)
    mirror, _ = fit_reward(ModelRef(str(models["llama"])), swapped, many, seed=1)
    assert margins(model).min() > 0
    assert margins(mirror).max() < 0
    assert log.losses[-1] < log.losses[0]


@pytest.mark.parametrize("mode", ["lora", "head"])
def test_training_is_bradley_terry_however_the_batch_is_split(models, mode):
    """Against a plain loop: the whole model, one batch of all pairs, -log sigmoid(r_c - r_r), AdamW, clip 1."""
    steps, pairs = 3, PAIRS[:8]
    plain = dataclasses.replace(
        QUICK, mode=mode, epochs=steps, dropout=0.0, schedule="constant", warmup=0.0, weight_decay=0.0
    )

    set_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(models["llama"], num_labels=1, dtype=torch.float32)
    if mode == "lora":
        lora = LoraConfig(
            task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=list(plain.target_modules), modules_to_save=["score"]
        )
        model = get_peft_model(model, lora)
    else:
        model.requires_grad_(False)
        model.score.requires_grad_(True)
    tokenizer = AutoTokenizer.from_pretrained(models["llama"])
    chats = [pair.chosen_chat for pair in pairs] + [pair.rejected_chat for pair in pairs]
    batch = tokenizer.pad({"input_ids": [encode(tokenizer, chat).ids for chat in chats]}, return_tensors="pt")
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=plain.learning_rate, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        rewards = model(**batch).logits[:, 0]
        loss = -logsigmoid(rewards[:8] - rewards[8:]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        expected = model(**batch).logits[:, 0].numpy()

    for size, accumulation in ((8, 1), (2, 4)):
        split = dataclasses.replace(plain, batch_size=size, gradient_accumulation=accumulation)
        fitted, log = fit_reward(ModelRef(str(models["llama"])), pairs, split, seed=7)
        assert log.losses == pytest.approx(losses, abs=1e-4)
        np.testing.assert_allclose(fitted.rewards(chats), expected, atol=1e-4)


def test_head_only_training_leaves_the_backbone_as_it_was(trained, models):
    before = AutoModelForSequenceClassification.from_pretrained(models["llama"], num_labels=1).model.state_dict()
    after = trained["head"].model.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_dropout_of_the_adapters_is_on(models):
    """trl switches every dropout off unless told not to."""
    runs = [
        fit_reward(ModelRef(str(models["llama"])), PAIRS, dataclasses.replace(QUICK, warmup=0.0, dropout=dropout), 0)[
            1
        ].losses
        for dropout in (0.0, 0.5)
    ]
    assert runs[0][0] == pytest.approx(runs[1][0])  # new adapters add nothing yet
    assert runs[0][1] != runs[1][1]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(CHATS))), tokens=st.integers(1, 300))
def test_rewards_depend_neither_on_what_is_read_at_once_nor_on_order(trained, order, tokens):
    """Against the model's own logit for one chat at a time, without padding."""
    model, tokenizer = trained["lora"].model, trained["lora"].tokenizer
    with torch.no_grad():
        one_by_one = np.array([model(torch.tensor([encode(tokenizer, c).ids])).logits.item() for c in CHATS])
    rewards = trained["lora"].rewards([CHATS[i] for i in order], tokens)
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, one_by_one[list(order)], atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_long_chats_lose_their_start_but_for_bos(models, family):
    model, _ = fit_reward(ModelRef(str(models[family])), PAIRS, dataclasses.replace(HEAD, max_tokens=40), 0)
    long = exchange("Write a short letter. " * 30, "Here is what you should know.")
    ids = encode(model.tokenizer, long).ids
    start = ids[:1] if family == "llama" else []
    kept = torch.tensor([start + ids[len(ids) - 40 + len(start) :]])
    assert kept.shape == (1, 40)
    with torch.no_grad():
        assert model.rewards([long]) == pytest.approx(model.model(kept).logits.item(), abs=1e-5)
    other_start = exchange("Tell me how. " + "Write a short letter. " * 30, "Here is what you should know.")
    assert model.rewards([other_start]) == model.rewards([long])


def test_training_cuts_chats_as_scoring_does(models):
    tail = " This is a long prompt, and all of it is far away from the reply. " * 5
    prefixed = [Pair(as_chat("Why? " + p.prompt[0]["content"] + tail), p.chosen, p.rejected) for p in PAIRS[:8]]
    plain = [Pair(as_chat(p.prompt[0]["content"] + tail), p.chosen, p.rejected) for p in PAIRS[:8]]
    logs = [fit_reward(ModelRef(str(models["llama"])), pairs, QUICK, 0)[1].losses for pairs in (plain, prefixed)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("mode", ["lora", "head"])
def test_a_reloaded_model_scores_as_the_trained_one(trained, models, tmp_path, mode):
    trained[mode].save(tmp_path)
    for loaded in (load_reward(tmp_path), load_reward(tmp_path, ModelRef(str(models["llama"])))):
        np.testing.assert_array_equal(loaded.rewards(CHATS), trained[mode].rewards(CHATS))
        assert (loaded.settings, loaded.seed) == (trained[mode].settings, 42)


@pytest.mark.parametrize("base", [QUICK, HEAD], ids=["lora", "head"])
def test_the_same_seed_trains_the_same_bits(models, tmp_path, base):
    weights = []
    for name, seed in (("a", 42), ("b", 42), ("c", 43)):
        torch.rand(len(weights) + 1)  # the state of the global generator must not matter
        train_reward(ModelRef(str(models["llama"])), PAIRS, base, seed, tmp_path / name)
        (file,) = (tmp_path / name).glob("*.safetensors")
        weights.append(load_file(file))
    first, again, other = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_run_leaves_neither_prints_nor_checkpoints(models, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_reward(ModelRef(str(models["llama"])), PAIRS, QUICK, 0, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "reward.json"} <= files
    assert not any(name.startswith("checkpoint") for name in files)


def test_no_chats_have_no_rewards(trained):
    assert trained["lora"].rewards([]).shape == (0,)


def test_defaults_are_the_papers_lora_row():
    row = RewardSettings()
    assert (row.rank, row.alpha, row.dropout, row.epochs, row.learning_rate) == (16, 32, 0.1, 1, 8e-5)
    assert (row.batch_size * row.gradient_accumulation, row.max_tokens) == (8, 1024)
    assert (row.schedule, row.warmup, row.weight_decay) == ("cosine", 0.1, 0.01)


def test_what_cannot_be_done_is_said_in_one_sentence(models, trained, tmp_path):
    with pytest.raises(FacError, match="needs preference pairs"):
        fit_reward(ModelRef(str(models["llama"])), [], QUICK, 0)
    with pytest.raises(FacError, match="mode=full will not do: a training is lora or head"):
        RewardSettings(mode="full")
    with pytest.raises(FacError, match=r"no reward\.json .* train_reward wrote"):
        load_reward(tmp_path)
