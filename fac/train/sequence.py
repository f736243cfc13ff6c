"""A causal LM with a linear head on the last token of a chat: what classifiers and reward models have in common.

What it is trained on is said in `fac.train.classifier` and `fac.train.reward`, how in `fac.train.loop`. Needs peft.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fac.backbone import check_length, load_config
from fac.errors import FacError
from fac.model_ref import ModelRef, default_device
from fac.model_weights import check_finite, check_whole, load_adapter, load_weights, quiet
from fac.train.adapters import in_one_piece, merged
from fac.train.double import at_least_float32, in_double, norms_of_torch
from fac.train.loop import Progress, TrainLog, optimise
from fac.train.packing import parts, reader
from fac.train.record import load_record, save_record
from fac.train.settings import WHOLE, SequenceSettings, uses_bf16

HEAD = "score.safetensors"
WEIGHTS = "weights.safetensors"  # what modes "partial" and "full" trained

PASS_TOKENS = 2048  # of a forward pass where nothing is trained


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

    def logits(self, rows: Sequence[list[int]], tokens: int) -> Tensor:
        """The head's outputs at the last token of each row of ids: [rows, LABELS], on the CPU."""
        network = network_of(self.model)
        self.model.eval()
        with merged(self.model):
            return at_last_token(network, network.score, rows, tokens)

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
        elif settings.mode in ("lora", "head"):
            norms_of_torch(network)
        network.score.float()
    return network.to(default_device()).eval()


def training_dtype(ref: ModelRef, settings: Any) -> str:
    """Of the frozen weights that are trained on top of, as they are loaded; `settings` say `bf16` and `float64`."""
    if ref.dtype != "auto":
        return ref.dtype
    return "bfloat16" if uses_bf16(settings) else "float32"


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


@torch.no_grad()
def at_last_token(network: Any, head: nn.Module, rows: Sequence[list[int]], tokens: int = PASS_TOKENS) -> Tensor:
    """`head` of the backbone's output at the last token of each row: [rows, head's width], on the CPU.

    float32, or float64 if the network is. A forward pass has at most so many tokens, in rows of similar length.
    """
    network.eval()
    lengths = [len(row) for row in rows]
    check_length(max(lengths, default=0), network.config, network.config.name_or_path)
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])  # the longest first: what does not fit fails at once
    with reader(network) as read:
        found = [head(at_least_float32(read([rows[i] for i in part]))).cpu() for part in parts(order, lengths, tokens)]
    return torch.cat(found)[torch.tensor(order).argsort()]


# Optimisation


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy over two scores per item: logits [items, 2], labels [items]. In float32 at least."""
    return nn.functional.cross_entropy(at_least_float32(logits), labels, reduction="sum")


def train_head(
    score: nn.Module,
    hidden: Tensor,
    labels: Sequence[int],
    settings: SequenceSettings,
    seed: int,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> TrainLog:
    """Train a head in place on what a frozen backbone said: `hidden` [items, width] or, of pairs, [items, 2, width].

    With a `folder`, a long training that was stopped goes on from its last checkpoint there.
    """
    trained = list(score.parameters())
    hidden, wanted = hidden.to(trained[0].device), torch.tensor(labels, device=trained[0].device)

    def losses(batch: list[int]) -> Iterator[Tensor]:
        yield cross_entropy(score(hidden[batch]).reshape(len(batch), 2), wanted[batch]) / len(batch)

    return optimise(trained, losses, [1] * len(labels), settings, seed, progress, folder)


def train_network(
    model: PreTrainedModel | PeftModel,
    items: Sequence[Sequence[list[int]]],
    labels: Sequence[int],
    settings: SequenceSettings,
    seed: int,
    progress: Progress | None = None,
    folder: Path | None = None,
    grouped: bool = False,
) -> TrainLog:
    """Train a model with its head in place, by cross-entropy over the two scores of each item.

    An item is one row of ids with two scores, or two rows with one score each; `grouped` batches items of like length.
    Rows share lines without padding (`fac.train.packing`), and an optimizer step is one forward pass if its rows have
    no more than `pass_tokens`. With a `folder`, a long training that was stopped goes on from its last checkpoint.
    """
    network = network_of(model)
    lengths, wanted = [sum(map(len, item)) for item in items], torch.tensor(labels, device=network.device)
    check_length(max(len(row) for item in items for row in item), network.config, network.config.name_or_path)
    read = reader(network)

    def losses(batch: list[int]) -> Iterator[Tensor]:
        longest_first = sorted(batch, key=lambda item: -lengths[item])
        for part in parts(longest_first, lengths, settings.pass_tokens):
            with _products(network, settings):
                states = read([row for item in part for row in items[item]])
            logits = network.score(at_least_float32(states)).reshape(len(part), 2)
            yield cross_entropy(logits, wanted[part]) / len(batch)

    with _in_training(model, settings), read:
        trained = [held for held in model.parameters() if held.requires_grad]
        return optimise(trained, losses, lengths, settings, seed, progress, folder, grouped)


@contextmanager
def _in_training(model: Any, settings: SequenceSettings) -> Iterator[None]:
    """The model in training mode, and after it in evaluation mode."""
    network = network_of(model)
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    with in_one_piece(model) if _plain_products(network, settings) else nullcontext():
        yield
    model.eval()
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_disable()


def _plain_products(network: Any, settings: SequenceSettings) -> bool:
    """Whether all is computed in the dtype of the frozen weights, without autocast."""
    return settings.mode == "lora" and (network.dtype == torch.bfloat16 or not uses_bf16(settings))


def _products(network: Any, settings: SequenceSettings) -> Any:
    """Where weights in float32 are trained, or are under adapters, products are in bfloat16 by autocast."""
    on = uses_bf16(settings) and not _plain_products(network, settings)
    return torch.autocast(network.device.type, torch.bfloat16, enabled=on)
