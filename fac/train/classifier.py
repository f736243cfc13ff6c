"""Toxicity classifiers (paper App. J): a causal LM with a two-class head, fine-tuned by LoRA or by its head alone.

Knows: how examples become a trained classifier on disk, and how a classifier scores chats. Does not know: where the
examples come from, what the classes mean, metrics (`eval.classification`). Needs peft and transformers' Trainer.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as hf_logging

from fac.chat import Message, check_template, encode
from fac.errors import FacError

Example = tuple[Sequence[Message], int]  # a chat and its class: 1 is the class that `Classifier.scores` is about
Progress = Callable[[int, int], None]  # (optimizer steps done, steps in all)

RECORD = "classifier.json"
HEAD = "score.safetensors"
BATCH = 32  # chats per forward pass where nothing is trained


@dataclass(frozen=True)
class ClassifierSettings:
    """How a classifier is trained. The defaults are the paper's LoRA row (App. J, Table 1).

    The paper's head-only row (Table 13) is `ClassifierSettings("head", epochs=15, learning_rate=8e-5, batch_size=1)`.
    Optimizer: AdamW (0.9, 0.999, 1e-8), gradients clipped at norm 1, as the Trainer's defaults are.
    """

    mode: str = "lora"  # "lora": adapters and head are trained; "head": the backbone is frozen
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    epochs: int = 3
    learning_rate: float = 5e-5
    batch_size: int = 4
    gradient_accumulation: int = 4  # the effective batch is batch_size * gradient_accumulation
    max_tokens: int = 512  # longer chats lose their end
    schedule: str = "linear"  # a name of transformers.SchedulerType
    warmup: float = 0.0  # share of the steps, below 1
    group_by_length: bool = False  # batches of chats of like length: less padding, in an order that is still drawn
    weight_decay: float = 0.0
    bf16: bool = True  # backbone and matrix products on a GPU; a CPU always computes in float32

    def __post_init__(self) -> None:
        if self.mode not in ("lora", "head"):
            raise FacError(f"There is no classifier mode {self.mode!r}: set train.mode to 'lora' or 'head'.")
        object.__setattr__(self, "target_modules", tuple(self.target_modules))


@dataclass(frozen=True)
class TrainLog:
    """What happened in one training run."""

    losses: list[float]  # mean cross-entropy of each optimizer step, in nats
    steps: int
    seconds: float  # wall time of the optimisation, without loading and saving


@dataclass(frozen=True)
class Classifier:
    """A trained classifier in memory, made by `fit_classifier` or `load_classifier`."""

    model: PreTrainedModel | PeftModel  # the backbone with its `score` head; PeftModel in mode "lora"
    tokenizer: PreTrainedTokenizerBase
    settings: ClassifierSettings
    base: str  # folder or hub id of the model that was fine-tuned
    revision: str | None
    seed: int

    def scores(
        self, chats: Sequence[Sequence[Message]], batch_size: int = BATCH, max_tokens: int | None = None
    ) -> NDArray[np.float32]:
        """Softmax probability of class 1 for each chat; shape [n], float32.

        Chats are cut on the right at `max_tokens` (default: as in training). Batches hold chats of similar length;
        their size changes a score by float rounding only.
        """
        if not chats:
            return np.zeros(0, dtype=np.float32)
        limit = self.settings.max_tokens if max_tokens is None else max_tokens
        rows = _token_rows(self.tokenizer, chats, limit)
        network = _network(self.model)
        logits = _at_last_token(network, network.score, rows, batch_size)
        return torch.softmax(logits, dim=-1)[:, 1].numpy()

    def save(self, folder: Path) -> None:
        """Write adapter (or head), tokenizer with its chat template, and `classifier.json` to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.model, PeftModel):
            self.model.save_pretrained(str(folder), save_embedding_layers=False)
        else:
            save_model(_network(self.model).score, str(folder / HEAD))
        self.tokenizer.save_pretrained(folder)
        record = {"base": self.base, "revision": self.revision, "seed": self.seed, "settings": asdict(self.settings)}
        (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))


def train_classifier(
    model_path: str | Path,
    revision: str | None,
    examples: Sequence[Example],
    settings: ClassifierSettings,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> TrainLog:
    """`fit_classifier`, then save to `folder`, from where `load_classifier` reads."""
    classifier, log = fit_classifier(model_path, revision, examples, settings, seed, progress)
    classifier.save(folder)
    return log


def fit_classifier(
    model_path: str | Path,
    revision: str | None,
    examples: Sequence[Example],
    settings: ClassifierSettings,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Classifier, TrainLog]:
    """Fine-tune the causal LM at `model_path` (folder or hub id) to tell class 1 from class 0.

    `seed` sets the head, the adapters, the dropout and the order of the data: on a CPU the same seed gives the same
    bits. It seeds the global generators of random, numpy and torch. Raises FacError if there are no examples or only
    one class, or if the model cannot be loaded or has no chat template.
    """
    labels = [label for _, label in examples]
    if set(labels) != {0, 1}:
        found = f"only class {labels[0]}" if len(set(labels)) == 1 else f"the classes {sorted(set(labels))}"
        raise FacError(
            f"A classifier needs examples of classes 0 and 1, but the training set of {len(labels)} has "
            f"{found if labels else 'none'}: add seed data or synthetic samples of what is missing."
        )
    base = str(Path(model_path).resolve()) if Path(model_path).is_dir() else str(model_path)
    tokenizer = _load(AutoTokenizer, base, revision)
    check_template(tokenizer, base)
    rows = _token_rows(tokenizer, [chat for chat, _ in examples], settings.max_tokens)
    set_seed(seed)
    network = _load_network(base, revision, settings)
    if settings.mode == "lora":
        network.config.pad_token_id = pad = _pad_id(tokenizer)
        lora = LoraConfig(
            task_type="SEQ_CLS",
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.target_modules),
            modules_to_save=["score"],
        )
        model = get_peft_model(network, lora)
        inputs = [{"input_ids": ids, "label": label} for ids, label in zip(rows, labels, strict=True)]
        log = _train(model, inputs, lambda batch: _collate_ids(batch, pad), settings, seed, progress)
    else:
        # A frozen backbone without dropout answers the same in every epoch: it runs once, the head trains on that.
        model = network
        hidden = _at_last_token(network, nn.Identity(), rows, BATCH)
        inputs = [{"hidden": vector, "label": label} for vector, label in zip(hidden, labels, strict=True)]
        log = _train(_Head(network.score), inputs, _collate_hidden, settings, seed, progress)
    return Classifier(model, tokenizer, settings, base, revision, seed), log


def load_classifier(folder: Path, model_path: str | Path | None = None) -> Classifier:
    """Read what `train_classifier` wrote to `folder`.

    `model_path` is where the base model is now, if it is no longer where it was. Raises FacError if `folder` holds no
    classifier, or if the base model cannot be loaded or is another one.
    """
    if not (folder / RECORD).is_file():
        raise FacError(f"There is no {RECORD} in {folder}: give the folder that train_classifier wrote.")
    record = json.loads((folder / RECORD).read_text())
    settings = ClassifierSettings(**record["settings"])
    base, revision = (record["base"], record["revision"]) if model_path is None else (str(model_path), None)
    model = _load_network(base, revision, settings)
    try:
        if settings.mode == "lora":
            model = PeftModel.from_pretrained(model, str(folder))
        else:
            load_model(model.score, str(folder / HEAD))
    except RuntimeError as error:  # torch's word for shapes that differ
        raise FacError(
            f"The classifier in {folder} does not fit {base}: give the model it was trained on, {record['base']}."
        ) from error
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Classifier(model, tokenizer, settings, base, revision, record["seed"])


# Models and tokens


def _load(factory: Any, base: str, revision: str | None, **options: Any) -> Any:
    """`factory.from_pretrained`, with a failure said in one sentence."""
    try:
        with _quiet():
            return factory.from_pretrained(base, revision=revision, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise FacError(
            f"The model {base} (revision {revision}) cannot be loaded ({reason}): give a folder that "
            f"save_pretrained wrote, or the id of a model on the hub that this machine can reach."
        ) from error


def _load_network(base: str, revision: str | None, settings: ClassifierSettings) -> Any:
    """The model with a new two-class head in float32, on the GPU if there is one, in evaluation mode."""
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu and settings.bf16 else torch.float32
    network = _load(AutoModelForSequenceClassification, base, revision, num_labels=2, dtype=dtype)
    network.config.use_cache = False
    network.score.float()
    return network.to("cuda" if on_gpu else "cpu").eval()


def _network(model: PreTrainedModel | PeftModel) -> Any:
    """The sequence classifier itself; peft injects its layers into it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, and without its warning that a causal LM brings no head."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def _token_rows(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Message]], max_tokens: int
) -> list[list[int]]:
    return [encode(tokenizer, chat, max_tokens=max_tokens).ids for chat in chats]


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token that ends no chat. transformers scores the last token that differs from it, so EOS must not be it."""
    reserved = [token.content for token in tokenizer.added_tokens_decoder.values() if "pad" in token.content]
    vocabulary = tokenizer.get_vocab()
    for token in (tokenizer.pad_token, *reserved, tokenizer.unk_token):
        if token is not None and token not in (tokenizer.eos_token, tokenizer.bos_token):
            return vocabulary[str(token)]
    raise FacError(
        f"The tokenizer of {tokenizer.name_or_path} has no padding token other than EOS: "
        f"set pad_token in its tokenizer_config.json to a token that no text contains."
    )


def _pad(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Rows of ids as one right-padded batch; two tensors [rows, longest]."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def _at_last_token(network: Any, head: nn.Module, rows: Sequence[list[int]], batch_size: int) -> Tensor:
    """`head` of the backbone's output at the last token of each row: float32 [rows, head's width], on the CPU."""
    network.eval()
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # the longest first: what does not fit fails at once
    parts = []
    for start in range(0, len(order), batch_size):
        batch = [rows[i] for i in order[start : start + batch_size]]
        inputs = {name: tensor.to(network.device) for name, tensor in _pad(batch, pad=0).items()}
        states = network.base_model(**inputs).last_hidden_state
        last = torch.tensor([len(row) - 1 for row in batch], device=network.device)
        parts.append(head(states[torch.arange(len(batch), device=network.device), last].float()).cpu())
    return torch.cat(parts)[torch.tensor(order).argsort()]


# Optimisation


class _Head(nn.Module):
    """The score head as a model of its own, fed with what the frozen backbone said."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        return {"logits": self.score(hidden)}


def _collate_ids(batch: list[dict[str, Any]], pad: int) -> dict[str, Tensor]:
    return {**_pad([row["input_ids"] for row in batch], pad), "labels": torch.tensor([row["label"] for row in batch])}


def _collate_hidden(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    hidden = torch.stack([row["hidden"] for row in batch])
    return {"hidden": hidden, "labels": torch.tensor([row["label"] for row in batch])}


def _loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Cross-entropy averaged over the effective batch.

    Given to the Trainer because the sequence classifiers of transformers 5.19 average over the micro-batch while the
    Trainer takes their loss for one that is averaged over the effective batch: gradients would be too large by the
    number of accumulation steps.
    """
    loss = nn.functional.cross_entropy(outputs["logits"].float(), labels, reduction="sum")
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


class _Report(TrainerCallback):
    """Hands the Trainer's progress on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)


def _train(
    model: nn.Module,
    inputs: list[dict[str, Any]],
    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
    settings: ClassifierSettings,
    seed: int,
    progress: Progress | None,
) -> TrainLog:
    """Train `model` in place with transformers' Trainer: nothing is printed, reported or kept on disk."""
    on_gpu = torch.cuda.is_available()
    grouped = settings.group_by_length and "input_ids" in inputs[0]  # a head on cached states has no padding to spare
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup,
            weight_decay=settings.weight_decay,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation,
            bf16=on_gpu and settings.bf16,
            use_cpu=not on_gpu,
            seed=seed,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            train_sampling_strategy="group_by_length" if grouped else "random",
            dataloader_pin_memory=on_gpu,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # DataParallel over all visible GPUs would multiply the batch size
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=inputs,  # type: ignore[arg-type]  # any sized sequence will do
            data_collator=collate,
            compute_loss_func=_loss,
            callbacks=[_Report(progress)] if progress else None,
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return TrainLog(losses, trainer.state.global_step, seconds)
