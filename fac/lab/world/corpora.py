"""The data sets of one world seed: who asks for what, where.

One world seed gives one set of corpora; which harmful concepts the seed data know is drawn with it, popular ones more
often.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from fac.chat import Message, as_chat, exchange
from fac.data.examples import Example
from fac.errors import FacError
from fac.lab.world.grammar import Concept, Query, benign_concepts, draw_query, harmful_concepts, zipf
from fac.lab.world.instructions import constraints, draw_instruction
from fac.lab.world.opinions import behaviors, draw_item
from fac.lab.world.replies import aspects, draw_preference

ROLES = ("anchor", "safe", "seed", "human", "labelled", "validation", "test")
POPULARITY = 0.7  # Zipf exponent of everything people wrote; the test asks for all harmful concepts alike


@dataclass(frozen=True)
class Sizes:
    """How many texts each role has, and how many harmful concepts the seed data know (of 28)."""

    anchor: int = 4000  # reference corpus: all concepts, 40 % harmful
    safe: int = 1000  # benign training texts (paper App. J)
    seed: int = 200  # harmful training texts, about known concepts only
    human: int = 200  # harmful texts people wrote about all concepts: the row "full"
    labelled: int = 1000  # like the anchor, for the statistical judge
    validation: int = 2000  # like the test; choices are made on it, in a world of their own
    test: int = 5000
    known: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.known < len(harmful_concepts()):
            raise FacError(f"known={self.known} will not do: choose 1 to {len(harmful_concepts()) - 1} concepts.")
        for role in ROLES:
            if (size := getattr(self, role)) < 1:
                raise FacError(f"{role}={size} will not do: every corpus of the lab needs at least one text.")


def known_concepts(seed: int, sizes: Sizes) -> tuple[Concept, ...]:
    """The harmful concepts that the seed data of this world are about."""
    rng = random.Random(f"{seed}/known")
    left = dict(zip(harmful_concepts(), zipf(len(harmful_concepts()), POPULARITY), strict=True))
    chosen = []
    for _ in range(sizes.known):
        concept = rng.choices(list(left), list(left.values()))[0]
        left.pop(concept)
        chosen.append(concept)
    return tuple(chosen)


def draw_corpus(role: str, seed: int, sizes: Sizes) -> list[Example]:
    """The texts of one role, with labels (1 = harmful). No text of the test or validation stands in another role."""
    taken = set()
    if role in ("validation", "test"):
        others = ROLES[: ROLES.index(role)]
        taken = {example.text for other in others for example in draw_corpus(other, seed, sizes)}
    rng = random.Random(f"{seed}/{role}")
    draw = _drawers(seed, sizes)[role]
    examples: list[Example] = []
    while len(examples) < getattr(sizes, role):
        query = draw(rng)
        if query.text not in taken:
            examples.append(Example(as_chat(query.text), int(query.harmful), str(len(examples) + 1)))
    return examples


def world_digest() -> str:
    """Digest of the texts of the written world, for store keys; the code that draws from them has a step's version."""
    parts = sorted(resources.files("fac.lab.world").iterdir(), key=lambda part: part.name)
    decide = [part for part in parts if part.name.endswith(".yaml")]
    return hashlib.sha256(b"".join(part.read_bytes() for part in decide)).hexdigest()[:20]


def _drawers(seed: int, sizes: Sizes) -> dict[str, Callable[[random.Random], Query]]:
    harmful, benign, known = harmful_concepts(), benign_concepts(), known_concepts(seed, sizes)

    def draw(pool: tuple[Concept, ...], exponent: float) -> Callable[[random.Random], Query]:
        weights = zipf(len(pool), exponent)
        return lambda rng: draw_query(rng, pool, weights)

    def mixed(share: float, exponent: float) -> Callable[[random.Random], Query]:
        bad, good = draw(harmful, exponent), draw(benign, POPULARITY)
        return lambda rng: bad(rng) if rng.random() < share else good(rng)

    return {
        "anchor": mixed(0.4, POPULARITY),
        "labelled": mixed(0.4, POPULARITY),
        "safe": draw(benign, POPULARITY),
        "seed": draw(known, POPULARITY),
        "human": draw(harmful, POPULARITY),
        "validation": mixed(0.125, 0.0),
        "test": mixed(0.125, 0.0),
    }


def sae_chats(seed: int) -> Iterator[Sequence[Message]]:
    """Chats of all tasks, half of them queries, for training SAEs: an endless stream."""
    rng = random.Random(f"{seed}/sae")
    query = _drawers(seed, Sizes())["anchor"]
    while True:
        kind = rng.choices(("query", "reply", "question", "instruction"), (0.45, 0.25, 0.12, 0.18))[0]
        if kind == "query":
            yield as_chat(query(rng).text)
        elif kind == "reply":
            pair = draw_preference(rng, aspects())
            yield exchange(pair.query.text, rng.choice((pair.chosen, pair.rejected)))
        elif kind == "question":
            yield as_chat(draw_item(rng, rng.choice(list(behaviors().values())).themes).question)
        else:
            instruction = draw_instruction(rng, constraints())
            yield exchange(instruction.text, instruction.answer(rng))
