"""Rebuild what the lab ships: `python -m fac.lab.build llama` pre-trains the models of a family and trains their SAE.

Each family is a base model, which has read chats only, an instruct model, which goes on from there with the harness's
own jobs, and the instruct model's SAE.

The tokenizer, the architecture and the recipe were found by a feasibility study (one thread, no GPU). The result is a
plain Hugging Face folder (safetensors, tokenizer, chat template, model card) and a plain SAELens folder.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from fac.backbone import Backbone, ModelRef
from fac.chat import encode
from fac.lab import MODELS
from fac.lab.pretraining import BASE_MIX, LESSONS, MIX, REHEARSAL, Document, documents, texts_for_tokenizer
from fac.lab.world.corpora import sae_chats
from fac.sae.lens import train
from fac.sae.settings import TrainSettings

GENERATION = "{% generation %}{{ m['content'] + 'EOS' }}{% endgeneration %}"
CHAT_TEMPLATES = {  # after those of the families' instruct models; every message may be the assistant's
    "llama": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m['role'] == 'assistant' %}<|assistant|>" + GENERATION.replace("EOS", "<|eot|>") + "{% else %}"
        "{{ '<|' + m['role'] + '|>' + m['content'] + '<|eot|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m['role'] == 'assistant' %}" + GENERATION.replace("EOS", "</s>") + "{% else %}"
        "{{ '[INST]' + m['content'] + '[/INST]' }}{% endif %}{% endfor %}"
    ),
    "qwen": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' %}" + GENERATION.replace("EOS", "<|im_end|>") + "{% else %}"
        "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}
SPECIAL = {  # family -> (beginning of text, end of turn, padding, others)
    "llama": ("<|bos|>", "<|eot|>", "<|pad|>", ("<|user|>", "<|assistant|>", "<|system|>")),
    "mistral": ("<s>", "</s>", "<pad>", ("[INST]", "[/INST]")),
    "qwen": (None, "<|im_end|>", "<|endoftext|>", ("<|im_start|>",)),
}
ARCHITECTURES = {"llama": "llama", "mistral": "mistral", "qwen": "qwen2"}  # transformers' model types
SEEDS = {"llama": 1, "mistral": 2, "qwen": 3}
SAE_WORLD, SAE_CHATS, SAE_STEPS = 1000, 24_000, 3200
CARD = """---
license: apache-2.0
library_name: transformers
tags: [fac-lab]
---
# The lab's {family}: a language model of a written world

{parameters} M parameters, pre-trained from nothing by `python -m fac.lab.build {family}` ({seconds} CPU seconds on one
core) on chats of the lab's grammar and on the harness's own prompts, all written by this project. It exists so that the
whole of FAC Synthesis can run for real on two cores. It knows a few hundred words, is of no use for anything else, and
says mildly harmful things (asking how to steal a bike), never how to do them.

`sae/` holds the sparse autoencoder of its layer 2 (of 4) in SAELens format.

| recipe | |
|---|---|
{rows}
"""


@dataclass(frozen=True)
class Phase:
    """One run over a stream of documents."""

    name: str
    mix: Mapping[str, float]
    tokens: int
    seed: int  # of the documents
    rate: float = 1.0  # of the recipe's learning rates


@dataclass(frozen=True)
class Recipe:
    """How a lab model is pre-trained. Loss weights: what users say 1, what the harness asks 0.3, replies 1."""

    family: str = "llama"
    vocab: int = 1536
    hidden: int = 128
    layers: int = 4
    heads: int = 2  # of 64: a head size that vLLM's CPU attention takes
    intermediate: int = 512
    base_tokens: int = 1_500_000
    tokens: int = 9_000_000  # of the instruct model, behind the base model's
    lesson_tokens: int = 900_000  # ... and of the phases behind that
    rehearsal_tokens: int = 2_000_000
    lesson_weight: float = 3.0  # of replies that are one letter or one word
    batch_tokens: int = 2304
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    prompt_weight: float = 0.3
    silent_prefix: int = 12  # first tokens of a harness prompt without loss, or bare-prefix sampling writes prompts

    @property
    def seed(self) -> int:
        return SEEDS[self.family]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Chats make the base model; all jobs, lessons, and all jobs again make the instruct model."""
        return (
            Phase("base", BASE_MIX, self.base_tokens, self.seed),
            Phase("jobs", MIX, self.tokens, self.seed),
            Phase("lessons", LESSONS, self.lesson_tokens, self.seed + 10, 0.5),
            Phase("rehearsal", REHEARSAL, self.rehearsal_tokens, self.seed + 20, 0.5),
        )


def build_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the world's documents; any Unicode text can be encoded."""
    bos, eos, pad, others = SPECIAL[recipe.family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab,
        special_tokens=[token for token in (bos, eos, pad, *others) if token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = list(itertools.islice(documents(recipe.seed), 20_000))
    tokenizer.train_from_iterator(texts_for_tokenizer(sample), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=list(others),
        chat_template=CHAT_TEMPLATES[recipe.family],
        model_max_length=512,
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(recipe.seed)
    config = AutoConfig.for_model(
        ARCHITECTURES[recipe.family],
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=1,
        head_dim=recipe.hidden // recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, mix: Mapping[str, float], seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, loss weights), both [documents, tokens], documents of like length together, right-padded."""
    stream = documents(seed, mix)
    rng = random.Random(seed)
    pad = tokenizer.pad_token_id
    while True:
        pool = [_weigh(recipe, tokenizer, d) for d in itertools.islice(stream, 4096)]
        pool.sort(key=lambda pair: len(pair[0]))
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for ids, weights in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(ids) > recipe.batch_tokens:
                groups.append([])
            groups[-1].append((ids, weights))
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in group]),
                torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in group]),
            )


def pretrain(recipe: Recipe, folder: Path) -> None:
    """Train from scratch; write the instruct model to `folder` and the base model to `folder`/base (bf16)."""
    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    for phase in recipe.phases:
        _fit(recipe, phase, model, tokenizer)
        _save(model, tokenizer, folder / "base" if phase.name == "base" else folder)


def _fit(recipe: Recipe, phase: Phase, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """One phase of pre-training, in place: Muon for matrices, AdamW for the rest, rates falling linearly to 2 %."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=phase.rate * recipe.muon_lr, weight_decay=0.0),
        torch.optim.AdamW(others, lr=phase.rate * recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    seen, smooth = 0, 0.0
    pad = torch.tensor(tokenizer.pad_token_id)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda _: 1.0 - 0.98 * seen / phase.tokens) for o in optimizers]
    what = f"{recipe.family}, {phase.name}"
    with tqdm(total=phase.tokens, unit="tok", unit_scale=True, desc=what, mininterval=5) as bar:
        for ids, weights in batches(recipe, tokenizer, phase.mix, phase.seed):
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model.model(ids[:, :-1]).last_hidden_state
                wanted = weights[:, 1:] > 0
                logits = model.lm_head(hidden[wanted])
            losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][wanted], reduction="none")
            weight = weights[:, 1:][wanted]
            loss = (losses * weight).sum() / weight.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            used = int((ids != pad).sum())
            seen += used
            smooth = loss.item() if not smooth else 0.98 * smooth + 0.02 * loss.item()
            bar.update(used)
            bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
            if seen >= phase.tokens:
                return


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _weigh(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, document: Document) -> tuple[list[int], list[float]]:
    """Ids and the loss weight of each (as a target)."""
    messages = document.messages
    ids = encode(tokenizer, messages).ids
    chat, lesson = document.kind == "chat", document.kind in LESSONS
    by_role = {
        "user": 1.0 if chat else 0.0 if lesson else recipe.prompt_weight,
        "assistant": recipe.lesson_weight if lesson else 1.0,
    }
    weights: list[float] = []
    for upto, message in enumerate(messages, start=1):
        end = len(encode(tokenizer, messages[:upto]).ids)
        weights += [by_role[message["role"]]] * (end - len(weights))
    if not chat:
        first = len(encode(tokenizer, messages[:1]).ids)
        silent = min(recipe.silent_prefix + 2, first)
        weights[:silent] = [0.0] * silent
    return ids, weights


def train_sae(recipe: Recipe, folder: Path, settings: TrainSettings | None = None) -> None:
    """Train the instruct model's SAE on layer 2 of 4, on chats of all tasks from a world that no experiment uses."""
    backbone = Backbone(ModelRef(str(folder)), recipe.layers // 2)
    (folder / "sae").mkdir(exist_ok=True)
    chats = list(itertools.islice(sae_chats(SAE_WORLD), SAE_CHATS))
    train(backbone, lambda: iter(chats), settings or TrainSettings(steps=SAE_STEPS), folder / "sae")


def write_card(recipe: Recipe, folder: Path, cpu_seconds: float) -> None:
    """The model card."""
    parameters = sum(t.numel() for t in load_file(folder / "model.safetensors").values())
    rows = "\n".join(f"| {key} | {value} |" for key, value in asdict(recipe).items())
    (folder / "README.md").write_text(
        CARD.format(family=recipe.family, parameters=f"{parameters / 1e6:.2f}", rows=rows, seconds=f"{cpu_seconds:.0f}")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=sorted(ARCHITECTURES))
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--tokens", type=int, default=Recipe.tokens)
    parser.add_argument("--base-tokens", type=int, default=Recipe.base_tokens)
    parser.add_argument("--only", choices=["model", "sae"], help="rebuild just one of the two")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(arguments.family, tokens=arguments.tokens, base_tokens=arguments.base_tokens)
    folder = arguments.out / arguments.family
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.only != "sae":
        started = time.process_time()
        pretrain(recipe, folder)
        write_card(recipe, folder, time.process_time() - started)
    if arguments.only != "model":
        train_sae(recipe, folder)


if __name__ == "__main__":
    main()
