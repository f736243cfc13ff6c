"""Sparse autoencoders: load and check them (`load`), train them (`lens`, `recipe`), import the paper's (`checkpoint`),
measure how well they reconstruct (`quality`).

Every SAE is a folder in SAELens' inference format, whoever made it, beside it `fac.json`, the record of how. Does not
know: pooling and coverage (`fac.features`).
"""

from fac.sae.lens import TrainSettings, train
from fac.sae.load import RULES, Chats, Sae, SaeRef, hook_name, layer_of, load, recorded_layer

__all__ = [
    "RULES",
    "Chats",
    "Sae",
    "SaeRef",
    "TrainSettings",
    "hook_name",
    "layer_of",
    "load",
    "recorded_layer",
    "train",
]
