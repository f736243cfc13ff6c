"""Train a Top-K SAE as the paper's authors did (paper §4.2; `train_SAEs_TopK7.py` of the parent project SelfReg).

    pre = (x - b_dec) W + b_enc;   z = ReLU(Top-K(pre));   x' = z W^T + b_dec;   loss = mean |x' - x|^2 / |x|^2

Why not sae-lens' trainer (6.54), as `fac.sae.lens`: its Top-K SAE has no tied weights, its K cannot be annealed, its
batches are tokens without gradient accumulation (512 sequences at 65,536 features would take tens of GB), its loss is
not normalised, its gradients are clipped, and Adam's eps cannot be set. What it has is used: the saved SAE is its own.

Where the released code caches 2.5 TB of activations, they are computed as they are needed and dropped, and where it has
one sequence per backward pass, sequences go together under a token budget: the gradient is the same. Its GradScaler is
left out, since bf16 needs none. It reads the cached files in shuffled groups of 256 texts; here every text is shuffled.

A killed training continues: nothing is random but the start and each epoch's order, both decided by the seed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from fac.backbone import Backbone
from fac.chat import Message
from fac.errors import FacError
from fac.jsonl import write_json_atomic
from fac.sae.checkpoint import save_tied
from fac.sae.hooks import hook_name
from fac.sae.load import model_name, write_record
from fac.sae.quality import Rows, Tally, token_rows
from fac.sae.ref import RECORD
from fac.sae.settings import CURVE, OnStep, RecipeSettings

DEAD_AFTER = 100  # steps without firing, after which a feature counts as dead
_CHECKPOINT = "checkpoint.pt"


class TiedTopK(nn.Module):
    """The SAE in training; W is both encoder and, transposed, decoder."""

    def __init__(self, d_in: int, width: int, seed: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(d_in, width))
        # Kaiming [P]: normal, fan_out, which for a matrix of this layout is d_in [C]
        generator = torch.Generator().manual_seed(seed)
        nn.init.kaiming_normal_(self.W, mode="fan_out", nonlinearity="relu", generator=generator)
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def forward(self, x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(values [tokens, k], their features [tokens, k], reconstruction [tokens, d_in]) of x [tokens, d_in]."""
        pre = (x - self.b_dec) @ self.W + self.b_enc
        values, features = pre.topk(k, dim=1, sorted=False)
        values = values.relu()
        activations = torch.zeros_like(pre).scatter(1, features, values)
        return values, features, activations @ self.W.T + self.b_dec


def train(
    backbone: Backbone,
    chat_at: Callable[[int], Sequence[Message]],
    count: int,
    settings: RecipeSettings,
    folder: Path,
    on_step: OnStep | None = None,
) -> None:
    """Train on the chats `chat_at(0..count - 1)` and save to `folder`: SAELens' inference format, fac.json, curve.json.

    A killed training, called again with the same folder, continues from its last checkpoint there, and calls `on_step`
    for the steps before it once more. A folder that holds a finished SAE is left as it is. `on_step` gets l2 (the
    loss), explained_variance, l0, k, dead_features and tokens_per_second of each step. Raises FacError if there are too
    few texts.
    """
    if (folder / RECORD).exists():  # killed after the last word
        _tidy(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    total = settings.epochs * count // settings.batch_size
    if total < settings.anneal_steps or not total:
        raise FacError(
            f"{count} texts make {total} steps (sae.train.epochs x texts / sae.train.batch_size), too few for K to "
            f"fall to {settings.k}: give more texts, or lower sae.train.anneal_steps or sae.train.batch_size."
        )
    run = _Run(backbone, settings, folder / _CHECKPOINT)
    notify = on_step or (lambda step, measured: None)
    for step, measured in enumerate(run.curve, start=1):
        notify(step, measured)
    with tqdm(total=total, initial=len(run.curve), desc="training the SAE", unit="step", leave=False) as bar:
        while (step := len(run.curve)) < total:
            first = step * settings.batch_size
            texts = (text_at(place, count, settings.seed) for place in range(first, first + settings.batch_size))
            measured = run.step([chat_at(text) for text in texts])
            notify(step + 1, measured)
            bar.set_postfix(l2=f"{measured['l2']:.4f}", refresh=False)
            bar.update()
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < total:
                run.save()
    run.finish(folder, [chat_at(i) for i in range(min(count, 16))])
    _tidy(folder)


def text_at(place: int, count: int, seed: int) -> int:
    """Which text stands at a place of the endless training order: one permutation of all texts after the other."""
    epoch, position = divmod(place, count)
    return int(_permutation(seed, epoch, count)[position])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


class _Run:
    """A training between two steps: all that a checkpoint holds."""

    def __init__(self, backbone: Backbone, settings: RecipeSettings, checkpoint: Path) -> None:
        self._backbone, self._settings, self._checkpoint = backbone, settings, checkpoint
        device = backbone.device
        self._sae = TiedTopK(backbone.d_model, settings.width, settings.seed).to(device)
        self._optimizer = torch.optim.Adam(
            self._sae.parameters(), lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=device.type == "cuda"
        )
        self._last_fired = torch.zeros(settings.width, dtype=torch.int32, device=device)  # step, counted from 1
        self.curve: list[dict[str, float]] = []  # of the steps done
        if checkpoint.exists():
            held = torch.load(checkpoint, map_location=device, weights_only=True)
            self._sae.load_state_dict(held["sae"])
            self._optimizer.load_state_dict(held["optimizer"])
            self._last_fired, self.curve = held["last_fired"], held["curve"]

    def step(self, chats: Sequence[Sequence[Message]]) -> dict[str, float]:
        """One optimizer step on a batch of sequences; the gradients of all are added up before it [C]."""
        settings, device = self._settings, self._backbone.device
        began, done = time.perf_counter(), len(self.curve) + 1
        k = settings.k_at(len(self.curve))
        tally = Tally(self._backbone.d_model, settings.width, device)
        batches = token_rows(
            self._backbone, chats, max_tokens=settings.max_tokens, tokens=settings.tokens,
            batch_tokens=settings.batch_tokens,
        )  # fmt: skip
        for rows in batches:
            self._loss(rows, k, tally).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        found = tally.quality()
        if not math.isfinite(found.l2):
            raise FacError(f"The SAE's loss is {found.l2} at step {done}: lower sae.train.lr, and run again.")
        self._last_fired[tally.fired] = done
        measured = {
            "l2": found.l2,
            "explained_variance": found.explained_variance,
            "l0": found.l0,
            "k": float(k),
            "dead_features": float((self._last_fired <= done - min(DEAD_AFTER, done)).sum()),
            "tokens_per_second": found.tokens / (time.perf_counter() - began),
        }
        self.curve.append(measured)
        return measured

    def _loss(self, rows: Rows, k: int, tally: Tally) -> torch.Tensor:
        device = rows.x.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):  # [C]
            values, features, reconstruction = self._sae(rows.x, k)
        on = values > 0
        fired = torch.zeros(self._settings.width, dtype=torch.bool, device=rows.x.device)
        fired[features[on]] = True
        return tally.add(rows, reconstruction.float(), on.sum(), fired)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        draft = self._checkpoint.with_suffix(".tmp")
        with draft.open("wb") as stream:
            held = {"sae": self._sae.state_dict(), "optimizer": self._optimizer.state_dict()}
            torch.save({**held, "last_fired": self._last_fired, "curve": self.curve}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self._checkpoint)

    def finish(self, folder: Path, probe: list[Sequence[Message]]) -> None:
        """Write the trained SAE; fac.json comes last."""
        from sae_lens.saes.sae import SAEMetadata

        settings, layer = self._settings, self._backbone.layer
        metadata = SAEMetadata(
            model_name=model_name(self._backbone),
            hook_name=hook_name(layer),
            hf_hook_name=f"model.layers.{layer - 1}",
            prepend_bos=True,
            context_size=settings.max_tokens,
        )
        save_tied(folder, self._sae.W, self._sae.b_enc, self._sae.b_dec, settings.k, metadata)
        write_json_atomic(folder / CURVE, self.curve)
        write_record(folder, self._backbone, settings.identity(), probe, tokens=settings.tokens)


def _tidy(folder: Path) -> None:
    for name in (_CHECKPOINT, Path(_CHECKPOINT).with_suffix(".tmp")):
        (folder / name).unlink(missing_ok=True)
