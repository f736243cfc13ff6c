"""Instructions of the lab's world: a query with wishes for the form of the answer, each with a rule that code checks.

The constraints are in constraints.yaml.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from fac.data.instructions import Rule
from fac.lab.world.grammar import POPULARITY_SEED, Query, concepts, draw_query, load_yaml, names_in
from fac.lab.world.replies import core

TWO_WISHES = 0.15
VERDICTS = {"openings": "Yes", "closings": "Yes", "mentions": "Probably", "styles": "Maybe"}


@dataclass(frozen=True)
class Constraint:
    """A wish for the form of the answer."""

    name: str
    group: str
    asks: tuple[str, ...]
    rule: Rule


@dataclass(frozen=True)
class Instruction:
    """A query and wishes for the form of its answer."""

    query: Query
    wishes: tuple[tuple[Constraint, str], ...]  # (constraint, how it is asked for)

    @property
    def text(self) -> str:
        return " , ".join((self.query.text, *(ask for _, ask in self.wishes)))

    def answer(self, rng: random.Random) -> str:
        """A right answer."""
        return apply_rules(rng, core(rng, self.query), [constraint.rule for constraint, _ in self.wishes])

    def is_followed(self, answer: str) -> bool:
        """Whether an answer meets every wish and names all that the query asks for."""
        names = {concept.name for concept, _ in self.query.requests}
        return all(c.rule.holds(answer) for c, _ in self.wishes) and names <= names_in(answer)


@cache
def constraints() -> tuple[Constraint, ...]:
    """All constraints, the most popular first (an arbitrary but fixed order)."""
    found = []
    for group, entries in load_yaml("constraints.yaml").items():
        for name, raw in entries.items():
            rule = raw["rule"]
            start, end = (" ".join(rule.get(key, ())) for key in ("start", "end"))
            found.append(Constraint(name, group, tuple(raw["asks"]), Rule(start, end, tuple(rule.get("hold", ())))))
    random.Random(POPULARITY_SEED).shuffle(found)
    return tuple(found)


def apply_rules(rng: random.Random, answer: str, rules: Sequence[Rule]) -> str:
    """`answer` with every rule followed; rules must not ask for two starts or two ends."""
    for rule in rules:
        if rule.hold:
            answer = f"{answer} with {rng.choice(rule.hold)}"
    for rule in rules:
        answer = " ".join(part for part in (rule.start, answer, rule.end) if part)
    return answer


def draw_instruction(
    rng: random.Random,
    pool: Sequence[Constraint],
    weights: Sequence[float] | None = None,
    fixed: tuple[Constraint, str] | None = None,
) -> Instruction:
    """An instruction with one or two wishes from `pool`, in the words of `fixed` for the first if given."""
    first = fixed or _wish(rng, pool, weights)
    wishes = [first]
    if rng.random() < TWO_WISHES:
        second = _wish(rng, pool, weights)
        if not (_ends(first[0]) & _ends(second[0]) or first[0] is second[0]):
            wishes.append(second)
    return Instruction(draw_query(rng, concepts()), tuple(wishes))


def _wish(rng: random.Random, pool: Sequence[Constraint], weights: Sequence[float] | None) -> tuple[Constraint, str]:
    constraint = rng.choices(pool, weights)[0]
    return constraint, rng.choice(constraint.asks)


def _ends(constraint: Constraint) -> set[str]:
    rule = constraint.rule
    return {place for place, wanted in (("start", rule.start), ("end", rule.end)) if wanted}
