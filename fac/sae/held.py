"""The residuals of a corpus on disk, each text measured once: what an SAE learns from in many passes on a CPU.

There the model's layers cost more than a step of a small SAE: twelve passes that are streamed would be twelve times the
time. 4 bytes x d_model a token: half a gigabyte for 240,000 tokens of a model of width 576. A killed measuring goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fac.backbone import Backbone
from fac.chat import Message
from fac.errors import FacError
from fac.jsonl import write_json_atomic
from fac.sae.load import Chats, content_residual

ROWS, PROGRESS = "residuals.f32", "residuals.json"
_WINDOW = 256  # texts between two records of the progress
_BATCH = 16  # chats of like length that go through the model together


def measure(backbone: Backbone, chats: Chats, total: int, max_tokens: int, folder: Path) -> NDArray[np.float32]:
    """The residuals [tokens, d_model] of the content tokens of all chats, a memory map of a file in `folder`.

    Rows are in the order of the chats by windows, and by length in each: to be drawn from at random. What a killed call
    left in `folder` is kept. Raises FacError if the chats have no content.
    """
    file, width = folder / ROWS, backbone.d_model
    chat_count, rows = _done(folder)
    with file.open("ab") as stream, tqdm(total=total, initial=chat_count, desc="residuals", unit="text") as bar:
        stream.truncate(rows * width * 4)  # what a killed window began
        for window in _windows(islice(chats(), chat_count, None)):
            by_length = sorted(window, key=lambda chat: sum(len(message["content"]) for message in chat))
            for start in range(0, len(window), _BATCH):
                residual = content_residual(backbone, by_length[start : start + _BATCH], max_tokens)
                stream.write(residual.cpu().numpy().tobytes())
                rows += len(residual)
            stream.flush()
            chat_count += len(window)
            write_json_atomic(folder / PROGRESS, {"chats": chat_count, "rows": rows})
            bar.update(len(window))
    if not rows:
        raise FacError("There are no texts to train the SAE on: name a data set with texts.")
    return np.memmap(file, np.float32, "r", shape=(rows, width))


def _done(folder: Path) -> tuple[int, int]:
    if not (folder / PROGRESS).is_file():
        return 0, 0
    told = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    return int(told["chats"]), int(told["rows"])


def _windows(chats: Iterator[Sequence[Message]]) -> Iterator[list[Sequence[Message]]]:
    while window := list(islice(chats, _WINDOW)):
        yield window


def batches(rows: NDArray[np.float32], size: int, seed: int, first: int = 0) -> Iterator[torch.Tensor]:
    """Endless batches [size, d_model] from the `first` on: one order of all rows after the other, drawn by the seed."""
    place, order, epoch = first * size, np.zeros(0, np.int64), -1
    while True:
        picked: list[NDArray[np.int64]] = []
        while (left := size - sum(map(len, picked))) > 0:
            if epoch != place // len(rows):
                epoch = place // len(rows)
                order = np.random.default_rng((seed, epoch)).permutation(len(rows))
            start = place % len(rows)
            picked.append(order[start : start + left])
            place += len(picked[-1])
        yield torch.from_numpy(rows[np.concatenate(picked)])


def tidy(folder: Path) -> None:
    """Drop what `measure` wrote."""
    for name in (ROWS, PROGRESS):
        (folder / name).unlink(missing_ok=True)
