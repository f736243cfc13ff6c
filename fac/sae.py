"""Sparse autoencoders: load, train and save in SAELens format, and refuse one that does not fit the backbone.

Knows: sae-lens, and the small record `fac.json` that a trained SAE carries (model fingerprint, layer, and a probe: a
few chats with the explained variance and L0 they had). Does not know: corpora or pooling (`fac.features`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fac.backbone import Backbone
from fac.chat import Message, as_chat, encode
from fac.errors import FacError

RULES = ("paper", "official")
_PROBE_TOLERANCE = 0.02  # explained variance; a wrong model, layer or normalisation is off by far more
_LEAST_VARIANCE = 0.3  # for an SAE that carries no probe of its own
_PROBE_SENTENCES = (
    "What is the best way to learn a new language?",
    "Write a short story about a dog who finds its way home through the snow.",
    "Can you explain how a sorting algorithm works, step by step?",
    "My neighbor plays loud music every night. What can I do about it?",
)


Chats = Callable[[], Iterator[Sequence[Message]]]  # a fresh iterator at every call


@dataclass(frozen=True)
class SaeRef:
    """Which SAE: a folder (or hub repository) in SAELens format, or a public release and the id within it."""

    path: str | None = None
    release: str | None = None
    sae_id: str | None = None

    def identity(self) -> str:
        """For store keys: release/id, or a digest of the folder's files."""
        if self.path is None:
            return f"{self.release}/{self.sae_id}"
        if not Path(self.path).is_dir():
            return self.path
        digest = hashlib.sha256()
        for name in ("cfg.json", "sae_weights.safetensors"):
            file = Path(self.path) / name
            digest.update(file.read_bytes() if file.exists() else b"-")
        return digest.hexdigest()[:20]


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


class Sae:
    """An SAE that was checked against its backbone. `encode` maps residuals [tokens, d_in] to [tokens, width].

    rule "paper": Top-K kept (as trained). "official": Top-K off, ReLU only, as the released code measures.
    """

    def __init__(self, module: Any, record: dict[str, Any], rule: str = "paper") -> None:
        if rule not in RULES:
            raise FacError(f"features.rule={rule} is unknown: choose one of {', '.join(RULES)}.")
        self._module = module.eval()
        if rule == "official":
            self._module.activation_fn = torch.nn.ReLU()
        self.record, self.rule = record, rule
        self.d_in, self.width = int(module.cfg.d_in), int(module.cfg.d_sae)

    @torch.inference_mode()
    def encode(self, residual: torch.Tensor) -> torch.Tensor:
        return self._module.encode(residual.to(self._module.W_enc.dtype)).float()

    @torch.inference_mode()
    def explained_variance(self, residual: torch.Tensor) -> tuple[float, float]:
        """(explained variance, mean L0) on residuals [tokens, d_in]: whether an SAE knows these activations."""
        x = residual.to(self._module.W_enc.dtype)
        activations = self._module.encode(x)
        error = (x - self._module.decode(activations)).pow(2).sum()
        total = (x - x.mean(dim=0)).pow(2).sum()
        return float(1 - error / total), float((activations > 0).sum(dim=1).float().mean())


def load(ref: SaeRef, backbone: Backbone, rule: str = "paper") -> Sae:
    """Load an SAE and check it against `backbone`. Raises FacError, listing what would fit, if they do not match."""
    from sae_lens import SAE

    record: dict[str, Any] = {}
    try:
        if ref.path is not None:
            folder = Path(ref.path).expanduser()
            if folder.is_dir():
                module: Any = SAE.load_from_disk(folder, device=str(backbone.device))
                record_file = folder / "fac.json"
                record = json.loads(record_file.read_text()) if record_file.exists() else {}
            elif ref.path.startswith(("/", ".", "~")):
                raise FacError(
                    f"There is no SAE folder {ref.path}: set sae.path to a SAELens folder, or use sae=train."
                )
            else:
                module = SAE.from_pretrained(ref.path, ref.sae_id or ".", device=str(backbone.device))
        else:
            module = SAE.from_pretrained(str(ref.release), str(ref.sae_id), device=str(backbone.device))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FacError(
            f"The SAE {ref.path or f'{ref.release}/{ref.sae_id}'} cannot be loaded ({reason}): give a folder with "
            f"cfg.json and sae_weights.safetensors as sae.path, or train one with sae=train."
        ) from None
    name = ref.path or f"{ref.release}/{ref.sae_id}"
    _check_metadata(module, record, backbone, name)
    # Measured before Top-K is switched off: the recorded figures were.
    _check_probe(Sae(module, record), backbone, name)
    return Sae(module, record, rule)


def train(
    backbone: Backbone,
    chats: Chats,
    settings: TrainSettings,
    folder: Path,
) -> None:
    """Train a TopK SAE on the residuals of `chats` (an iterator is asked for again when one ends) and save it.

    Nothing but the activations of 512 chats is held. Writes SAELens' inference format plus `fac.json`.
    """
    from sae_lens import LoggingConfig, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(settings.seed)
    metadata = SAEMetadata(
        model_name=backbone.ref.path if not backbone.ref.is_local else Path(backbone.ref.path).name,
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
    probe = list(islice(chats(), 16))
    from sae_lens import SAE

    sae = Sae(SAE.load_from_disk(folder, device=str(backbone.device)), {})
    variance, l0 = sae.explained_variance(_content_residual(backbone, probe))
    record = {
        "fingerprint": backbone.fingerprint(),
        "model": metadata.model_name,
        "layer": backbone.layer,
        "settings": asdict(settings),
        "probe": {"chats": probe, "explained_variance": variance, "l0": l0},
    }
    (folder / "fac.json").write_text(json.dumps(record, indent=1))


def hook_name(layer: int) -> str:
    """TransformerLens name of the paper's "layer n"."""
    return f"blocks.{layer - 1}.hook_resid_post"


def layer_of(hook: str) -> int | None:
    """The paper's layer number of a TransformerLens hook; None if it is no residual-stream hook."""
    parts = hook.split(".")
    if len(parts) == 3 and parts[0] == "blocks" and parts[1].isdigit():
        return {"hook_resid_post": int(parts[1]) + 1, "hook_resid_pre": int(parts[1])}.get(parts[2])
    return None


def recorded_layer(ref: SaeRef) -> int | None:
    """The layer a folder's SAE was trained on, without loading its weights; None if it does not say."""
    file = Path(ref.path or "") / "cfg.json"
    if ref.path is None or not file.exists():
        return None
    cfg = json.loads(file.read_text())
    return layer_of(str((cfg.get("metadata") or {}).get("hook_name") or cfg.get("hook_name")))


def _check_metadata(module: Any, record: dict[str, Any], backbone: Backbone, name: str) -> None:
    metadata = module.cfg.metadata
    layer = record.get("layer") or layer_of(str(metadata.hook_name))
    made_for = record.get("model") or metadata.model_name or "an unnamed model"
    fits = (
        f"It fits {made_for}, layer {layer}, width {module.cfg.d_in}; use that model, another sae.path, or sae=train."
    )
    if int(module.cfg.d_in) != backbone.d_model:
        raise FacError(
            f"The SAE {name} reads {module.cfg.d_in} dimensions but {backbone.ref.path} has {backbone.d_model}. {fits}"
        )
    if layer is not None and layer != backbone.layer:
        raise FacError(
            f"The SAE {name} was trained on layer {layer}, not on layer {backbone.layer} (sae.layer). {fits}"
        )
    if record.get("fingerprint") not in (None, backbone.fingerprint()):
        raise FacError(f"The SAE {name} was trained on the weights of another model than {backbone.ref.path}. {fits}")


def _check_probe(sae: Sae, backbone: Backbone, name: str) -> None:
    probe = sae.record.get("probe")
    residual = _content_residual(backbone, probe["chats"] if probe else [as_chat(text) for text in _PROBE_SENTENCES])
    variance, _ = sae.explained_variance(residual)
    least = probe["explained_variance"] - _PROBE_TOLERANCE if probe else _LEAST_VARIANCE
    if not variance >= least:
        raise FacError(
            f"The SAE {name} explains {variance:.2f} of the variance of layer {backbone.layer} of {backbone.ref.path}, "
            f"where at least {least:.2f} was expected, so it was made for another model, layer or chat template: "
            f"use the model it was trained on, or train one with sae=train."
        )


def _content_residual(backbone: Backbone, chats: Sequence[Sequence[Message]], max_tokens: int = 512) -> torch.Tensor:
    """Residuals of the content tokens of a few chats: [tokens, d_model], float32."""
    encoded = [encode(backbone.tokenizer, chat, max_tokens=max_tokens) for chat in chats]
    residual = backbone.residual([chat.ids for chat in encoded])
    rows = [residual[i, : len(chat.ids)][torch.tensor(chat.content)] for i, chat in enumerate(encoded)]
    return torch.cat(rows).float()


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
                _content_residual(backbone, chunk[i : i + 64], settings.max_tokens) for i in range(0, len(chunk), 64)
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
