"""Train a Top-K SAE with sae-lens: the recipe for small models, where the number of steps is what counts.

The paper's recipe is in `fac.sae.recipe`: sae-lens cannot follow it. Nothing but the activations of 512 chats is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

from fac.backbone import Backbone
from fac.errors import FacError
from fac.sae.hooks import hook_name
from fac.sae.load import Chats, content_residual, model_name, write_record


@dataclass(frozen=True)
class TrainSettings:
    """How `sae=train` trains a TopK SAE on streamed activations (sae-lens defaults where nothing is said)."""

    width: int = 2048
    k: int = 8
    steps: int = 3200
    batch_size: int = 256  # tokens; the number of steps decides whether features are useful, not the tokens
    lr: float = 2e-3
    max_tokens: int = 512
    seed: int = 42


def train(
    backbone: Backbone,
    chats: Chats,
    settings: TrainSettings,
    folder: Path,
) -> None:
    """Train a TopK SAE on the residuals of `chats` (an iterator is asked for again when one ends) and save it.

    Writes SAELens' inference format plus `fac.json`.
    """
    from sae_lens import LoggingConfig, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(settings.seed)
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
    samples = settings.steps * settings.batch_size
    trainer = SAETrainerConfig(
        total_training_samples=samples,
        train_batch_size_samples=settings.batch_size,
        lr=settings.lr,
        lr_end=settings.lr / 10,
        lr_warm_up_steps=settings.steps // 20,
        lr_decay_steps=settings.steps // 5,
        device=str(backbone.device),
        n_batches_for_norm_estimate=20,
        logger=LoggingConfig(log_to_wandb=False),
    )
    batches = _activation_batches(backbone, chats, settings)
    module = SAETrainer(cfg=trainer, sae=TopKTrainingSAE(config), data_provider=batches).fit()
    module.save_inference_model(str(folder))
    write_record(folder, backbone, asdict(settings), list(islice(chats(), 16)))


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
