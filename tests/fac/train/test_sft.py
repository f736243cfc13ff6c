"""fac.train.sft on tiny models of three families: what is learnt, and that it comes back from disk."""

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.models import tiny_model
from transformers import AutoModelForCausalLM

from fac.backbone import Backbone, ModelRef, load_causal_lm, load_tokenizer
from fac.chat import as_chat, encode, exchange
from fac.errors import FacError
from fac.llm.base import Request, Sampling
from fac.llm.transformers import TransformersChat
from fac.train.settings import SftSettings
from fac.train.sft import IGNORED, lessons, load_sft, train_sft

FAMILIES = ("llama", "mistral", "qwen2")
QUESTION, ANSWER = "How do I bake bread?", "Mix, wait, bake."
CHATS = [exchange(f"Say it {n} times", "again and " * (n % 5 + 1)) for n in range(16)]
SHORT = SftSettings(epochs=1, learning_rate=1e-2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_model(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory):
    """Models that learnt one answer by heart, with the losses on the way."""
    settings = SftSettings(epochs=40, learning_rate=2e-2, gradient_accumulation=1)
    found = {}
    for family, model in models.items():
        folder = tmp_path_factory.mktemp(family)
        seen: list[tuple[int, int]] = []
        chats = [exchange(QUESTION, ANSWER)] * 4
        log = train_sft(ModelRef(str(model)), chats, settings, 7, folder, lambda *step, into=seen: into.append(step))
        assert seen == [(step, 40) for step in range(1, 41)]
        found[family] = folder, log
    return found


def reply(ref):
    return TransformersChat(ref).chat([Request("1", as_chat(QUESTION), 0)], Sampling(temperature=0, max_new_tokens=40))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_learnt_by_heart_with_its_end(models, trained, family):
    folder, log = trained[family]
    assert log.steps == len(log.losses) == 40
    assert log.losses[-1] < 0.7 < 5 < log.losses[0]  # the small, frozen head cannot be surer
    (said,) = reply(load_sft(folder))
    assert said.text == ANSWER
    assert said.finished
    (before,) = reply(ModelRef(str(models[family])))
    assert before.text != ANSWER


@pytest.mark.parametrize("family", FAMILIES)
def test_what_comes_back_is_the_adapter_on_its_base(models, trained, family):
    folder, _ = trained[family]
    model, tokenizer = load_causal_lm(load_sft(folder))
    ids = torch.tensor([encode(tokenizer, as_chat(QUESTION), add_generation_prompt=True).ids])
    base = AutoModelForCausalLM.from_pretrained(models[family], dtype=torch.float32).eval()
    with torch.inference_mode():
        logits, untrained = model(ids).logits, base(ids).logits
        again = load_causal_lm(load_sft(folder))[0](ids).logits
        adapted = PeftModel.from_pretrained(base, str(folder)).eval()(ids).logits
    assert torch.equal(logits, again)
    torch.testing.assert_close(logits, adapted, rtol=1e-4, atol=1e-4)
    assert (logits - untrained).abs().max() > 1


def losses_by_hand(folder, base):
    """Sum of the losses of each of CHATS, and how many of its tokens are trained on."""
    tokenizer = load_tokenizer(ModelRef(str(folder)))
    sums, counts = [], []
    for row in lessons(tokenizer, CHATS, 512):
        labels = torch.tensor(row["labels"][1:])
        with torch.inference_mode():
            logits = base(torch.tensor([row["input_ids"]])).logits[0, :-1]
        kept = labels != IGNORED
        sums.append(torch.nn.functional.cross_entropy(logits[kept], labels[kept], reduction="sum").item())
        counts.append(int(kept.sum()))
    return sums, counts


def test_the_loss_is_that_of_the_replies_tokens(models, tmp_path):
    """The first loss, from logits and labels: the mean over the tokens of all chats, however they are batched."""
    base = AutoModelForCausalLM.from_pretrained(models["llama"], dtype=torch.float32).eval()
    sums, counts = losses_by_hand(models["llama"], base)
    by_token = sum(sums) / sum(counts)
    by_chat = sum(s / c for s, c in zip(sums, counts, strict=True)) / len(sums)
    assert abs(by_token - by_chat) > 0.01  # so that the test can tell them apart
    log = train_sft(ModelRef(str(models["llama"])), CHATS, SHORT, 0, tmp_path)
    assert log.losses == [pytest.approx(by_token, abs=1e-4)]


@pytest.mark.parametrize(("dtype", "float64"), [("bfloat16", False), ("auto", True)])
def test_a_cpu_computes_in_float32_with_weights_of_any_dtype_or_in_float64(models, tmp_path, dtype, float64):
    base: Any = AutoModelForCausalLM.from_pretrained(models["llama"], dtype=torch.float32).eval()
    base = base.double() if float64 else base.bfloat16().float()
    sums, counts = losses_by_hand(models["llama"], base)
    ref = ModelRef(str(models["llama"]), dtype=dtype)
    log = train_sft(ref, CHATS, replace(SHORT, float64=float64), 0, tmp_path)
    assert log.losses == [pytest.approx(sum(sums) / sum(counts), abs=1e-5 if float64 else 3e-4)]
    (kind,) = {weight.dtype for weight in load_file(tmp_path / "adapter_model.safetensors").values()}
    assert kind == (torch.float64 if float64 else torch.float32)


def test_the_adapter_is_as_the_settings_say(models, tmp_path):
    ref, settings = ModelRef(str(models["llama"])), replace(SHORT, rank=2, alpha=6, dropout=0.25, epochs=2)
    log = train_sft(ref, CHATS, settings, 0, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (2, 6, 0.25)
    stiff = train_sft(ref, CHATS, replace(settings, clip=1e-12), 0, tmp_path / "stiff")  # far below AdamW's epsilon
    assert stiff.losses[1] == pytest.approx(stiff.losses[0], abs=1e-3)
    assert log.losses[1] < log.losses[0] - 0.01


def test_accumulated_batches_are_one_large_batch(models, tmp_path):
    weights, losses = [], []
    for name, batch, steps in (("small", 4, 4), ("large", 16, 1)):
        settings = replace(SHORT, batch_size=batch, gradient_accumulation=steps, epochs=2)
        losses.append(train_sft(ModelRef(str(models["mistral"])), CHATS, settings, 3, tmp_path / name).losses)
        weights.append(load_file(tmp_path / name / "adapter_model.safetensors"))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-3, atol=1e-4)


def test_the_same_seed_gives_the_same_bits_and_the_same_identity(models, tmp_path):
    bits, identities = {}, {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_sft(ModelRef(str(models["qwen2"])), CHATS, SHORT, seed, tmp_path / name)
        bits[name] = (tmp_path / name / "adapter_model.safetensors").read_bytes()
        identities[name] = load_sft(tmp_path / name).identity()
    assert bits["a"] == bits["b"] != bits["c"]
    assert identities["a"] == identities["b"] != identities["c"]
    assert identities["a"] != ModelRef(str(models["qwen2"])).identity()
    moved = shutil.copytree(models["qwen2"], tmp_path / "moved")
    assert load_sft(tmp_path / "a", ModelRef(str(moved))).identity() == identities["a"]


def test_every_linear_layer_has_an_adapter_and_the_head_none(trained):
    folder, _ = trained["llama"]
    names = {name.split(".")[-3] for name in load_file(folder / "adapter_model.safetensors")}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 16, 0.0)


def test_a_base_model_is_tuned_with_the_alpaca_template(models, tmp_path):
    base = shutil.copytree(models["llama"], tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(FacError, match="has no chat template"):
        train_sft(ModelRef(str(base)), CHATS, SHORT, 0, tmp_path / "none")
    train_sft(ModelRef(str(base)), CHATS, replace(SHORT, chat_template="alpaca"), 0, tmp_path / "tuned")
    _, tokenizer = load_causal_lm(load_sft(tmp_path / "tuned"))
    ids = encode(tokenizer, as_chat("hi"), add_generation_prompt=True).ids
    assert str(tokenizer.decode(ids)).endswith("### Instruction:\nhi\n\n### Response:\n")


def test_chats_without_a_reply_are_refused(models, tmp_path):
    with pytest.raises(FacError, match="There is no chat to fine-tune on"):
        train_sft(ModelRef(str(models["llama"])), [], SHORT, 0, tmp_path)
    with pytest.raises(FacError, match="Chat 17 of 17 has no assistant's reply within its first 2048 tokens"):
        train_sft(ModelRef(str(models["llama"])), [*CHATS, as_chat("hi")], SHORT, 0, tmp_path)
    with pytest.raises(FacError, match="Chat 1 of 1 .* first 12 tokens.*raise train.max_tokens"):
        train_sft(
            ModelRef(str(models["llama"])), [exchange("why " * 9, "so")], replace(SHORT, max_tokens=12), 0, tmp_path
        )


def test_what_is_no_fine_tuned_model_is_said(models, trained, tmp_path):
    with pytest.raises(FacError, match=r"There is no sft.json in .*: give the folder that train_sft wrote"):
        load_sft(tmp_path)
    folder, _ = trained["llama"]
    gone = shutil.copytree(folder, tmp_path / "gone")
    (gone / "adapter_config.json").unlink()
    with pytest.raises(FacError, match="There is no adapter in .*gone"):
        load_sft(gone).identity()
    with pytest.raises(FacError, match="The adapter .*gone does not go with .*llama"):
        load_causal_lm(load_sft(gone))
    with pytest.raises(FacError, match="read from a model without adapter"):
        Backbone(load_sft(folder), 1)
