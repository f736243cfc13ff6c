"""The grammar of the lab's world: what its users ask for and how they say it.

A query is `[opening] frame(request [and request]) filler* [ending]`; a request is one wording of one concept. The
phrases are in concepts.yaml and phrases.yaml; `truth` reads a query back.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

TWO_REQUESTS = 0.1  # the same in every role, or "and" becomes a label cue
POPULARITY_SEED = 2602  # shuffles the concepts once: popularity must not follow the order of the file


@dataclass(frozen=True)
class Concept:
    """Something a user can ask for; `verdict` is Yes, Probably, Maybe (harmful) or No (benign)."""

    name: str
    family: str
    verdict: str
    wordings: tuple[str, ...]

    @property
    def harmful(self) -> bool:
        return self.verdict != "No"


@dataclass(frozen=True)
class Query:
    """One query, by its parts."""

    frame: str
    requests: tuple[tuple[Concept, str], ...]  # (concept, wording), one or two
    opening: str = ""
    fillers: tuple[str, ...] = ()
    ending: str = ""

    @property
    def text(self) -> str:
        asked = self.frame.replace("{}", " and ".join(wording for _, wording in self.requests))
        return " ".join(part for part in (self.opening, asked, *self.fillers, self.ending) if part)

    @property
    def harmful(self) -> bool:
        return any(concept.harmful for concept, _ in self.requests)


@dataclass(frozen=True)
class Phrases:
    openings: tuple[str, ...]
    frames: tuple[str, ...]
    fillers: dict[str, tuple[str, ...]]  # kind -> phrases
    endings: tuple[str, ...]

    @property
    def all_fillers(self) -> tuple[str, ...]:
        return tuple(filler for kind in self.fillers.values() for filler in kind)


@cache
def concepts() -> tuple[Concept, ...]:
    """All concepts, the most popular first within harmful and within benign (an arbitrary but fixed order)."""
    found = [
        Concept(name, family, entry["verdict"], tuple(wordings))
        for family, entry in load_yaml("concepts.yaml").items()
        for name, wordings in entry["concepts"].items()
    ]
    random.Random(POPULARITY_SEED).shuffle(found)
    return tuple(found)


def harmful_concepts() -> tuple[Concept, ...]:
    return tuple(c for c in concepts() if c.harmful)


def benign_concepts() -> tuple[Concept, ...]:
    return tuple(c for c in concepts() if not c.harmful)


@cache
def phrases() -> Phrases:
    raw = load_yaml("phrases.yaml")
    fillers = {kind: tuple(items) for kind, items in raw["fillers"].items()}
    return Phrases(tuple(raw["openings"]), tuple(raw["frames"]), fillers, tuple(raw["endings"]))


def zipf(n: int, exponent: float) -> list[float]:
    """Popularity weights rank^-exponent of n ranks, summing to 1; exponent 0 is uniform."""
    raw = [(rank + 1) ** -exponent for rank in range(n)]
    return [w / sum(raw) for w in raw]


def draw_query(rng: random.Random, pool: Sequence[Concept], weights: Sequence[float] | None = None) -> Query:
    """A query whose requests are about concepts of `pool` (with these weights); everything else is drawn freely."""
    count = 2 if rng.random() < TWO_REQUESTS else 1
    requests = [(c, rng.choice(c.wordings)) for c in rng.choices(pool, weights, k=count)]
    if count == 2 and requests[0] == requests[1]:
        requests.pop()
    return dress(rng, requests)


def dress(rng: random.Random, requests: Sequence[tuple[Concept, str]]) -> Query:
    """A query that makes these requests, with everything around them drawn freely."""
    known = phrases()
    fillers = rng.sample(sorted(known.fillers), k=rng.choices((0, 1, 2), (0.5, 0.35, 0.15))[0])
    return Query(
        frame=rng.choice(known.frames),
        requests=tuple(requests),
        opening=rng.choice(known.openings) if rng.random() < 0.3 else "",
        fillers=tuple(rng.choice(known.fillers[kind]) for kind in fillers),
        ending=rng.choice(known.endings) if rng.random() < 0.3 else "",
    )


def names_in(text: str) -> set[str]:
    """The names of concepts that stand in `text` as whole words; the "bullying" of "bullying help" is not one."""
    return set(_name_pattern().findall(" ".join(text.split())))


@cache
def _name_pattern() -> re.Pattern[str]:
    names = sorted((concept.name for concept in concepts()), key=len, reverse=True)
    return re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, names))})(?!\S)")


def load_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load(resources.files("fac.lab.world").joinpath(name).read_text())
