"""Supervised fine-tuning of a causal LM on chats (paper App. J, instruction following): LoRA, by trl's SFTTrainer.

Knows: how chats become an adapter on disk, and what is trained on: the assistant's tokens with the end of the turn.
Does not know: where the chats come from, how answers are judged (`eval.alpaca`, `eval.harness`). Needs trl and peft.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from fac.backbone import ModelRef, load_pretrained, load_tokenizer
from fac.chat import Message, encode_lesson
from fac.errors import FacError
from fac.train.checkpoints import remove_checkpoints
from fac.train.sequence import Progress, TrainLog, deciding, on_one_gpu, run, training_arguments

RECORD = "sft.json"
IGNORED = -100  # the label of a token that is not trained on


@dataclass(frozen=True)
class SftSettings:
    """How a model is fine-tuned. The defaults are the paper's (App. J: LLaMA-Factory, LoRA on all linear layers).

    Optimizer: AdamW (0.9, 0.999, 1e-8), as the Trainer's default is.
    """

    chat_template: str | None = None  # None: the model's own; "alpaca": the paper's choice, for base models
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    epochs: int = 5
    learning_rate: float = 1e-4
    batch_size: int = 4
    gradient_accumulation: int = 4  # the effective batch is batch_size * gradient_accumulation
    max_tokens: int = 2048  # longer chats lose their end
    schedule: str = "linear"  # a name of transformers.SchedulerType
    warmup: float = 0.0  # share of the steps, below 1
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of a gradient
    bf16: bool = True  # on a GPU; a CPU always computes in float32
    gradient_checkpointing: bool = False  # as in fac.train.sequence

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, for store keys."""
        return deciding(self)


def train_sft(
    model_path: str | Path,
    revision: str | None,
    chats: Sequence[Sequence[Message]],
    settings: SftSettings,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> TrainLog:
    """Fine-tune the causal LM at `model_path` (folder or hub id) on `chats`; `load_sft` reads the adapter in `folder`.

    The loss is the mean over all trained tokens of an effective batch, so 4 x 4 is the same as 16 x 1. `seed` sets the
    adapter and the order of the data: on a CPU the same seed gives the same bits. It seeds the global generators of
    random, numpy and torch. A long training that was stopped goes on from the checkpoint that it left in `folder`.
    Raises FacError if there is no chat, if a chat has no reply within `max_tokens`, or if the
    model cannot be loaded, has no chat template or one that ends the assistant's turns with no special token.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    base = str(Path(model_path).resolve()) if Path(model_path).is_dir() else str(model_path)
    ref = ModelRef(base, revision, settings.chat_template)
    tokenizer = load_tokenizer(ref)
    rows = lessons(tokenizer, chats, settings.max_tokens)
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu and settings.bf16 else torch.float32
    options: Any = settings
    with training_arguments(options, seed, folder) as told:
        arguments = SFTConfig(
            **told,
            max_grad_norm=settings.clip,
            max_length=None,  # already cut
            dataset_kwargs={"skip_prepare_dataset": True},  # ids and labels are ours
        )
        trainer = SFTTrainer(
            model=load_pretrained(AutoModelForCausalLM, ref, dtype=dtype),
            args=on_one_gpu(arguments),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules="all-linear",
            ),
        )
        log = run(trainer, progress)
        trained: Any = trainer.model
        trained.save_pretrained(str(folder), save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    record = {"base": base, "revision": revision, "seed": seed, "settings": asdict(settings)}
    (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
    remove_checkpoints(folder)
    return log


def lessons(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Message]], max_tokens: int
) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of every chat: the id where a token is trained on, otherwise -100.

    Raises FacError if there is no chat, or one without an assistant's token in its first `max_tokens`.
    """
    rows = []
    for number, chat in enumerate(chats, start=1):
        ids, trained = encode_lesson(tokenizer, chat, max_tokens=max_tokens)
        if not any(trained):
            raise FacError(
                f"Chat {number} of {len(chats)} has no assistant's reply within its first {max_tokens} tokens, "
                f"so nothing can be learnt from it: leave it out, or raise train.max_tokens."
            )
        labels = [token if write else IGNORED for token, write in zip(ids, trained, strict=True)]
        rows.append({"input_ids": ids, "labels": labels})
    if not rows:
        raise FacError("There is no chat to fine-tune on: add seed data or synthetic samples.")
    return rows


def load_sft(folder: Path, model_path: str | Path | None = None) -> ModelRef:
    """The fine-tuned model, for `fac.llm.transformers.TransformersChat` or `fac.backbone.load_causal_lm`.

    `model_path` is where the base model is now, if it is no longer where it was. Raises FacError if `folder` holds no
    fine-tuned model.
    """
    if not (folder / RECORD).is_file():
        raise FacError(f"There is no {RECORD} in {folder}: give the folder that train_sft wrote.")
    record = json.loads((folder / RECORD).read_text())
    base, revision = (record["base"], record["revision"]) if model_path is None else (str(model_path), None)
    return ModelRef(base, revision, record["settings"]["chat_template"], adapter=str(folder.resolve()))
