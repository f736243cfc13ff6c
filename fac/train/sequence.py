"""A causal LM with a linear head on the last token of a chat: what classifiers and reward models have in common.

How a data set becomes a loss is in `fac.train.classifier` and `fac.train.reward`. Needs peft and transformers' Trainer.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
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
)

from fac.backbone import check_length, load_config
from fac.errors import FacError
from fac.model_ref import ModelRef, default_device
from fac.model_weights import check_finite, check_whole, load_adapter, load_weights, quiet
from fac.train.checkpoints import FOLDER, keep_checkpoints
from fac.train.double import at_least_float32, in_double
from fac.train.record import load_record, save_record

Progress = Callable[[int, int], None]  # (optimizer steps done, steps in all)

HEAD = "score.safetensors"
WEIGHTS = "weights.safetensors"  # what modes "partial" and "full" trained
WHOLE = ("partial", "full")  # modes that train weights of the model itself
BATCH = 32  # chats per forward pass where nothing is trained
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class SequenceSettings:
    """How a model with a head is trained; a subclass gives its row of the paper's App. J as defaults.

    Optimizer: AdamW (0.9, 0.999, 1e-8), gradients clipped at norm 1, as the Trainer's defaults are.
    """

    MODES: ClassVar[tuple[str, ...]] = ("lora", "head")

    # "lora": adapters and head are trained; "head": the backbone is frozen; "partial": the last layers, final norm and
    # head are trained; "full": all weights are
    mode: str
    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    epochs: int
    learning_rate: float
    batch_size: int
    gradient_accumulation: int  # the effective batch is batch_size * gradient_accumulation
    max_tokens: int  # of a chat; what longer ones lose is the subclass's business
    schedule: str  # a name of transformers.SchedulerType
    warmup: float  # share of the steps, below 1
    weight_decay: float
    bf16: bool  # backbone and matrix products on a GPU; a CPU computes in float32
    float64: bool = False  # train and score in float64, so that the numbers come back elsewhere (`fac.train.double`)
    # Keep only what enters each layer and compute the rest again for the backward pass: much less memory, a third more
    # time, the same weights.
    gradient_checkpointing: bool = False

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, for store keys."""
        return deciding(self)

    def __post_init__(self) -> None:
        if self.mode not in self.MODES:
            raise FacError(
                f"mode={self.mode} will not do: a training is {', '.join(self.MODES[:-1])} or {self.MODES[-1]}."
            )
        object.__setattr__(self, "target_modules", tuple(self.target_modules))


def deciding(settings: Any) -> dict[str, Any]:
    """The settings of a training that decide its weights, with bf16 as it is on this machine."""
    unread = {"gradient_checkpointing"} | ({"layers"} if getattr(settings, "mode", "") != "partial" else set())
    decided = {name: value for name, value in asdict(settings).items() if name not in unread}
    return {**decided, "bf16": uses_bf16(settings)}


@dataclass(frozen=True)
class TrainLog:
    """What happened in one training run."""

    losses: list[float]  # mean loss of each optimizer step, in nats
    steps: int
    seconds: float  # wall time of the optimisation, without loading and saving, since it last went on


@dataclass(frozen=True)
class SequenceModel:
    """A trained model in memory, with what is needed to find its way back from disk."""

    NAME: ClassVar[str]  # of the kind: NAME.json is the record, `train_NAME` writes it
    LABELS: ClassVar[int]  # width of the head
    SETTINGS: ClassVar[type[SequenceSettings]]

    model: PreTrainedModel | PeftModel  # the backbone with its `score` head; PeftModel in mode "lora"
    tokenizer: PreTrainedTokenizerBase
    settings: Any  # of the type SETTINGS
    ref: ModelRef  # the model that was fine-tuned
    seed: int

    def logits(self, rows: Sequence[list[int]], batch_size: int) -> Tensor:
        """The head's outputs at the last token of each row of ids: [rows, LABELS], on the CPU."""
        network = network_of(self.model)
        return at_last_token(network, network.score, rows, batch_size)

    def save(self, folder: Path) -> None:
        """Write adapter (or head), tokenizer with its chat template, and the record NAME.json to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.model, PeftModel):
            self.model.save_pretrained(str(folder), save_embedding_layers=False)
        elif self.settings.mode in WHOLE:
            named = {id(held): name for name, held in self.model.named_parameters()}
            trained = trained_parameters(self.model, self.settings)
            save_file({named[id(held)]: held.detach().cpu().contiguous() for held in trained}, folder / WEIGHTS)
        else:
            save_model(network_of(self.model).score, str(folder / HEAD))
        self.tokenizer.save_pretrained(folder)
        save_record(folder / f"{self.NAME}.json", self.ref, self.seed, self.settings)

    @classmethod
    def load(cls, folder: Path, ref: ModelRef | None = None) -> Self:
        """Read what `save` wrote to `folder`.

        `ref` is the base model, if it is no longer where it was. Raises FacError if `folder` holds no model of this
        kind, or if the base model cannot be loaded or is another one.
        """
        file = folder / f"{cls.NAME}.json"
        if not file.is_file():
            raise FacError(f"There is no {file.name} in {folder}: give the folder that train_{cls.NAME} wrote.")
        ref, seed, values = load_record(file, ref)
        settings = cls.SETTINGS(**values)
        model = load_network(ref, settings, cls.LABELS)
        if settings.mode == "lora":
            model = load_adapter(model, folder, ref.path)
        else:
            file = folder / (WEIGHTS if settings.mode in WHOLE else HEAD)
            check_whole(file)
            check_finite(file)
            try:
                _load(model, settings, file)
            except RuntimeError as error:  # torch's word for shapes and names that differ
                reason = " ".join(str(error).split())[:200]
                raise FacError(
                    f"The {cls.NAME} model in {folder} does not fit {ref.path} ({reason}): give the model it was "
                    f"trained on."
                ) from None
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(model, tokenizer, settings, ref, seed)


def trained_count(folder: Path) -> int:
    """How many parameters a training of any mode trained, by what it left in `folder`."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count


# Models and tokens


def load_network(ref: ModelRef, settings: SequenceSettings, labels: int) -> Any:
    """The model with a new head of `labels` outputs in float32, on the GPU if there is one, in evaluation mode.

    Its weights have the dtype of `ref`; "auto" is bfloat16 on a GPU (with `bf16`), otherwise float32. A CPU computes in
    float32 with weights of any dtype.
    """
    config = load_config(ref)
    config.num_labels = labels
    network = load_weights(
        AutoModelForSequenceClassification, ref, config, new=("score.weight",), dtype=training_dtype(ref, settings)
    )
    network.config.use_cache = False
    if settings.float64:
        in_double(network)
    else:
        if not torch.cuda.is_available():
            network.float()
        network.score.float()
    return network.to(default_device()).eval()


def training_dtype(ref: ModelRef, settings: Any) -> str:
    """Of the frozen weights that are trained on top of, as they are loaded; `settings` say `bf16` and `float64`."""
    if ref.dtype != "auto":
        return ref.dtype
    return "bfloat16" if uses_bf16(settings) else "float32"


def uses_bf16(settings: Any) -> bool:
    """Whether matrix products are in bfloat16 on this machine."""
    return settings.bf16 and not settings.float64 and torch.cuda.is_available()


def with_adapters(network: Any, settings: SequenceSettings, pad: int) -> PeftModel:
    """`network` with new LoRA adapters, its head trained in full; `pad` is the id that no chat ends with."""
    network.config.pad_token_id = pad
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules),
        modules_to_save=["score"],
    )
    return get_peft_model(network, lora)  # type: ignore[return-value]


def opened(network: Any, settings: SequenceSettings, pad: int) -> Any:
    """`network` with the weights of modes "partial" and "full" open to training, in float32 at least; the rest frozen.

    `pad` is the id that no chat ends with.
    """
    network.config.pad_token_id = pad
    network.requires_grad_(False)
    for held in trained_parameters(network, settings):
        held.requires_grad_(True)
        held.data = at_least_float32(held.data)
    return network


def closed(network: Any, dtypes: Sequence[torch.dtype], settings: SequenceSettings) -> None:
    """Bring trained weights back to the `dtypes` that they had, in which the model is scored and loaded."""
    for held, dtype in zip(trained_parameters(network, settings), dtypes, strict=True):
        held.data = held.data.to(dtype)


def trained_parameters(network: Any, settings: SequenceSettings) -> list[nn.Parameter]:
    """What modes "partial" (the last layers, the final norm and the head) and "full" train."""
    if settings.mode == "full":
        return list(network.parameters())
    count, layers = getattr(settings, "layers", 1), network.base_model.layers
    if count > len(layers):
        raise FacError(f"layers={count} will not do: {network.config.name_or_path} has {len(layers)}.")
    parts = (*layers[len(layers) - count :], network.base_model.norm, network.score)
    return [held for part in parts for held in part.parameters()]


def _load(network: Any, settings: SequenceSettings, file: Path) -> None:
    """Read a head, or the weights of modes "partial" and "full". Raises RuntimeError for tensors that do not fit."""
    if settings.mode not in WHOLE:
        load_model(network.score, str(file))
        return
    stored = load_file(file)
    named = {id(held): name for name, held in network.named_parameters()}
    expected = {named[id(held)] for held in trained_parameters(network, settings)}
    if stored.keys() != expected:
        raise RuntimeError(f"{len(stored)} tensors are stored, {len(expected)} expected")
    network.load_state_dict(stored, strict=False)


def network_of(model: PreTrainedModel | PeftModel) -> Any:
    """The model with its head itself; peft injects its layers into it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
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


def pad_rows(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Rows of ids as one right-padded batch; two tensors [rows, longest]."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def at_last_token(network: Any, head: nn.Module, rows: Sequence[list[int]], batch_size: int) -> Tensor:
    """`head` of the backbone's output at the last token of each row: [rows, head's width], on the CPU.

    float32, or float64 if the network is.
    """
    network.eval()
    check_length(max(map(len, rows), default=0), network.config, network.config.name_or_path)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # the longest first: what does not fit fails at once
    parts = []
    for start in range(0, len(order), batch_size):
        batch = [rows[i] for i in order[start : start + batch_size]]
        inputs = {name: tensor.to(network.device) for name, tensor in pad_rows(batch, pad=0).items()}
        states = network.base_model(**inputs).last_hidden_state
        last = torch.tensor([len(row) - 1 for row in batch], device=network.device)
        parts.append(head(at_least_float32(states[torch.arange(len(batch), device=network.device), last])).cpu())
    return torch.cat(parts)[torch.tensor(order).argsort()]


# Optimisation


class Head(nn.Module):
    """The score head as a model of its own, fed with what the frozen backbone said."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        return {"logits": self.score(hidden)}


def collate_hidden(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Rows {"hidden": cached states, "label": int} as one batch for `Head`."""
    hidden = torch.stack([row["hidden"] for row in batch])
    return {"hidden": hidden, "labels": torch.tensor([row["label"] for row in batch])}


def cross_entropy(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Cross-entropy over two scores per item (logits [items, 2] or [items, 2, 1]), averaged over the effective batch.

    Given to the Trainer because the sequence classifiers of transformers 5.19 average over the micro-batch while the
    Trainer takes their loss for one that is averaged over the effective batch: gradients would be too large by the
    number of accumulation steps.
    """
    logits = at_least_float32(outputs["logits"]).reshape(len(labels), 2)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


@contextmanager
def training_arguments(settings: SequenceSettings, seed: int, folder: Path | None) -> Iterator[dict[str, Any]]:
    """What every Trainer is told: nothing is printed or reported.

    Checkpoints of a long training go to `folder` (None: to a scratch folder that goes with the context).
    """
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as scratch:
        yield {
            "output_dir": scratch if folder is None else str(folder / FOLDER),
            "num_train_epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": settings.schedule,
            "warmup_steps": settings.warmup,
            "weight_decay": settings.weight_decay,
            "per_device_train_batch_size": settings.batch_size,
            "gradient_accumulation_steps": settings.gradient_accumulation,
            "bf16": uses_bf16(settings),
            "use_cpu": not on_gpu,
            "gradient_checkpointing": settings.gradient_checkpointing and getattr(settings, "mode", "lora") != "head",
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "seed": seed,
            "logging_steps": 1,
            "save_strategy": "no",  # but see `keep_checkpoints`
            "save_total_limit": 1,
            "report_to": [],
            "disable_tqdm": True,
            "dataloader_pin_memory": on_gpu,
        }


def on_one_gpu(arguments: Any) -> Any:
    """The same TrainingArguments: DataParallel over all visible GPUs would multiply the batch size."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def train_head(
    model: nn.Module,
    inputs: list[dict[str, Any]],
    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
    settings: SequenceSettings,
    seed: int,
    progress: Progress | None,
    folder: Path | None = None,
    grouped: bool = False,
) -> TrainLog:
    """Train `model` in place on `inputs` by `cross_entropy`; `grouped` batches inputs of like length.

    With a `folder`, a long training that was stopped goes on from its last checkpoint there.
    """
    with training_arguments(settings, seed, folder) as told:
        sampling = "group_by_length" if grouped else "random"
        arguments = TrainingArguments(**told, remove_unused_columns=False, train_sampling_strategy=sampling)
        trainer = Trainer(
            model=model,
            args=on_one_gpu(arguments),
            train_dataset=inputs,  # type: ignore[arg-type]  # any sized sequence will do
            data_collator=collate,
            compute_loss_func=cross_entropy,
        )
        return run(trainer, progress)


def run(trainer: Trainer, progress: Progress | None) -> TrainLog:
    """Train, say how it went, and leave the model in evaluation mode."""
    trainer.remove_callback(PrinterCallback)
    if progress:
        trainer.add_callback(_Report(progress))
    checkpoint = keep_checkpoints(trainer)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    model: Any = trainer.model
    model.eval()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return TrainLog(losses, trainer.state.global_step, seconds)


class _Report(TrainerCallback):
    """Hands the Trainer's progress on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)
