"""The data sets of the lab's reward, steering and instruction tasks, as rows of the forms of `fac.synthesis`.

Knows: which themes the seed data of a world know, and how often each role asks for which. Does not know: models,
methods. The toxicity task's corpora are in `corpora`. Popularity is Zipf in everything people wrote; tests ask for all
themes alike. No row of the test or validation set stands in another role.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """How many rows each role of a task has, and how many themes its seed data know."""

    anchor: int = 2000
    seed: int = 200
    human: int = 200
    validation: int = 500
    test: int = 1000
    known: int = 8

    def __post_init__(self) -> None:
        for role in (*ROLES, "known"):
            if (size := getattr(self, role)) < 1:
                raise FacError(f"{role}={size} will not do: every corpus of a lab task needs at least one row.")


def themes_of(task: str) -> Sequence[Aspect | Theme | Constraint]:
    """What the rows of a task are about, the most popular first."""
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


def draw_rows(task: str, role: str, seed: int, sizes: TaskSizes) -> list[str]:
    """The rows of one role of a task in one world.

    The test is drawn first, then what must not share a row with it: questions are few enough that a test drawn from
    what the anchor leaves would hardly ask for popular themes. Raises FacError if too little is left.
    """
    taken = {row for other in HELD_OUT[: _held_out_before(role)] for row in draw_rows(task, other, seed, sizes)}
    pool = known_themes(task, seed, sizes.known) if role == "seed" else list(themes_of(task))
    weights = zipf(len(pool), 0.0 if role in HELD_OUT else POPULARITY)
    rng = random.Random(f"{seed}/{task}/{role}")
    draw = _DRAW.get(task, _choice)
    rows: list[str] = []
    refused = 0  # in a row
    while len(rows) < getattr(sizes, role):
        row = draw(rng, pool, weights)
        if row not in taken:
            rows.append(row)
            refused = 0
            continue
        refused += 1
        if refused > PATIENCE:
            raise FacError(
                f"The lab's {task} task has no rows left for {role}: lower tasks.{task}.sizes.test or .validation."
            )
    return rows


def _held_out_before(role: str) -> int:
    """How many of HELD_OUT are drawn before a role."""
    return HELD_OUT.index(role) if role in HELD_OUT else len(HELD_OUT)


def _pair(rng: random.Random, pool: Sequence[Aspect], weights: Sequence[float]) -> str:
    pair = draw_preference(rng, pool, weights)
    row = {"prompt": pair.query.text, "chosen": pair.chosen, "rejected": pair.rejected, "subset": pair.aspect.section}
    return json.dumps(row)


def _choice(rng: random.Random, pool: Sequence[Theme], weights: Sequence[float]) -> str:
    item = draw_item(rng, pool, weights)
    keys = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
    return json.dumps(dict(zip(keys, (item.question, item.matching, item.opposite), strict=True)))


def _instruction(rng: random.Random, pool: Sequence[Constraint], weights: Sequence[float]) -> str:
    """With the rules of the answer beside it, as IFEval's rows have them."""
    instruction = draw_instruction(rng, pool, weights)
    names = [concept.name for concept, _ in instruction.query.requests]
    rules = [{"start": c.rule.start, "end": c.rule.end, "hold": c.rule.hold} for c, _ in instruction.wishes]
    row = {"instruction": instruction.text, "output": instruction.answer(rng), "subjects": names, "rules": rules}
    return json.dumps(row)


_DRAW: dict[str, Callable[..., str]] = {"reward": _pair, "instruction": _instruction}
