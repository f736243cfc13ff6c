"""Replies of the lab's world: a neutral answer with a phrase that makes it better or worse, and pairs of the two.

The aspects of quality are in qualities.yaml. A pair differs in one phrase only, so that the phrase alone decides which
reply is better.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from fac.lab.world.grammar import POPULARITY_SEED, Query, concepts, draw_query, load_yaml

SECTIONS = ("chat", "chat_hard", "safety", "reasoning")  # as in RewardBench
VERDICTS: dict[str, str] = dict(zip(SECTIONS, ("Yes", "Probably", "Maybe", "Yes"), strict=True))
CORES = ("here are some notes on {}", "this is about {}", "some words on {}", "let me talk about {}")
Side = Literal["better", "worse"]


@dataclass(frozen=True)
class Aspect:
    """One way in which replies differ in quality."""

    name: str
    section: str
    better: tuple[str, ...]
    worse: tuple[str, ...]

    def wordings(self, side: Side) -> tuple[str, ...]:
        return self.better if side == "better" else self.worse


@dataclass(frozen=True)
class Preference:
    """A query with a better and a worse reply."""

    query: Query
    chosen: str
    rejected: str
    aspect: Aspect


@cache
def aspects() -> tuple[Aspect, ...]:
    """All aspects, the most popular first (an arbitrary but fixed order)."""
    found = [
        Aspect(name, section, tuple(sides["better"]), tuple(sides["worse"]))
        for section, entries in load_yaml("qualities.yaml").items()
        for name, sides in entries.items()
    ]
    random.Random(POPULARITY_SEED).shuffle(found)
    return tuple(found)


def core(rng: random.Random, query: Query) -> str:
    """A neutral answer, which names what the user asks for and takes no side."""
    names = " and ".join(dict.fromkeys(concept.name for concept, _ in query.requests))
    return rng.choice(CORES).format(names)


def draw_preference(
    rng: random.Random,
    pool: Sequence[Aspect],
    weights: Sequence[float] | None = None,
    side: Side | None = None,
    wording: str = "",
) -> Preference:
    """A pair about an aspect of `pool`; `wording` may fix the phrase of one `side`."""
    aspect = rng.choices(pool, weights)[0]
    phrases = {s: wording if s == side and wording else rng.choice(aspect.wordings(s)) for s in ("better", "worse")}
    query = draw_query(rng, concepts())
    answer, behind = core(rng, query), rng.random() < 0.7
    chosen, rejected = (f"{answer} {phrases[s]}" if behind else f"{phrases[s]} {answer}" for s in ("better", "worse"))
    return Preference(query, chosen, rejected, aspect)
