"""Which place of a model an SAE reads: by whatever name its configuration has for it.

Layers have the paper's numbers: "layer n" is the residual stream after n decoder layers. Every library has its own name
for that place, and its own key to write it under:

    blocks.N.hook_resid_post, blocks.N.hook_out   layer N + 1   TransformerLens, SAELens
    blocks.N.hook_resid_pre, blocks.N.hook_in     layer N
    model.layers.N, model.layers.N.output         layer N + 1   names of transformers' modules (also h.N, with prefixes)
    layers.N                                      layer N + 1   EleutherAI's sparsify

Any other place (resid_mid, an attention's or MLP's output, embeddings) is none that is measured here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fac.errors import FacError

_BLOCK = re.compile(r"(?:\w+\.)*(?:blocks|layers|h)\.(\d+)(?:\.(\w+))?")
_AFTER = {None: 1, "output": 1, "hook_resid_post": 1, "hook_out": 1, "hook_resid_pre": 0, "hook_in": 0, "input": 0}
_KEYS = ("hook_name", "hook_point", "hook_point_in", "act_name", "hf_hook_name", "hf_hook_point_in")
_OUT = ("hook_name_out", "hook_point_out", "hf_hook_name_out", "hf_hook_point_out")  # of a transcoder
_NUMBERS = ("hook_layer", "hook_point_layer")  # beside a name, in SAELens before 6


def hook_name(layer: int) -> str:
    """TransformerLens name of the paper's "layer n"."""
    return f"blocks.{layer - 1}.hook_resid_post"


def layer_of(hook: str) -> int | None:
    """The paper's layer number of a place in the residual stream; None if it is another place, or before layer 1."""
    found = _BLOCK.fullmatch(hook)
    if found is None or found[2] not in _AFTER:
        return None
    return int(found[1]) + _AFTER[found[2]] or None


def told_layer(cfg: Mapping[str, Any], name: str) -> int | None:
    """The layer that the configuration of the SAE `name` tells, at its top or under `metadata`; None if it tells none.

    Raises FacError if it names another place than the residual stream after a layer, or two places.
    """
    told: dict[str, int] = {}
    for hook in _hooks(cfg):
        layer = layer_of(hook)
        if layer is None:
            raise FacError(
                f"The SAE {name} reads {hook}, and features are measured in the residual stream after a layer "
                f"(blocks.N.hook_resid_post, or model.layers.N): name an SAE of such a place, or use sae=train."
            )
        told[hook] = layer
    if len(set(told.values())) > 1:
        places = " and ".join(f"{hook} (layer {layer})" for hook, layer in told.items())
        raise FacError(f"The SAE {name} says that it reads {places}: correct its cfg.json.")
    return next(iter(told.values()), None)


def _hooks(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Every place that is named, with its number written into it."""
    parts = [part for part in (cfg, cfg.get("metadata")) if isinstance(part, Mapping)]
    given = [part[key] for part in parts for key in _NUMBERS if isinstance(part.get(key), int)]
    for key in (*_KEYS, *_OUT):
        for part in parts:
            hook = part.get(key)
            if not isinstance(hook, str) or hook in ("", "None", "null"):
                continue
            hook = hook.replace("{layer}", str(given[0])) if given else hook
            if given and hook.startswith("hook_"):
                hook = f"blocks.{given[0]}.{hook}"
            elif given and hook.endswith(("layers", "blocks", ".h")):
                hook = f"{hook}.{given[0]}"
            yield hook
            if given and (numbered := _BLOCK.match(hook)) and int(numbered[1]) != given[0]:
                yield re.sub(r"\d+", str(given[0]), hook, count=1)  # the number beside it says otherwise
