"""Steering vectors: Contrastive Activation Addition (CAA, Rimsky et al. 2024; paper 4.4, 4.5, App. J).

A vector is read from pairs and added to a running model, which then answers at an open "(". Metrics are in
`eval.steering`, files of questions in `fac.data.choices`.

Layers are named as in `fac.backbone`: layer 13 is the output of `model.layers[12]`, the released script's layer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from fac.backbone import Backbone, decoder_layers, positions_of
from fac.chat import Message, as_chat, encode
from fac.data.choices import Choice
from fac.errors import FacError
from fac.train.settings import Positions

SENTENCES = (  # whose residuals say how long a residual is
    "What is the best way to learn a new language?",
    "Write a short story about a dog who finds its way home through the snow.",
    "Can you explain how a sorting algorithm works, step by step?",
    "My neighbor plays loud music every night. What can I do about it?",
)
OPEN = "("  # how the assistant's turn begins; the next token is the letter
DIRECTION, RECORD = "direction.safetensors", "vector.json"


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction in the residual stream after one layer; its length counts."""

    direction: Tensor  # [hidden], float32, on the CPU
    layer: int  # as the paper counts: the output of model.layers[layer - 1]
    behavior: str
    method: str  # "answer": read at the answer's letter | "prompt": at the end of prompts that differ
    pairs: int
    model: str  # identity of the model that it was read from

    @property
    def norm(self) -> float:
        return float(self.direction.double().norm())

    def with_norm(self, norm: float) -> SteeringVector:
        """The same direction, `norm` long. Raises FacError for a vector of length 0."""
        if not self.norm > 0:
            raise FacError(f"The vector of {self.behavior} has length 0: its pairs do not differ, give others.")
        return replace(self, direction=(self.direction.double() * (norm / self.norm)).float())

    def save(self, folder: Path) -> None:
        """Write `direction.safetensors` and `vector.json` to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"direction": self.direction}, folder / DIRECTION)
        record = {key: value for key, value in vars(self).items() if key != "direction"}
        (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> SteeringVector:
        """Read what `save` wrote. Raises FacError if `folder` holds no vector."""
        if not ((folder / RECORD).is_file() and (folder / DIRECTION).is_file()):
            raise FacError(f"There is no steering vector in {folder}: give a folder that holds {RECORD}.")
        return cls(load_file(folder / DIRECTION)["direction"], **json.loads((folder / RECORD).read_text()))


def equalise(vectors: Sequence[SteeringVector]) -> list[SteeringVector]:
    """All vectors at their mean norm, so that a multiplier means the same for every behaviour (paper 4.5).

    Raises FacError for a vector of length 0.
    """
    mean = math.fsum(vector.norm for vector in vectors) / len(vectors)
    return [vector.with_norm(mean) for vector in vectors]


def residual_norm(backbone: Backbone) -> float:
    """Mean length of the residual after the backbone's layer, over the content of a few plain sentences.

    It depends on the model and the layer alone, so vectors as long as a share of it are of one length whatever pairs
    they were read from: an average over more pairs is shorter, and SCR would compare doses.
    """
    lengths = []
    for sentence in SENTENCES:
        encoded = encode(backbone.tokenizer, as_chat(sentence))
        residual = backbone.residual([encoded.ids])[0]
        lengths += residual[torch.tensor(encoded.content, device=residual.device)].double().norm(dim=-1).tolist()
    return math.fsum(lengths) / len(lengths)


# Reading vectors


def caa_vector(backbone: Backbone, items: Sequence[Choice], behavior: str, batch_size: int = 8) -> SteeringVector:
    """Mean over `items` of residual(matching answer) - residual(other answer), read at the answer's letter.

    The turn is open at the letter, as in CAA; the released script reads at the end-of-turn token after it.
    """
    letters = letter_ids(backbone.tokenizer, items)
    prompts = [open_answer(backbone.tokenizer, item).ids for item in items]
    positive, negative = (
        [[*ids, letters[which(item)]] for ids, item in zip(prompts, items, strict=True)]
        for which in (lambda item: item.matching, lambda item: item.other)
    )
    direction = mean_difference(backbone, positive, negative, batch_size)
    return SteeringVector(direction, backbone.layer, behavior, "answer", len(items), backbone.ref.identity())


def prompt_vector(
    backbone: Backbone,
    pairs: Sequence[tuple[Sequence[Message], Sequence[Message]]],
    behavior: str,
    batch_size: int = 8,
) -> SteeringVector:
    """Mean over (positive, negative) chats of the difference at the last token of the prompt.

    For chats whose prompts differ, such as in a cue before the question: no letter can leak into the vector.
    """
    positive, negative = (
        [encode(backbone.tokenizer, pair[side], add_generation_prompt=True).ids for pair in pairs] for side in (0, 1)
    )
    direction = mean_difference(backbone, positive, negative, batch_size)
    return SteeringVector(direction, backbone.layer, behavior, "prompt", len(pairs), backbone.ref.identity())


def mean_difference(
    backbone: Backbone, positive: Sequence[Sequence[int]], negative: Sequence[Sequence[int]], batch_size: int
) -> Tensor:
    """Mean residual at the last token of the positive rows of ids, less that of the negative rows: float32 [hidden].

    Raises FacError if there is no row.
    """
    if not positive or not negative:
        raise FacError("A steering vector needs at least one pair: give more items.")
    return (_mean_at_last(backbone, positive, batch_size) - _mean_at_last(backbone, negative, batch_size)).float()


def _mean_at_last(backbone: Backbone, rows: Sequence[Sequence[int]], batch_size: int) -> Tensor:
    """Sums in float64: the difference of two means is much smaller than they are."""
    total = torch.zeros(backbone.d_model, dtype=torch.float64)
    for picked in _batches(rows, batch_size):
        residual = backbone.residual([rows[i] for i in picked])
        last = torch.tensor([len(rows[i]) - 1 for i in picked], device=residual.device)
        total += residual[torch.arange(len(picked), device=residual.device), last].double().sum(dim=0).cpu()
    return total / len(rows)


# Steering


@contextmanager
def steered(model: nn.Module, vector: SteeringVector, multiplier: float, where: Tensor | None = None) -> Iterator[None]:
    """Within the context, `multiplier` times the vector is added to the output of its layer in every forward pass.

    `where` [batch, positions] is true where it is added (None: everywhere); it must fit every forward pass. Raises
    FacError if the model has no such layer or another width.
    """
    config: Any = model.config
    text = config.get_text_config()
    name, width, depth = config.name_or_path, text.hidden_size, text.num_hidden_layers
    if not 1 <= vector.layer <= depth or vector.direction.shape != (width,):
        raise FacError(
            f"A vector of width {len(vector.direction)} for layer {vector.layer} does not fit {name}, which has "
            f"{depth} layers of width {width}: use the model it was read from, {vector.model}."
        )
    shift = multiplier * vector.direction

    def add(_module: nn.Module, _args: Any, out: Any) -> Any:
        hidden = out[0] if isinstance(out, tuple) else out
        moved = shift.to(hidden)
        if where is not None:
            moved = where.to(hidden)[..., None] * moved
        return (hidden + moved, *out[1:]) if isinstance(out, tuple) else hidden + moved

    hook = decoder_layers(model, depth, name)[vector.layer - 1].register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


# Answers at an open "("


class OpenAnswer(NamedTuple):
    """A question with the assistant's turn begun."""

    ids: list[int]  # the last token is the open "("
    after: int  # position of the first token after the user's words


class LetterProbabilities(NamedTuple):
    """What a model would answer. Float64."""

    p: NDArray[np.float64]  # [items, most options]: softmax over the item's own letters; 0 where it has no such letter
    mass: NDArray[np.float64]  # [items]: probability of all its letters together, among all tokens


def open_answer(tokenizer: PreTrainedTokenizerBase, item: Choice) -> OpenAnswer:
    """The ids of a question up to "(", where the next token is the letter. (The released script closes the turn.)"""
    chat = as_chat(item.text)
    content = encode(tokenizer, chat).content
    turn = [*chat, {"role": "assistant", "content": OPEN}]
    ids = encode(tokenizer, turn, continue_final_message=True).ids
    return OpenAnswer(ids, len(content) - content[::-1].index(True))


def fits(tokenizer: PreTrainedTokenizerBase, item: Choice, positions: int | None) -> bool:
    """Whether a question, in both orders and with its letter, is no longer than a model of so many positions reads."""
    return positions is None or all(
        len(open_answer(tokenizer, order).ids) < positions for order in (item, item.swapped())
    )


def letter_ids(tokenizer: PreTrainedTokenizerBase, items: Sequence[Choice]) -> list[int]:
    """Token ids of the letters A, B, ... as they follow "(", as many as any item has.

    They are looked up, since many tokenizers have a token for "(A" that an open "(" cannot become. Raises FacError if a
    letter is no token.
    """
    letters = max((item.letters for item in items), key=len, default="")
    vocabulary = tokenizer.get_vocab()
    missing = [letter for letter in letters if letter not in vocabulary]
    if missing:
        raise FacError(
            f"The tokenizer of {tokenizer.name_or_path} has no token for the letter {missing[0]}: "
            f"leave out questions with so many options, or use another model."
        )
    return [vocabulary[letter] for letter in letters]


@torch.inference_mode()
def letter_probabilities(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Choice],
    vector: SteeringVector | None = None,
    multiplier: float = 0.0,
    positions: Positions = "all",
    batch_size: int = 8,
) -> LetterProbabilities:
    """Probabilities of the letters right after the open "(", with `multiplier` times `vector` added at `positions`.

    Rows are padded on the right, where a causal model does not look: the batch size changes float rounding only.
    Raises FacError for questions that are longer than the model has positions for.
    """
    letters = torch.tensor(letter_ids(tokenizer, items))
    opened = [open_answer(tokenizer, item) for item in items]
    most = positions_of(model.config)
    if most is not None and (long := sum(len(answer.ids) > most for answer in opened)):
        raise FacError(
            f"{long} of {len(items)} questions are longer than the {most} positions of "
            f"{tokenizer.name_or_path}: leave them out, or use a model that reads more."
        )
    p, mass = np.zeros((len(items), len(letters))), np.zeros(len(items))
    for picked in _batches([answer.ids for answer in opened], batch_size):
        rows = [torch.tensor(opened[i].ids) for i in picked]
        ids = pad_sequence(rows, batch_first=True).to(model.device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(model.device)
        where = None
        if positions == "after_prompt":
            after = torch.tensor([opened[i].after for i in picked], device=model.device)
            where = torch.arange(ids.shape[1], device=model.device) >= after[:, None]
        last = torch.tensor([len(row) - 1 for row in rows], device=model.device)
        kept, place = last.unique(return_inverse=True)  # logits of the whole batch would not fit
        with nullcontext() if vector is None else steered(model, vector, multiplier, where):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
        open_logits = logits[torch.arange(len(picked), device=place.device), place].double()
        scores = open_logits.log_softmax(dim=-1).cpu()[:, letters]
        for i, row in zip(picked, scores, strict=True):
            own = row[: len(items[i].options)]
            p[i, : len(own)], mass[i] = own.softmax(dim=0).numpy(), float(own.exp().sum())
    return LetterProbabilities(p, mass)


def _batches(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of rows of similar length; the longest first, so that what does not fit fails at once."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
