"""fac.train.sequence: what its users' tests (test_classifier, test_reward) do not see."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.models import Family, tiny_model
from torch import Tensor, nn
from transformers import AutoTokenizer

from fac.chat import as_chat
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.classifier import fit_classifier
from fac.train.sequence import cross_entropy, pad_id, train_head
from fac.train.settings import ClassifierSettings, RewardSettings, SftSettings

ITEMS = 8
PLAIN = ClassifierSettings("head", epochs=6, learning_rate=0.2, batch_size=ITEMS, gradient_accumulation=1)


def items() -> tuple[Tensor, list[int]]:
    """States of two classes, strongly scaled, so that gradients are longer than the norm they are clipped at."""
    hidden = 20 * torch.randn(ITEMS, 5, generator=torch.Generator().manual_seed(0))
    return hidden, [i % 2 for i in range(ITEMS)]


def head() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(5, 2, bias=False)


def fitted(settings: ClassifierSettings, seed: int = 0) -> tuple[list[float], Tensor]:
    """Losses, and the head after them."""
    score = head()
    log = train_head(score, *items(), settings, seed)
    return log.losses, score.weight.detach()


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        ("linear", lambda step: step / 2 if step < 2 else (6 - step) / 4),
        ("cosine", lambda step: step / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 4))),
        ("constant_with_warmup", lambda step: min(step / 2, 1)),
    ],
)
def test_warmup_schedule_decay_and_clip_are_those_of_the_settings(schedule, factor):
    """Against a plain loop: six steps, a third of them warm-up."""
    losses, weight = fitted(replace(PLAIN, schedule=schedule, warmup=1 / 3, weight_decay=0.3))
    score, (hidden, told) = head(), items()
    labels = torch.tensor(told)
    optimizer = torch.optim.AdamW(score.parameters(), lr=0.2, weight_decay=0.3)
    expected, norms = [], []
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.2 * factor(step)
        loss = nn.functional.cross_entropy(score(hidden), labels)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(score.parameters(), 1.0)))
        optimizer.step()
        expected.append(loss.item())
    assert max(norms) / 1.2 > min(norms) > 1  # each is clipped, by another factor
    assert losses == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(weight, score.weight.detach(), atol=1e-5, rtol=1e-4)


def test_the_loss_of_bfloat16_scores_is_computed_in_float32():
    """As a GPU's matrix products leave them; bfloat16 knows three digits."""
    scores, labels = torch.tensor([[1.0, 3.0], [0.25, -2.0], [0.5, 0.75]]), torch.tensor([1, 1, 0])
    expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(2.25)), math.log1p(math.exp(0.25))]
    for logits in (scores, scores.bfloat16()):
        assert float(cross_entropy(logits, labels)) == pytest.approx(sum(expected), rel=1e-6)


def test_the_seed_draws_the_order_of_the_data():
    settings = replace(PLAIN, batch_size=1, epochs=1)
    first, again, other = (fitted(settings, seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_batches_of_like_length_are_drawn_only_where_that_is_asked_for(tmp_path):
    """Short and long chats in turn: of like length, no batch has both, and the seed draws which comes first."""
    ref, asked = ModelRef(str(tiny_model(tmp_path))), ("hello", "how do I bake bread at home " * 4)
    examples = [(as_chat(asked[i % 2]), i // 2 % 2) for i in range(32)]
    settings = ClassifierSettings(rank=2, epochs=1, batch_size=4, gradient_accumulation=1, group_by_length=True)
    grouped, other = (fit_classifier(ref, examples, settings, seed)[1].losses for seed in (0, 1))
    mixed = fit_classifier(ref, examples, replace(settings, group_by_length=False), 0)[1].losses
    assert grouped != mixed
    assert grouped != other


def test_adapters_are_where_and_as_the_settings_say(tmp_path):
    ref, examples = ModelRef(str(tiny_model(tmp_path))), [(as_chat(text), i) for i, text in enumerate(("no", "yes"))]
    settings = ClassifierSettings(rank=3, alpha=5, dropout=0.25, target_modules=("q_proj", "up_proj"), epochs=1)
    model: Any = fit_classifier(ref, examples, settings, 0)[0].model
    shapes = {name.split(".")[-4]: tuple(w.shape) for name, w in model.named_parameters() if "lora_A" in name}
    assert shapes == {"q_proj": (3, 64), "up_proj": (3, 64)}
    lora = model.peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (3, 5, 0.25)


@pytest.mark.parametrize(
    "settings", [ClassifierSettings(), ClassifierSettings(dropout=0.0), RewardSettings(), SftSettings()]
)
def test_every_setting_that_decides_the_weights_is_in_the_key(settings):
    other = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 0.1, tuple: lambda v: v[:1]}
    for name, value in vars(settings).items():
        if name == "kept_states":  # goes with mode "head" only: test_states
            continue
        told = "head" if name == "mode" else other.get(type(value), lambda v: "alpaca")(value)
        changed = replace(settings, **{name: told}).identity()
        # bf16 is for a GPU: a CPU computes in float32 whatever it says
        unread = {"gradient_checkpointing", "layers"} | ({"pass_tokens"} if not settings.dropout else set())
        free = name in unread or (name == "bf16" and not torch.cuda.is_available())
        assert (changed == settings.identity()) == free, name


def test_defaults_are_the_papers_lora_rows():
    """App. J, Table 1, of classifiers and of fine-tuning; that of reward models is in test_reward."""
    row = ClassifierSettings()
    assert (row.mode, row.rank, row.alpha, row.dropout, row.epochs, row.learning_rate) == ("lora", 8, 16, 0.1, 3, 5e-5)
    assert (row.batch_size * row.gradient_accumulation, row.max_tokens) == (16, 512)
    assert (row.schedule, row.warmup, row.weight_decay) == ("linear", 0.0, 0.0)
    tuned = SftSettings()
    assert (tuned.rank, tuned.alpha, tuned.dropout, tuned.epochs, tuned.learning_rate) == (8, 16, 0.0, 5, 1e-4)
    assert (tuned.batch_size * tuned.gradient_accumulation, tuned.max_tokens, tuned.clip) == (16, 2048, 1.0)
    assert (tuned.schedule, tuned.warmup, tuned.weight_decay) == ("linear", 0.0, 0.0)


def test_the_end_of_a_chat_is_scored_even_if_the_tokenizer_pads_with_it(tmp_path):
    """Llama and Mistral are released with no padding token; many set EOS for it."""
    pads: dict[Family, str] = {"llama": "<|finetune_right_pad_id|>", "mistral": "<pad>", "qwen2": "<|endoftext|>"}
    for family, expected in pads.items():
        tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / family, family))
        assert pad_id(tokenizer) == tokenizer.convert_tokens_to_ids(expected)
        if family != "qwen2":
            for pad in (None, tokenizer.eos_token):
                tokenizer.pad_token = pad
                assert pad_id(tokenizer) == tokenizer.convert_tokens_to_ids(expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "qwen2")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.unk_token = None
    with pytest.raises(FacError, match="pad_token"):
        pad_id(tokenizer)
