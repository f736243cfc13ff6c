"""The language model up to one layer: token ids in, residual stream out.

Only the layers that are needed are loaded and run. Layer names follow the paper: "layer 16" is the output of
`model.layers[15]` = `hidden_states[16]` = `blocks.15.hook_resid_post`.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from fac.chat import DATE, TEMPLATES, check_template, is_dated
from fac.errors import FacError
from fac.model_ref import ModelRef, default_device
from fac.model_weights import decoder_layers, load_adapter, load_pretrained, load_weights
from fac.norms import fuse_norms

log = logging.getLogger(__name__)

LoadLayers = Callable[[Any], Any]  # a configuration to a model of it
# Without cuDNN's, which makes a plan for every shape, and batches of texts have many.
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def load_tokenizer(ref: ModelRef) -> PreTrainedTokenizerBase:
    """The tokenizer, with a chat template and, if it has either, a padding or end-of-text token to pad with.

    Raises FacError if it cannot be loaded, is not a fast one, or has no chat template.
    """
    tokenizer = load_pretrained(AutoTokenizer, ref)
    if ref.chat_template in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[ref.chat_template]
    elif ref.chat_template is not None:
        known = " or ".join(TEMPLATES)
        raise FacError(f"model.chat_template={ref.chat_template} is unknown: leave it out or set it to {known}.")
    check_template(tokenizer, ref.path)
    if not tokenizer.is_fast:
        raise FacError(f"{ref.path} has no fast tokenizer (tokenizer.json), which the content mask needs: add one.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if is_dated(tokenizer):
        _say_date(ref.path)
    return tokenizer


@cache
def _say_date(name: str) -> None:
    log.warning(
        "the chat template of %s writes the date: everything here is rendered as on %s.", name, f"{DATE:%d %b %Y}"
    )


def load_config(ref: ModelRef) -> Any:
    """The configuration of a causal LM; `get_text_config()` of it is that of its language model. Raises FacError."""
    config = load_pretrained(AutoConfig, ref)
    if getattr(config, "is_encoder_decoder", False):
        raise FacError(f"{ref.path} is an encoder-decoder model ({config.model_type}): only decoder-only ones will do.")
    if not all(getattr(config.get_text_config(), name, None) for name in ("num_hidden_layers", "hidden_size")):
        raise FacError(f"{ref.path} is no language model that is known here (model_type {config.model_type}).")
    return config


def model_depth(ref: ModelRef) -> int:
    """Number of decoder layers of the whole model."""
    return int(load_config(ref.kin).get_text_config().num_hidden_layers)


def positions_of(config: Any) -> int | None:
    """How many tokens a model was made to read; None if it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def check_length(longest: int, config: Any, name: str) -> None:
    """Raise FacError if a text of so many tokens, to be trained on or scored, is longer than a model was made for."""
    positions = positions_of(config)
    if positions is not None and longest > positions:
        raise FacError(
            f"A text of {longest} tokens is longer than {name} was made for ({positions}, max_position_embeddings): "
            f"shorten the texts, or lower the train.max_tokens that they are cut at."
        )


def warn_of_length(longest: int, config: Any, name: str) -> None:
    """Say once for a model if a text that is measured or asked about is longer than it was made for."""
    positions = positions_of(config)
    if positions is not None and longest > positions:
        _say_length(name, positions)


@cache
def _say_length(name: str, positions: int) -> None:
    log.warning(
        "%s was made for texts of %d tokens (max_position_embeddings), and some are longer: what it makes of them "
        "means little; shorten them, or lower features.max_tokens where they are measured.",
        name,
        positions,
    )


def room_for_replies(config: Any, name: str, longest: int, most: int | None = None) -> int:
    """The tokens that prompt and reply may have together: the model's positions, at most `most` of them.

    Raises FacError if the longest prompt leaves no room for a reply.
    """
    positions = positions_of(config)
    room = min(size for size in (positions, most, 1 << 30) if size)
    if longest >= room:
        why = "its max_position_embeddings" if room == positions else "max_model_len of the engine"
        raise FacError(
            f"A prompt of {longest} tokens leaves no room for a reply of {name} in {room} tokens ({why}): show the "
            f"writer less, raise max_model_len if it is that, or choose a model that takes longer texts."
        )
    return room


def end_tokens(generation: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> set[int]:
    """The ids that end a reply: of the generation config, otherwise the tokenizer. Raises FacError if there is none."""
    told = generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_token_id
    if told is None:
        raise FacError(
            f"{name} has no end-of-text token, so its replies would never end: set eos_token in its "
            f"tokenizer_config.json and eos_token_id in its generation_config.json."
        )
    return {int(token) for token in (told if isinstance(told, list) else [told])}


def on_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy of `array` on the device, which a GPU takes when it comes to it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Backbone:
    """A causal LM cut off after `layer` decoder layers; only those layers are loaded.

    Of a model of several parts (text and images) it is the language model. Attributes: `layer` (as the paper counts),
    `d_model`, `tokenizer`, `ref`.
    """

    def __init__(
        self, ref: ModelRef, layer: int, device: torch.device | None = None, load: LoadLayers | None = None
    ) -> None:
        """`load` makes the model of the shortened configuration; `None`: from the weights of `ref`."""
        if ref.adapter is not None:
            raise FacError(f"Features are read from a model without adapter: leave out {ref.adapter}, or merge it.")
        config = load_config(ref)
        depth = config.get_text_config().num_hidden_layers
        if not 1 <= layer <= depth:
            raise FacError(f"{ref.path} has {depth} layers, so sae.layer={layer} does not exist: choose 1 to {depth}.")
        self.ref, self.layer, self.d_model = ref, layer, int(config.get_text_config().hidden_size)
        self.tokenizer = load_tokenizer(ref)
        self.device = device or default_device()
        self._config = first_layers(config, layer)
        if load is None:
            load = partial(load_weights, AutoModel, ref, depth=depth, dtype=ref.dtype_on(self.device))
        self._model = load(self._config).get_decoder().to(self.device).eval()
        fuse_norms(self._model)
        self._last = decoder_layers(self._model, layer, ref.path)[-1]

    @torch.inference_mode()
    def residual(self, batch: Sequence[Sequence[int] | NDArray[np.int32]]) -> torch.Tensor:
        """Residual stream after the layer for a batch of id lists: [texts, longest, d_model], padded on the right.

        On a GPU it returns before the work is done.
        """
        width = max(len(ids) for ids in batch)
        warn_of_length(width, self._config, self.ref.path)
        # To the right of a causal model's text, or masked: any id will do.
        ids = np.full((len(batch), width), self.tokenizer.pad_token_id or 0, np.int64)
        for row, text in zip(ids, batch, strict=True):
            row[: len(text)] = text
        if self.is_causal:
            return self._forward(on_device(ids, self.device))
        mask = np.arange(width) < np.array([len(text) for text in batch])[:, None]
        return self._forward(on_device(ids, self.device), on_device(mask.astype(np.int64), self.device))

    @cached_property
    def is_causal(self) -> bool:
        """Whether no token sees a later one, so that padding on the right needs no mask. Found out by trying."""
        with torch.inference_mode():
            one, other = (
                self._forward(on_device(np.array([[1, 2, 3, 4, *rest]]), self.device))[0, :4].float()
                for rest in ([5, 6, 7, 8], [8, 7, 6, 5])
            )
        return bool((one - other).abs().max() <= 1e-6 * one.abs().max())

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        caught: list[torch.Tensor] = []

        def catch(_module: nn.Module, _args: Any, out: Any) -> None:
            caught.append(out[0] if isinstance(out, tuple) else out)

        # A hook, since the model's own last hidden state has been through the final norm.
        hook = self._last.register_forward_hook(catch)
        try:
            with sdpa_kernel(_ATTENTION):
                self._model(input_ids=ids, attention_mask=mask, use_cache=False)
        finally:
            hook.remove()
        return caught[0]

    def fingerprint(self) -> str:
        """Digest of loaded weights (embedding rows and the last layer): the same wherever the model was loaded from.

        Weights are rounded to bfloat16 first, so that a model loaded in another dtype is still the same model.
        """
        digest = hashlib.sha256()
        embedding = self._model.get_input_embeddings().weight[:1024]
        for weight in (embedding, next(self._last.parameters())):
            digest.update(weight.detach().bfloat16().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:20]


def first_layers(config: Any, layer: int) -> Any:
    """The configuration of the same model with its first `layer` decoder layers only."""
    shorter = copy.deepcopy(config)
    text = shorter.get_text_config()
    depth = text.num_hidden_layers
    if layer < depth and getattr(text, "num_kv_shared_layers", 0):
        raise FacError(
            f"The last layers of {config.model_type} share keys with earlier ones, so it cannot be cut after layer "
            f"{layer}: read layer {depth}, or choose another model."
        )
    for key, value in list(vars(text).items()):  # layer_types and other lists with one entry for each layer
        if "layer" in key and isinstance(value, list) and len(value) == depth:
            setattr(text, key, value[:layer])
    text.num_hidden_layers = layer
    return shorter


def load_causal_lm(ref: ModelRef) -> tuple[Any, PreTrainedTokenizerBase]:
    """The whole model with its head, ready to answer, and its tokenizer; on the GPU if there is one.

    `dtype` "auto" is float32 on a CPU, as for `Backbone`. An adapter is merged into the weights. Raises FacError if the
    model or the adapter cannot be loaded.
    """
    device = default_device()
    model = load_weights(AutoModelForCausalLM, ref, load_config(ref), dtype=ref.dtype_on(device))
    if ref.adapter is not None:
        model = load_adapter(model, Path(ref.adapter), ref.path).merge_and_unload()
    return model.to(device).eval(), load_tokenizer(ref)
