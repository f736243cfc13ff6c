"""Sparse autoencoders: load one, refuse one that does not fit the backbone, and encode with it.

Knows: sae-lens, and the small record `fac.json` that a trained SAE carries (model fingerprint, layer, and a probe: a
few chats with the explained variance and L0 they had). Does not know: corpora or pooling (`fac.features`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fac.backbone import Backbone
from fac.chat import Message, as_chat, encode
from fac.errors import FacError
from fac.jsonl import write_json_atomic

RULES = ("paper", "official")
HUB = "hub:"  # may stand before a repository of the Hugging Face hub
RECORD = "fac.json"
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
    """Which SAE: a folder or hub repository in SAELens format, one of the paper's checkpoints, or a public release.

    `sae_id` is the id within a release, and a folder or file within a repository. A checkpoint is imported first
    (`fac.sae.checkpoint`).
    """

    path: str | None = None
    release: str | None = None
    sae_id: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.path or self.release, self.sae_id) if part)

    def identity(self) -> str:
        """For store keys: release/id, or a digest of the folder's files."""
        if self.path is None or not Path(self.path).is_dir():
            return str(self)
        digest = hashlib.sha256()
        for name in ("cfg.json", "sae_weights.safetensors"):
            file = Path(self.path) / name
            if not file.exists():
                digest.update(b"-")
                continue
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()[:20]


class Sae:
    """An SAE that was checked against its backbone. `encode` maps residuals [tokens, d_in] to [tokens, width].

    rule "paper": Top-K kept (as trained). "official": Top-K off, ReLU only, as the released code measures. Raises
    FacError for another rule, and for "official" with an SAE that is no Top-K SAE.
    """

    def __init__(self, module: Any, record: dict[str, Any], rule: str = "paper") -> None:
        if rule not in RULES:
            raise FacError(f"features.rule={rule} is unknown: choose one of {', '.join(RULES)}.")
        self._module = module.eval()
        self.k = int(module.cfg.k) if module.cfg.architecture() == "topk" else None
        if rule == "official":
            if self.k is None:
                raise FacError(
                    f"features.rule=official switches Top-K off, which a {module.cfg.architecture()} SAE does not "
                    f"have: use features.rule=paper."
                )
            self._module.activation_fn = torch.nn.ReLU()
        self.record, self.rule = record, rule
        self.d_in, self.width = int(module.cfg.d_in), int(module.cfg.d_sae)

    @torch.inference_mode()
    def encode(self, residual: torch.Tensor) -> torch.Tensor:
        return self._module.encode(residual.to(self._module.W_enc.dtype)).float()

    @torch.inference_mode()
    def reconstruct(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(activations [tokens, width], reconstruction [tokens, d_in]), float32."""
        activations = self._module.encode(residual.to(self._module.W_enc.dtype))
        return activations.float(), self._module.decode(activations).float()

    def explained_variance(self, residual: torch.Tensor) -> tuple[float, float]:
        """(explained variance, mean L0) on residuals [tokens, d_in]: whether an SAE knows these activations."""
        x = residual.float()
        activations, reconstruction = self.reconstruct(x)
        error = (x - reconstruction).pow(2).sum()
        total = (x - x.mean(dim=0)).pow(2).sum()
        return float(1 - error / total), float((activations > 0).sum(dim=1).float().mean())


def load(ref: SaeRef, backbone: Backbone, rule: str = "paper") -> Sae:
    """Load an SAE and check it against `backbone`. Raises FacError, listing what would fit, if they do not match."""
    from sae_lens import SAE

    record: dict[str, Any] = {}
    device = str(backbone.device)
    try:
        if ref.path is None:
            module: Any = SAE.from_pretrained(str(ref.release), str(ref.sae_id), device=device)
        elif (folder := Path(ref.path).expanduser()).is_dir():
            module = SAE.load_from_disk(folder, device=device)
            record = read_record(ref)
        elif ref.path.startswith(("/", ".", "~")):
            raise FacError(f"There is no SAE folder {ref.path}: set sae.path to a SAELens folder, or use sae=train.")
        else:
            module = SAE.from_pretrained(ref.path.removeprefix(HUB), ref.sae_id or ".", device=device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unloadable(ref, error) from None
    name = str(record.get("imported", ref))
    _check_metadata(module, record, backbone, name)
    # Measured before Top-K is switched off: the recorded figures were.
    _check_probe(Sae(module, record), backbone, name)
    return Sae(module, record, rule)


def read_record(ref: SaeRef) -> dict[str, Any]:
    """The fac.json of an SAE's folder; empty for one that this project did not make."""
    file = Path(ref.path or "").expanduser() / RECORD
    return json.loads(file.read_text()) if ref.path is not None and file.is_file() else {}


def write_record(
    folder: Path, backbone: Backbone, settings: Mapping[str, Any], probe: Sequence[Any], **more: Any
) -> None:
    """Measure the chats `probe` with the SAE in `folder`, and write its fac.json, whole or not at all."""
    from sae_lens import SAE

    sae = Sae(SAE.load_from_disk(folder, device=str(backbone.device)), {})
    variance, l0 = sae.explained_variance(content_residual(backbone, probe))
    record = {
        "fingerprint": backbone.fingerprint(),
        "model": model_name(backbone),
        "layer": backbone.layer,
        "settings": settings,
        **more,
        "probe": {"chats": probe, "explained_variance": variance, "l0": l0},
    }
    write_json_atomic(folder / RECORD, record)


def model_name(backbone: Backbone) -> str:
    """How an SAE names the model it was trained on."""
    return Path(backbone.ref.path).name if backbone.ref.is_local else backbone.ref.path


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
    """The layer that an SAE was trained on, without loading its weights; None if it does not say.

    For a release or a hub repository its configuration is fetched, which sae-lens knows or downloads. Raises FacError
    if it cannot be had.
    """
    if ref.path is not None and (Path(ref.path).is_dir() or ref.path.startswith(("/", ".", "~"))):
        file = Path(ref.path) / "cfg.json"
        cfg = json.loads(file.read_text()) if file.exists() else {}
    else:
        from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

        try:
            name = ref.release or str(ref.path).removeprefix(HUB)
            cfg = load_sae_config_from_huggingface(name, ref.sae_id or ".")
        except (OSError, ValueError, KeyError) as error:
            raise _unloadable(ref, error) from None
    return layer_of(str((cfg.get("metadata") or {}).get("hook_name") or cfg.get("hook_name")))


def content_residual(backbone: Backbone, chats: Sequence[Sequence[Message]], max_tokens: int = 512) -> torch.Tensor:
    """Residuals of the content tokens of a few chats: [tokens, d_model], float32."""
    encoded = [encode(backbone.tokenizer, chat, max_tokens=max_tokens) for chat in chats]
    residual = backbone.residual([chat.ids for chat in encoded])
    rows = [residual[i, : len(chat.ids)][torch.tensor(chat.content)] for i, chat in enumerate(encoded)]
    return torch.cat(rows).float()


def _unloadable(ref: SaeRef, error: Exception) -> FacError:
    reason = " ".join(str(error).split())[:200]
    if ref.path is not None and Path(ref.path).is_dir():
        out = "give a folder with cfg.json and sae_weights.safetensors as sae.path, or train one with sae=train"
    else:
        out = "check its name and that this machine can reach the hub, give a folder as sae.path, or use sae=train"
    return FacError(f"The SAE {ref} cannot be loaded ({reason}): {out}.")


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
    residual = content_residual(backbone, probe["chats"] if probe else [as_chat(text) for text in _PROBE_SENTENCES])
    variance, _ = sae.explained_variance(residual)
    least = probe["explained_variance"] - _PROBE_TOLERANCE if probe else _LEAST_VARIANCE
    texts = "the texts it was measured on" if probe else "plain English sentences"
    if not variance >= least:
        raise FacError(
            f"The SAE {name} explains {variance:.2f} of the variance of layer {backbone.layer} of {backbone.ref.path}, "
            f"on {texts}, where at least {least:.2f} was expected, so it was made for another model, layer or chat "
            f"template: use the model it was trained on, or train one with sae=train."
        )
