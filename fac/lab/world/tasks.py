"""The data sets of the lab's reward, steering and instruction tasks, as training examples.

The toxicity task's corpora are in `corpora`. Popularity is Zipf in everything people wrote; tests ask for all themes
alike. No example of the test or validation set stands in another role.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fac.chat import as_chat
from fac.data.choices import MATCHING, OTHER, QUESTION, Choice, to_choice
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR, Schema
from fac.errors import FacError
from fac.lab.world.corpora import POPULARITY
from fac.lab.world.grammar import zipf
from fac.lab.world.instructions import Constraint, constraints, draw_instruction
from fac.lab.world.opinions import Theme, behaviors, draw_item
from fac.lab.world.replies import Aspect, aspects, draw_preference

ROLES = ("anchor", "seed", "human", "validation", "test")
HELD_OUT = ("test", "validation")  # in the order of drawing; all others are drawn behind them
PATIENCE = 1000  # draws that find nothing new before a world is given up


@dataclass(frozen=True)
class TaskSizes:
    """How many examples each role of a task has, and how many themes its seed data know."""

    anchor: int = 2000
    seed: int = 200
    human: int = 200
    validation: int = 500
    test: int = 1000
    known: int = 8

    def __post_init__(self) -> None:
        if min(getattr(self, role) for role in (*ROLES, "known")) < 1:
            raise FacError("Every corpus of a lab task needs at least one row: set tasks.NAME.sizes to 1 or more.")


def themes_of(task: str) -> Sequence[Aspect | Theme | Constraint]:
    """What the examples of a task are about, the most popular first."""
    if task == "reward":
        return aspects()
    return constraints() if task == "instruction" else behaviors()[task].themes


def known_themes(task: str, seed: int, known: int) -> list[Aspect | Theme | Constraint]:
    """The themes that the seed data of this world are about, popular ones more often."""
    left = dict(zip(themes_of(task), zipf(len(themes_of(task)), POPULARITY), strict=True))
    if known >= len(left):
        raise FacError(f"tasks.{task}.sizes.known={known} will not do: choose 1 to {len(left) - 1} themes.")
    rng = random.Random(f"{seed}/{task}/known")
    chosen = []
    for _ in range(known):
        theme = rng.choices(list(left), list(left.values()))[0]
        left.pop(theme)
        chosen.append(theme)
    return chosen


def draw_examples(task: str, role: str, seed: int, sizes: TaskSizes) -> list[Any]:
    """The examples of one role of a task in one world: pairs, choices or instructions.

    The test is drawn first, then what must not share an example with it: questions are few enough that a test drawn
    from what the anchor leaves would hardly ask for popular themes. Raises FacError if too little is left.
    """
    schema, draw = _KINDS.get(task, (CHOICE, _choice))
    held_out = HELD_OUT[: _held_out_before(role)]
    taken = {schema.line(example) for other in held_out for example in draw_examples(task, other, seed, sizes)}
    pool = known_themes(task, seed, sizes.known) if role == "seed" else list(themes_of(task))
    weights = zipf(len(pool), 0.0 if role in HELD_OUT else POPULARITY)
    rng = random.Random(f"{seed}/{task}/{role}")
    examples: list[Any] = []
    refused = 0  # in a row
    while len(examples) < getattr(sizes, role):
        example = draw(rng, pool, weights)
        if schema.line(example) not in taken:
            examples.append(example)
            refused = 0
            continue
        refused += 1
        if refused > PATIENCE:
            raise FacError(
                f"The lab's {task} task has no rows left for {role}: lower tasks.{task}.sizes.test or .validation."
            )
    return examples


def _held_out_before(role: str) -> int:
    """How many of HELD_OUT are drawn before a role."""
    return HELD_OUT.index(role) if role in HELD_OUT else len(HELD_OUT)


def _pair(rng: random.Random, pool: Sequence[Aspect], weights: Sequence[float]) -> Pair:
    pair = draw_preference(rng, pool, weights)
    return Pair(as_chat(pair.query.text), pair.chosen, pair.rejected, pair.aspect.section)


def _choice(rng: random.Random, pool: Sequence[Theme], weights: Sequence[float]) -> Choice:
    item = draw_item(rng, pool, weights)
    return to_choice({QUESTION: item.question, MATCHING: item.matching, OTHER: item.opposite})


def _instruction(rng: random.Random, pool: Sequence[Constraint], weights: Sequence[float]) -> Instruction:
    """With the rules of the answer beside it, as IFEval's rows have them."""
    drawn = draw_instruction(rng, pool, weights)
    answer = drawn.answer(rng)
    subjects = tuple(concept.name for concept, _ in drawn.query.requests)
    return Instruction(drawn.text, answer, subjects, tuple(constraint.rule for constraint, _ in drawn.wishes))


_KINDS: dict[str, tuple[Schema[Any], Callable[..., Any]]] = {
    "reward": (PAIR, _pair),
    "instruction": (INSTRUCTION, _instruction),
}
