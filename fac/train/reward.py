"""Reward models (paper App. J): a causal LM with a one-score head, fine-tuned on preference pairs by Bradley-Terry.

How a model with a head is trained and kept is in `fac.train.sequence`, the
benchmark in `eval.reward`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed

from fac.backbone import load_tokenizer
from fac.chat import Message
from fac.data.example_set import load_examples
from fac.data.pairs import Pair
from fac.data.schemas import PAIR
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.checkpoints import remove_checkpoints
from fac.train.sequence import (
    PASS_TOKENS,
    Progress,
    SequenceModel,
    TrainLog,
    at_last_token,
    load_network,
    pad_id,
    train_head,
    train_network,
    with_adapters,
)
from fac.train.settings import RewardSettings, SequenceSettings
from fac.train.tokens import ids_of


@dataclass(frozen=True)
class RewardModel(SequenceModel):
    """A trained reward model in memory, made by `fit_reward` or `load_reward`."""

    NAME: ClassVar[str] = "reward"
    LABELS: ClassVar[int] = 1
    SETTINGS: ClassVar[type[SequenceSettings]] = RewardSettings

    settings: RewardSettings

    def rewards(self, chats: Sequence[Sequence[Message]], tokens: int = PASS_TOKENS) -> NDArray[np.float32]:
        """The score of each chat, which ends with the reply that is judged; shape [n], float32, without a scale.

        Only differences between replies to one conversation mean something: their sigmoid is the probability that the
        first is preferred. Chats lose their start as in training. A forward pass has at most `tokens` tokens, in
        chats of similar length: how many changes a score by float rounding only.
        """
        if not chats:
            return np.zeros(0, dtype=np.float32)
        return self.logits(_token_rows(self.tokenizer, chats, self.settings.max_tokens), tokens)[:, 0].numpy()


def train_reward(
    ref: ModelRef,
    pairs: Sequence[Pair],
    settings: RewardSettings,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> TrainLog:
    """`fit_reward`, then save to `folder`, from where `load_reward` reads.

    A long training that was stopped goes on from the checkpoint that it left in `folder`.
    """
    model, log = fit_reward(ref, pairs, settings, seed, progress, folder)
    model.save(folder)
    remove_checkpoints(folder)
    return log


def fit_reward(
    ref: ModelRef,
    pairs: Sequence[Pair],
    settings: RewardSettings,
    seed: int,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> tuple[RewardModel, TrainLog]:
    """Fine-tune the causal LM `ref` to score chosen replies above rejected ones.

    The loss is Bradley-Terry's -log sigmoid(r(chosen) - r(rejected)) (paper App. J). `seed` sets the head, the
    adapters, the dropout and the order of the pairs: on a CPU the same seed gives the same bits. It seeds the global
    generators of random, numpy and torch. Raises FacError if there are no pairs, or if the model cannot be loaded or
    has no chat template. Checkpoints go to `folder`, if it is given.
    """
    if not pairs:
        raise FacError("A reward model needs preference pairs, but the training set has none: add seed data.")
    tokenizer = load_tokenizer(ref)
    chats = [chat for pair in pairs for chat in (pair.chosen_chat, pair.rejected_chat)]
    rows = _token_rows(tokenizer, chats, settings.max_tokens)
    set_seed(seed)
    network = load_network(ref, settings, RewardModel.LABELS)
    # Bradley-Terry is cross-entropy over the two rewards of a pair, of which the first (label 0) is chosen.
    labels = [0] * len(pairs)
    if settings.mode == "lora":
        model = with_adapters(network, settings, pad_id(tokenizer))
        items = [rows[first : first + 2] for first in range(0, len(rows), 2)]
        log = train_network(model, items, labels, settings, seed, progress, folder)
    else:
        # A frozen backbone without dropout answers the same in every epoch: it runs once, the head trains on that.
        model = network
        hidden = at_last_token(network, nn.Identity(), rows).unflatten(0, (len(pairs), 2))
        log = train_head(network.score, hidden, labels, settings, seed, progress, folder)
    return RewardModel(model, tokenizer, settings, ref.lasting, seed), log


def load_reward(folder: Path, ref: ModelRef | None = None) -> RewardModel:
    """Read what `train_reward` wrote to `folder`.

    `ref` is the base model, if it is no longer where it was. Raises FacError if `folder` holds no
    reward model, or if the base model cannot be loaded or is another one.
    """
    return RewardModel.load(folder, ref)


def rows_of(tokenizer: PreTrainedTokenizerBase, folder: Path, settings: SequenceSettings) -> list[list[int]]:
    """Ids of the chosen and rejected chats of pairs, in turn, as they are trained on."""
    pairs = load_examples(PAIR, [folder])
    chats = [chat for pair in pairs for chat in (pair.chosen_chat, pair.rejected_chat)]
    return _token_rows(tokenizer, chats, settings.max_tokens)


def _token_rows(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Message]], max_tokens: int
) -> list[list[int]]:
    """Ids of each chat, cut on the left: the reply at the end is what is judged. BOS stays."""
    rows = []
    for ids in ids_of(tokenizer, chats):
        kept = 1 if ids[0] == tokenizer.bos_token_id else 0
        excess = max(len(ids) - max_tokens, 0)
        rows.append(ids[:kept] + ids[kept + excess :])
    return rows
