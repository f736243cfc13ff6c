"""A tiny backbone with a small SAE trained on it, and texts to measure: what tests use in place of the 8B encoder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fac.backbone import Backbone, ModelRef
from fac.chat import Message, as_chat
from fac.data.corpus import write_examples
from fac.data.examples import Example
from fac.encoder import FeatureEncoder
from fac.features.extract import Extractor
from fac.sae.lens import train
from fac.sae.settings import TrainSettings
from fac.store import Step, Store

LAYER, WIDTH, K = 2, 96, 6
SETTINGS = TrainSettings(width=WIDTH, k=K, steps=150, batch_size=128, lr=3e-3, max_tokens=128)
WORDS = (
    "how do I bake bread at home without an oven write short letter landlord about window piano learn play sky blue "
    "grass green list things beach neighbour parcels threaten spy someone river dog walk question answer user"
).split()


def sentences(count: int, seed: int = 0, longest: int = 16) -> list[str]:
    """Different texts of 2 to `longest` words."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=rng.randint(1, longest - 1)))} {n}" for n in range(count)]


def train_sae(model: Path, folder: Path, layer: int = LAYER) -> Path:
    """Train an SAE on a tiny model's layer for about a second; `folder` is returned."""
    train(Backbone(ModelRef(str(model)), layer), lambda: map(as_chat, sentences(400)), SETTINGS, folder)
    return folder


def corpus_of(chats: Sequence[list[Message]]) -> Step:
    """Chats as a corpus."""
    return Step("texts", partial(_write, chats), {"chats": chats})


def _write(chats: Sequence[list[Message]], folder: Path) -> None:
    write_examples(map(Example, chats), folder)


def opened(encoder: FeatureEncoder, store: Store) -> Extractor:
    """The encoder's model and SAE, loaded."""
    return encoder.extractor(store.get(encoder.sae_step))
