"""Sparse autoencoders: load one, refuse one that does not fit the backbone, and encode with it.

An SAE must fulfil its record `fac.json`: the fingerprint of the model, the layer, and a probe, which is a few chats
with the explained variance and L0 they had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fac.backbone import Backbone
from fac.chat import Message, as_chat, encode
from fac.errors import FacError
from fac.hub import failures, snapshot
from fac.jsonl import write_json_atomic
from fac.sae.ref import CONFIG, RECORD, WEIGHTS, SaeRef, check_weights, layer_in, read_config, read_record, unloadable
from fac.sae.settings import Product
from fac.sae.strongest import Preactivations, strongest
from fac.weights import check_tensor

RULES = ("paper", "official")
_PROBE_TOLERANCE = 0.02  # explained variance; a wrong model, layer or normalisation is off by far more
_L0_TOLERANCE = 0.05  # share of the recorded L0: weights in another dtype change few ranks
_LEAST_VARIANCE = 0.3  # for an SAE that carries no probe of its own
_PROBE_SENTENCES = (
    "What is the best way to learn a new language?",
    "Write a short story about a dog who finds its way home through the snow.",
    "Can you explain how a sorting algorithm works, step by step?",
    "My neighbor plays loud music every night. What can I do about it?",
)


# How sae-lens refuses a configuration or weights: there is no error of its own.
_REFUSALS = (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)

Chats = Callable[[], Iterator[Sequence[Message]]]  # a fresh iterator at every call


class Sae:
    """An SAE that was checked against its backbone. `encode` maps residuals [tokens, d_in] to [tokens, width].

    rule "paper": Top-K kept (as trained). "official": Top-K off, ReLU only, as the released code measures. Raises
    FacError for another rule, and for "official" with an SAE that is no Top-K SAE.
    """

    def __init__(self, module: Any, record: dict[str, Any], rule: str = "paper", product: Product = "auto") -> None:
        if rule not in RULES:
            raise FacError(f"features.rule={rule} is unknown: choose one of {', '.join(RULES)}.")
        self.module = module.eval()  # of sae-lens
        self.k = int(module.cfg.k) if module.cfg.architecture() == "topk" else None
        if rule == "official":
            if self.k is None:
                raise FacError(
                    f"features.rule=official switches Top-K off, which a {module.cfg.architecture()} SAE does not "
                    f"have: use features.rule=paper."
                )
            self.module.activation_fn = torch.nn.ReLU()
        self.record, self.rule = record, rule
        self.d_in, self.width = int(module.cfg.d_in), int(module.cfg.d_sae)
        self.preactivations = Preactivations(module, product) if self.k is not None else None

    @torch.inference_mode()
    def strongest(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Values and features that Top-K keeps, both [tokens, k], in no order and below 0 too; None without Top-K."""
        if self.preactivations is None or self.k is None or self.rule == "official":
            return None
        return strongest(self.preactivations(residual), self.k)

    @torch.inference_mode()
    def activations(self, residual: torch.Tensor) -> torch.Tensor:
        """What `encode` gives, [tokens, width] in float32, by the same product as `strongest` where Top-K is off."""
        if self.preactivations is None or self.rule != "official":
            return self.encode(residual)
        return self.preactivations(residual).relu_()

    @torch.inference_mode()
    def encode(self, residual: torch.Tensor) -> torch.Tensor:
        return self.module.encode(residual.to(self.module.W_enc.dtype)).float()

    @torch.inference_mode()
    def directions(self, features: Sequence[int]) -> torch.Tensor:
        """What one unit of each feature's activation adds to the reconstruction: [features, d_in], float32."""
        dtype, device = self.module.W_enc.dtype, self.module.W_enc.device
        parts = [torch.zeros(0, self.d_in)]
        for start in range(0, len(features), 256):  # as many rows of the SAE's width are held
            part = features[start : start + 256]
            alone = torch.zeros(len(part) + 1, self.width, dtype=dtype, device=device)
            alone[torch.arange(len(part)), torch.as_tensor(part)] = 1
            decoded = self.module.decode(alone).float()
            parts.append((decoded[:-1] - decoded[-1]).cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def reconstruct(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(activations [tokens, width], reconstruction [tokens, d_in]), float32."""
        activations = self.module.encode(residual.to(self.module.W_enc.dtype))
        return activations.float(), self.module.decode(activations).float()

    def explained_variance(self, residual: torch.Tensor) -> tuple[float, float]:
        """(explained variance, mean L0) on residuals [tokens, d_in]: whether an SAE knows these activations."""
        x = residual.float()
        activations, reconstruction = self.reconstruct(x)
        error = (x - reconstruction).pow(2).sum()
        total = (x - x.mean(dim=0)).pow(2).sum()
        return float(1 - error / total), float((activations > 0).sum(dim=1).float().mean())


def load(
    ref: SaeRef, backbone: Backbone, rule: str = "paper", product: Product = "auto", of_origin: bool = False
) -> Sae:
    """Load an SAE and check it against `backbone`. Raises FacError, listing what would fit, if they do not match.

    With `of_origin` it is the SAE of the weights that the backbone's were trained from: width and layer must fit, and
    neither the fingerprint nor what was measured on those weights is asked for.
    """
    folder = ref.fetched(CONFIG, WEIGHTS)
    record = read_record(folder)
    name = str(record.get("imported", ref))
    told = {} if folder is None else read_config(folder)
    module = _from_release(ref, backbone) if folder is None else _from_folder(ref, folder, backbone)
    for tensor_name, tensor in module.state_dict().items():
        check_tensor(tensor, f"{tensor_name} of the SAE {name}")
    _check_metadata(module, told, record, backbone, name, of_origin)
    if not of_origin:
        # Measured before Top-K is switched off: the recorded figures were.
        _check_probe(Sae(module, record), backbone, name)
    return Sae(module, record, rule, product)


def _from_folder(ref: SaeRef, folder: Path, backbone: Backbone) -> Any:
    from sae_lens import SAE

    check_weights(folder)
    try:
        return SAE.load_from_disk(folder, device=str(backbone.device))
    except _REFUSALS as error:
        raise unloadable(ref, error) from None


def _from_release(ref: SaeRef, backbone: Backbone) -> Any:
    """By sae-lens, which knows how each release is stored and fetches its main branch."""
    from sae_lens import SAE

    try:
        module = SAE.from_pretrained(str(ref.release), str(ref.sae_id), device=str(backbone.device))
    except (*failures(), *_REFUSALS) as error:
        raise unloadable(ref, error) from None
    held = snapshot(ref.repository, None, "model")
    if held is not None and held.name != ref.commit():
        raise FacError(f"{ref.repository} changed on the hub while this run was under way: start it again.")
    return module


def write_record(
    folder: Path, backbone: Backbone, settings: Mapping[str, Any], probe: Sequence[Any], **more: Any
) -> None:
    """Measure the chats `probe` with the SAE in `folder`, and write its fac.json, whole or not at all."""
    from sae_lens import SAE

    module = SAE.load_from_disk(folder, device=str(backbone.device))
    if not all(tensor.isfinite().all() for tensor in module.state_dict().values()):
        raise FacError("The SAE's weights became NaN or infinite in training: lower sae.train.lr, and run again.")
    sae = Sae(module, {})
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
    return backbone.ref.name


def content_residual(backbone: Backbone, chats: Sequence[Sequence[Message]], max_tokens: int = 512) -> torch.Tensor:
    """Residuals of the content tokens of a few chats: [tokens, d_model], float32."""
    encoded = [encode(backbone.tokenizer, chat, max_tokens=max_tokens) for chat in chats]
    residual = backbone.residual([chat.ids for chat in encoded])
    rows = [residual[i, : len(chat.ids)][torch.tensor(chat.content)] for i, chat in enumerate(encoded)]
    return finite(torch.cat(rows), backbone).float()


def finite(rows: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """`rows`, activations of the model. Raises FacError if one is NaN or infinite: nothing can be learnt from it."""
    if rows.isfinite().all():
        return rows
    raise not_finite(backbone)


def not_finite(backbone: Backbone) -> FacError:
    """What is said of a model whose activations are NaN or infinite."""
    return FacError(
        f"{backbone.ref.path} has activations after layer {backbone.layer} that are NaN or infinite: its weights are "
        f"damaged (fetch the model again) or do not fit their type (model.dtype={backbone.ref.dtype}: set float32)."
    )


def _check_metadata(
    module: Any, told: Mapping[str, Any], record: dict[str, Any], backbone: Backbone, name: str, of_origin: bool
) -> None:
    metadata = module.cfg.metadata
    layer = layer_in(told or {"metadata": metadata.to_dict()}, record, name)
    made_for = record.get("model") or metadata.model_name or "an unnamed model"
    at = "" if layer is None else f"layer {layer}, "
    fits = f"It fits {made_for}, {at}width {module.cfg.d_in}; use that model, another sae.path, or sae=train."
    if int(module.cfg.d_in) != backbone.d_model:
        raise FacError(
            f"The SAE {name} reads {module.cfg.d_in} dimensions but {backbone.ref.path} has {backbone.d_model}. {fits}"
        )
    if layer is not None and layer != backbone.layer:
        raise FacError(
            f"The SAE {name} was trained on layer {layer}, not on layer {backbone.layer} (sae.layer). {fits}"
        )
    if not of_origin and record.get("fingerprint") not in (None, backbone.fingerprint()):
        raise FacError(f"The SAE {name} was trained on the weights of another model than {backbone.ref.path}. {fits}")


def _check_probe(sae: Sae, backbone: Backbone, name: str) -> None:
    probe = sae.record.get("probe")
    residual = content_residual(backbone, probe["chats"] if probe else [as_chat(text) for text in _PROBE_SENTENCES])
    variance, l0 = sae.explained_variance(residual)
    least = probe["explained_variance"] - _PROBE_TOLERANCE if probe else _LEAST_VARIANCE
    texts = "the texts it was measured on" if probe else "plain English sentences"
    where = f"layer {backbone.layer} of {backbone.ref.path}, on {texts}"
    if not variance >= least:
        raise FacError(
            f"The SAE {name} explains {variance:.2f} of the variance of {where}, where at least {least:.2f} was "
            f"expected: it was made for another model, layer or chat template, or is damaged. Use the model it was "
            f"trained on, or train one with sae=train."
        )
    if probe and abs(l0 - probe["l0"]) > _L0_TOLERANCE * max(probe["l0"], 1):
        raise FacError(
            f"The SAE {name} has {l0:.1f} active features a token in {where}, where {probe['l0']:.1f} were recorded: "
            f"its cfg.json or weights are not those that were measured. Fetch it again, or train one with sae=train."
        )
