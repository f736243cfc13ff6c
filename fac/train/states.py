"""What a frozen model says of examples, kept: a head is trained and tested on that, whatever else is trained on it.

A linear head alone sees nothing of a text but the model's last state at its last token. So that state is a step of its
own: a table of many rows and seeds runs the model once over the test and once over each text, which on a CPU is nearly
all of its time (`kept_states`). Loss, optimizer and order of the data are those of `fac.train.sequence`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed

from fac.backbone import load_tokenizer
from fac.model_ref import ModelRef
from fac.store import RECORD, Step
from fac.train.checkpoints import remove_checkpoints
from fac.train.sequence import HEAD, TrainLog, at_last_token, load_network, train_head, training_dtype
from fac.train.settings import SequenceSettings

STATES = "states.npy"
Rows = Callable[[PreTrainedTokenizerBase, Path, SequenceSettings], Sequence[list[int]]]
"""Ids of the rows of a set of examples, in its folder, as they are trained on."""


def states_step(model: ModelRef, settings: SequenceSettings, rows: Rows, of: str, examples: Step) -> Step:
    """The examples with the model's last state at the last token of each of their rows (`load_states`).

    `of` names what `rows` does. The folder holds all that the examples' own does.
    """
    params = {
        "model": model,
        "of": of,
        "max_tokens": settings.max_tokens,
        "dtype": training_dtype(model, settings),
        "float64": settings.float64,
    }
    return Step("states", partial(_measure, model, settings, rows), params, (examples,))


def _measure(model: ModelRef, settings: SequenceSettings, rows: Rows, folder: Path, examples: Path) -> None:
    for file in examples.iterdir():
        if file.name != RECORD:  # the store's own
            shutil.copyfile(file, folder / file.name)
    ids = rows(load_tokenizer(model), examples, settings)
    states = at_last_token(load_network(model, settings, 1), nn.Identity(), ids) if ids else torch.zeros(0, 0)
    np.save(folder / STATES, states.numpy())


def load_parts(folders: Sequence[Path]) -> torch.Tensor:
    """What `states_step` wrote, one set after the other: float32 or float64 [rows, width]."""
    parts = [np.load(folder / STATES) for folder in folders]
    return torch.from_numpy(np.concatenate([part for part in parts if len(part)]))


def train_on_states(
    states: torch.Tensor, labels: Sequence[int], outputs: int, settings: SequenceSettings, seed: int, folder: Path
) -> TrainLog:
    """Train a new head of `outputs` scores on states [items, width] or, of pairs, [items, 2, width], and save it.

    The seed sets the head and the order of the data.
    """
    set_seed(seed)
    score = nn.Linear(states.shape[-1], outputs, bias=False, dtype=states.dtype)
    nn.init.normal_(score.weight, std=0.02)  # as transformers begins one
    log = train_head(score, states, labels, settings, seed, None, folder)
    save_file({"weight": score.weight.detach().cpu().contiguous()}, folder / HEAD)
    remove_checkpoints(folder)
    return log


def scores_of_states(folder: Path, states: torch.Tensor) -> torch.Tensor:
    """What the head in `folder` says of states [rows, width]: [rows, outputs]."""
    return states @ load_file(folder / HEAD)["weight"].T
