"""Supervised fine-tuning of a causal LM on chats (paper App. J, instruction following): LoRA, by trl's SFTTrainer.

Trained on are the assistant's tokens with the end of the turn. Answers are judged in `eval.alpaca` and `eval.harness`.
Needs trl and peft.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from fac.backbone import check_length, load_config, load_tokenizer
from fac.chat import Message, encode_lesson
from fac.errors import FacError
from fac.model_ref import ModelRef, default_device
from fac.model_weights import load_weights
from fac.train.adapters import in_one_piece
from fac.train.checkpoints import remove_checkpoints
from fac.train.double import in_double
from fac.train.loop import Progress, TrainLog
from fac.train.packing import Packed, at_once, keeps_apart, multiple_on, prepared_attention
from fac.train.record import load_record, save_record
from fac.train.sequence import training_dtype
from fac.train.settings import SftSettings

RECORD = "sft.json"
IGNORED = -100  # the label of a token that is not trained on


def train_sft(
    ref: ModelRef,
    chats: Sequence[Sequence[Message]],
    settings: SftSettings,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> TrainLog:
    """Fine-tune the causal LM `ref` on `chats`; `load_sft` reads the adapter in `folder`.

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

    from fac.train.trainer import on_one_gpu, run, training_arguments

    tokenizer = load_tokenizer(as_trained(ref, settings.chat_template))
    if tokenizer.pad_token_id is None:
        raise FacError(
            f"The tokenizer of {ref.path} has no padding and no end-of-text token, which fine-tuning needs: set "
            f"pad_token and eos_token in its tokenizer_config.json."
        )
    rows = lessons(tokenizer, chats, settings.max_tokens)
    config, longest = load_config(ref), max(len(row["input_ids"]) for row in rows)
    check_length(longest, config, ref.path)
    model = load_weights(AutoModelForCausalLM, ref, config, dtype=training_dtype(ref, settings))
    if settings.float64:
        in_double(model)
    elif not torch.cuda.is_available():
        model.float()
    model.to(default_device())
    batch = settings.batch_size * settings.gradient_accumulation
    rows_at_once = at_once(batch, longest, settings.pass_tokens)
    how = replace(settings, batch_size=rows_at_once, gradient_accumulation=batch // rows_at_once)
    with training_arguments(how, seed, folder) as told:
        arguments = SFTConfig(
            **told,
            max_grad_norm=settings.clip,
            max_length=None,  # already cut
            dataset_kwargs={"skip_prepare_dataset": True},  # ids and labels are ours
        )
        trainer = SFTTrainer(
            model=model,
            args=on_one_gpu(arguments),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            data_collator=partial(collate, together=keeps_apart(model), multiple=multiple_on(model.device)),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules="all-linear",
            ),
        )
        trained: Any = trainer.model
        with in_one_piece(trained), prepared_attention():
            log = run(trainer, progress)
        trained.save_pretrained(str(folder), save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    save_record(folder / RECORD, ref, seed, settings)
    remove_checkpoints(folder)
    return log


def collate(rows: Sequence[Mapping[str, list[int]]], together: bool, multiple: int) -> dict[str, Tensor]:
    """What `lessons` gave as one batch, laid end to end (`fac.train.packing`)."""
    packed = Packed.of([row["input_ids"] for row in rows], together, multiple)
    labels = packed.laid([row["labels"] for row in rows], IGNORED)
    return {"input_ids": packed.ids, "position_ids": packed.positions, "labels": labels}


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


def load_sft(folder: Path, ref: ModelRef | None = None) -> ModelRef:
    """The fine-tuned model, for `fac.llm.transformers.TransformersChat` or `fac.backbone.load_causal_lm`.

    `ref` is the base model, if it is no longer where it was. Raises FacError if `folder` holds no fine-tuned model, or
    if the base model is another one.
    """
    if not (folder / RECORD).is_file():
        raise FacError(f"There is no {RECORD} in {folder}: give the folder that train_sft wrote.")
    ref, _, settings = load_record(folder / RECORD, ref)
    return replace(as_trained(ref, settings["chat_template"]), adapter=str(folder.resolve()))


def as_trained(ref: ModelRef, chat_template: str | None) -> ModelRef:
    """The model with the template that the settings name; None: its own."""
    return ref if chat_template is None else replace(ref, chat_template=chat_template)
