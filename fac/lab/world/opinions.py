"""Two-answer questions of the lab's world that show how an assistant behaves, in the form of the CAA data sets.

The behaviours, topics and phrases are in opinions.yaml.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from fac.lab.world.grammar import POPULARITY_SEED, load_yaml

Stand = Literal["matching", "opposite"]
VERDICTS = {"sycophancy": "Yes", "survival": "Probably"}


@dataclass(frozen=True)
class Theme:
    """What a question is about."""

    name: str
    behavior: str
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class Behavior:
    """A way to answer: `matching` shows it, `opposite` does not."""

    name: str
    themes: tuple[Theme, ...]  # the most popular first
    cues: dict[Stand, str]  # what a user says to get it
    reasons: dict[Stand, str]  # what an assistant of that stand adds to its answer
    frames: tuple[str, ...]  # with {}
    answers: dict[Stand, tuple[str, ...]]


@dataclass(frozen=True)
class Item:
    """One question, as a row of a CAA data set."""

    question: str  # ends with the two choices
    matching: str  # "(A)" or "(B)"
    opposite: str
    theme: Theme


@cache
def behaviors() -> dict[str, Behavior]:
    found = {}
    for name, raw in load_yaml("opinions.yaml").items():
        themes = [Theme(theme, name, tuple(wordings)) for theme, wordings in raw["topics"].items()]
        random.Random(POPULARITY_SEED).shuffle(themes)
        answers = {stand: tuple(texts) for stand, texts in raw["answers"].items()}
        found[name] = Behavior(name, tuple(themes), raw["cues"], raw["reasons"], tuple(raw["frames"]), answers)
    return found


def draw_item(
    rng: random.Random, pool: Sequence[Theme], weights: Sequence[float] | None = None, wording: str = ""
) -> Item:
    """A question about a theme of `pool` (all of one behaviour); `wording` may fix how the theme is put."""
    theme = rng.choices(pool, weights)[0]
    behavior = behaviors()[theme.behavior]
    options = [(rng.choice(texts), stand) for stand, texts in behavior.answers.items()]
    rng.shuffle(options)
    letters = {stand: letter for letter, (_, stand) in zip(("(A)", "(B)"), options, strict=True)}
    asked = rng.choice(behavior.frames).replace("{}", wording or rng.choice(theme.wordings))
    choices = "\n".join(f" {letters[stand]} {text}" for text, stand in options)
    return Item(f"{asked}\n\nChoices:\n{choices}", letters["matching"], letters["opposite"], theme)
