"""Train a Top-K SAE with sae-lens: the recipe for small models, where the number of steps is what counts.

The paper's recipe is in `fac.sae.recipe`: sae-lens cannot follow it. Nothing but the activations of 512 chats is held,
or, with `held`, those of all texts on disk, and then a killed training goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fac.backbone import Backbone
from fac.errors import FacError
from fac.jsonl import write_json_atomic
from fac.sae import held
from fac.sae.hooks import hook_name
from fac.sae.load import Chats, content_residual, model_name, write_record
from fac.sae.ref import WEIGHTS
from fac.sae.settings import TrainSettings

CHECKPOINT_EVERY = 50  # steps, with `held`
_CHECKPOINTS, _NEWEST = "checkpoints", "newest.json"
_NORM_BATCHES = 20  # from which the activations' scale is estimated


def train(
    backbone: Backbone,
    chats: Chats,
    settings: TrainSettings,
    folder: Path,
    total: int | None = None,
) -> None:
    """Train a TopK SAE on the residuals of `chats` (an iterator is asked for again when one ends) and save it.

    Writes SAELens' inference format plus `fac.json`. `total` is the number of chats, for the progress bar. With
    `settings.held`, what a killed call left in `folder` is gone on with.
    """
    torch.manual_seed(settings.seed)
    source = None
    if settings.held:
        rows = held.measure(backbone, chats, total or 0, settings.max_tokens, folder)
        source = partial(held.batches, rows, settings.batch_size, settings.seed)
    trainer = _trainer(backbone, settings, folder)
    if source is None:
        trainer.data_provider = _activation_batches(backbone, chats, settings)
    else:
        done = _resumed(trainer, folder)
        if not done:
            trainer.activation_scaler.estimate_scaling_factor(backbone.d_model, source(), _NORM_BATCHES)
        trainer.data_provider = source(first=done)
    trainer.fit().save_inference_model(str(folder))
    write_record(folder, backbone, settings.identity(), list(islice(chats(), 16)))
    held.tidy(folder)
    shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)


def _trainer(backbone: Backbone, settings: TrainSettings, folder: Path) -> Any:
    from sae_lens import LoggingConfig, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata

    metadata = SAEMetadata(
        model_name=model_name(backbone),
        hook_name=hook_name(backbone.layer),
        hf_hook_name=f"model.layers.{backbone.layer - 1}",
        prepend_bos=True,
        context_size=settings.max_tokens,
    )
    config = TopKTrainingSAEConfig(
        d_in=backbone.d_model,
        d_sae=settings.width,
        k=settings.k,
        device=str(backbone.device),
        normalize_activations="expected_average_only_in",
        metadata=metadata,
    )
    kept = {}
    if settings.held:
        kept = {"n_checkpoints": settings.steps // CHECKPOINT_EVERY, "checkpoint_path": str(folder / _CHECKPOINTS)}
    trainer = SAETrainerConfig(
        total_training_samples=settings.steps * settings.batch_size,
        train_batch_size_samples=settings.batch_size,
        lr=settings.lr,
        lr_end=settings.lr / 10,
        lr_warm_up_steps=settings.steps // 20,
        lr_decay_steps=settings.steps // 5,
        device=str(backbone.device),
        n_batches_for_norm_estimate=_NORM_BATCHES,
        logger=LoggingConfig(log_to_wandb=False),
        **kept,
    )
    newest = partial(_newest_alone, folder / _CHECKPOINTS)
    return SAETrainer(trainer, TopKTrainingSAE(config), iter(()), save_checkpoint_fn=newest)


def _resumed(trainer: Any, folder: Path) -> int:
    """The steps of a killed training that are done, brought back from its last checkpoint; 0 if there is none."""
    told = folder / _CHECKPOINTS / _NEWEST
    if not told.is_file():
        return 0
    checkpoint = folder / _CHECKPOINTS / json.loads(told.read_text(encoding="utf-8"))
    trainer.sae.load_state_dict(load_file(checkpoint / WEIGHTS))
    trainer.load_trainer_state(checkpoint)
    done = trainer.n_training_samples // trainer.cfg.train_batch_size_samples
    trainer.n_training_steps = done  # it is saved before the last one is counted
    trainer.checkpoint_thresholds = [at for at in trainer.checkpoint_thresholds if at > trainer.n_training_samples]
    return done


def _newest_alone(folder: Path, checkpoint_path: Path | None) -> None:
    """Name the checkpoint that was written as the one to go on from, and drop those before it."""
    if checkpoint_path is None:
        return
    write_json_atomic(folder / _NEWEST, checkpoint_path.name)
    for other in folder.iterdir():
        if other.is_dir() and other != checkpoint_path:
            shutil.rmtree(other)


def _activation_batches(
    backbone: Backbone, chats: Chats, settings: TrainSettings, chats_a_time: int = 512
) -> Iterator[torch.Tensor]:
    """Endless shuffled batches [batch_size, d_model] of content-token residuals, mixed over `chats_a_time` chats."""
    generator = torch.Generator().manual_seed(settings.seed)
    left = torch.empty(0, backbone.d_model)
    while True:
        source, seen = chats(), 0
        while chunk := list(islice(source, chats_a_time)):
            rows = [
                content_residual(backbone, chunk[i : i + 64], settings.max_tokens) for i in range(0, len(chunk), 64)
            ]
            seen += sum(map(len, rows))
            pool = torch.cat([left.to(rows[0].device), *rows])
            pool = pool[torch.randperm(len(pool), generator=generator).to(pool.device)]
            full = len(pool) // settings.batch_size * settings.batch_size
            if full:  # splitting nothing would give one empty batch
                yield from pool[:full].split(settings.batch_size)
            left = pool[full:]
        if not seen:
            raise FacError("There are no texts to train the SAE on: name a data set with texts.")
