"""Toxicity classifiers (paper App. J): a causal LM with a two-class head, fine-tuned.

By LoRA, by its head alone, or (Fig. 12) by its last layers or all its weights.

How a model with a head is trained and kept is in `fac.train.sequence`, metrics are in `eval.classification`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed

from fac.backbone import load_tokenizer
from fac.chat import Message
from fac.data.corpus import Corpus
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.checkpoints import remove_checkpoints
from fac.train.sequence import (
    PASS_TOKENS,
    Progress,
    SequenceModel,
    TrainLog,
    at_last_token,
    closed,
    load_network,
    opened,
    pad_id,
    train_head,
    train_network,
    trained_parameters,
    with_adapters,
)
from fac.train.settings import WHOLE, ClassifierSettings, SequenceSettings
from fac.train.tokens import ids_of

Example = tuple[Sequence[Message], int]  # a chat and its class: 1 is the class that `Classifier.scores` is about


@dataclass(frozen=True)
class Classifier(SequenceModel):
    """A trained classifier in memory, made by `fit_classifier` or `load_classifier`."""

    NAME: ClassVar[str] = "classifier"
    LABELS: ClassVar[int] = 2
    SETTINGS: ClassVar[type[SequenceSettings]] = ClassifierSettings

    settings: ClassifierSettings

    def scores(
        self, chats: Sequence[Sequence[Message]], tokens: int = PASS_TOKENS, max_tokens: int | None = None
    ) -> NDArray[np.float32]:
        """Softmax probability of class 1 for each chat; shape [n], float32.

        Chats are cut on the right at `max_tokens` (default: as in training). A forward pass has at most
        `tokens` tokens, in chats of similar length: how many changes a score by float rounding only.
        """
        if not chats:
            return np.zeros(0, dtype=np.float32)
        limit = self.settings.max_tokens if max_tokens is None else max_tokens
        return of_class_1(self.logits(_token_rows(self.tokenizer, chats, limit), tokens))


def of_class_1(logits: torch.Tensor) -> NDArray[np.float32]:
    """Softmax probability of class 1, [n], of logits [n, 2]."""
    return torch.softmax(logits, dim=-1)[:, 1].numpy()


def train_classifier(
    ref: ModelRef,
    examples: Sequence[Example],
    settings: ClassifierSettings,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> TrainLog:
    """`fit_classifier`, then save to `folder`, from where `load_classifier` reads.

    A long training that was stopped goes on from the checkpoint that it left in `folder`.
    """
    classifier, log = fit_classifier(ref, examples, settings, seed, progress, folder)
    classifier.save(folder)
    remove_checkpoints(folder)
    return log


def fit_classifier(
    ref: ModelRef,
    examples: Sequence[Example],
    settings: ClassifierSettings,
    seed: int,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> tuple[Classifier, TrainLog]:
    """Fine-tune the causal LM `ref` to tell class 1 from class 0.

    `seed` sets the head, the adapters, the dropout and the order of the data: on a CPU the same seed gives the same
    bits. It seeds the global generators of random, numpy and torch. Raises FacError if there are no examples or only
    one class, or if the model cannot be loaded or has no chat template. Checkpoints go to `folder`, if it is given.
    """
    labels = [label for _, label in examples]
    check_classes(labels)
    tokenizer = load_tokenizer(ref)
    rows = _token_rows(tokenizer, [chat for chat, _ in examples], settings.max_tokens)
    set_seed(seed)
    network = load_network(ref, settings, Classifier.LABELS)
    if settings.mode != "head":
        pad = pad_id(tokenizer)
        whole = settings.mode in WHOLE
        dtypes = [held.dtype for held in trained_parameters(network, settings)] if whole else []
        model = opened(network, settings, pad) if whole else with_adapters(network, settings, pad)
        items = [[ids] for ids in rows]
        log = train_network(model, items, labels, settings, seed, progress, folder, settings.group_by_length)
        if whole:
            closed(network, dtypes, settings)
    else:
        # A frozen backbone without dropout answers the same in every epoch: it runs once, the head trains on that.
        model = network
        hidden = at_last_token(network, nn.Identity(), rows)
        log = train_head(network.score, hidden, labels, settings, seed, progress, folder)
    return Classifier(model, tokenizer, settings, ref.lasting, seed), log


def check_classes(labels: Sequence[int]) -> None:
    """Raise FacError unless there are examples of both classes."""
    if set(labels) != {0, 1}:
        found = f"only class {labels[0]}" if len(set(labels)) == 1 else f"the classes {sorted(set(labels))}"
        raise FacError(
            f"A classifier needs examples of classes 0 and 1, but the training set of {len(labels)} has "
            f"{found if labels else 'none'}: add seed data or synthetic samples of what is missing."
        )


def load_classifier(folder: Path, ref: ModelRef | None = None) -> Classifier:
    """Read what `train_classifier` wrote to `folder`.

    `ref` is the base model, if it is no longer where it was. Raises FacError if `folder` holds no
    classifier, or if the base model cannot be loaded or is another one.
    """
    return Classifier.load(folder, ref)


def rows_of(tokenizer: PreTrainedTokenizerBase, folder: Path, settings: SequenceSettings) -> list[list[int]]:
    """Ids of the texts of a corpus, as they are trained on."""
    return _token_rows(tokenizer, [example.messages for example in Corpus.load(folder)], settings.max_tokens)


def _token_rows(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Message]], max_tokens: int
) -> list[list[int]]:
    return [ids[:max_tokens] for ids in ids_of(tokenizer, chats)]
