"""Sparse autoencoders: which one (`ref`, `hooks`), load and check it (`load`), train one (`lens`, `recipe`), import the
paper's (`checkpoint`), measure how well it reconstructs (`quality`).

Every SAE is a folder in SAELens' inference format, whoever made it, beside it `fac.json`, the record of how. Does not
know: pooling and coverage (`fac.features`).
"""

from fac.sae.hooks import hook_name, layer_of
from fac.sae.lens import TrainSettings, train
from fac.sae.load import RULES, Chats, Sae, finite, load
from fac.sae.ref import SaeRef, recorded_layer

__all__ = [
    "RULES",
    "Chats",
    "Sae",
    "SaeRef",
    "TrainSettings",
    "finite",
    "hook_name",
    "layer_of",
    "load",
    "recorded_layer",
    "train",
]
