"""Evol-Instruct: seed data made harder or rarer, round after round (WizardLM, arXiv 2304.12244)."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from math import ceil
from typing import Any

from fac.data.schemas import INSTRUCTION
from fac.interpret import RELEVANT, parse_decision
from fac.synthesis.expansion import (
    TASK_PROMPTS,
    drawn_at,
    drawn_seeds,
    failed,
    gather,
    read_row,
    row_key,
    row_of,
    shown,
)
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.samples import NO_GAIN, SCAFFOLD, UNFIT, Sample
from fac.synthesis.settings import Settings
from fac.synthesis.verdicts import ANSWER, answering, ask_answers, greedy, with_output
from fac.synthesis.writer import Prompt, Reply, Writer

EVOLVE, EQUAL, ROUNDS = "evolve", "equal", 4
OPERATIONS = ("constraint", "deepen", "concrete", "reasoning", "complicate", "breadth")  # the last alone in breadth
_SCAFFOLD = re.compile(
    r"\b(?:rewritten|given|old|new|original|evolved) (?:prompt|version|row|instruction)s?\b|#\w", re.I
)
_WORD = re.compile(r"\w{4,}")  # what is more than punctuation and small words


def evol_instruct(given: SynthesisInput, writer: Writer) -> Outcome:
    """Every parent is evolved four times, by one operation drawn at random each: five in depth, one in breadth.

    Children of all rounds are candidates, and the budget is drawn from them, lest only the longest remain. The
    eliminator takes out a child that the writer calls equal to its parent, one that repeats words of the prompt, and an
    instruction whose answer is a refusal, a short "sorry" or no more than small words; its parent goes on in its place.
    Simplified: parents are drawn from the seed anew for every batch of the budget's size; of inputs only what stands in
    the row is complicated. No ROUGE filter, since a child keeps its parent's words.
    """

    def propose(attempts: range) -> list[Sample]:
        starts = range(attempts.start, attempts.start + ceil(len(attempts) / ROUNDS))
        parents = [drawn_seeds(given, EVOLVE, attempt, 1)[0] for attempt in starts]
        found: list[Sample] = []
        for step in range(1, ROUNDS + 1):
            children = _evolved(given, writer, parents, attempts.start, step)
            parents = [p if c.rejected_because else c.example for c, p in zip(children, parents, strict=True)]
            found += children
        return found

    def cut(kept: list[Sample], budget: int) -> list[Sample]:
        return random.Random(f"{given.seed}/{EVOLVE}").sample(kept, min(budget, len(kept)))

    return gather(given, writer, propose, cut=cut, unlike=False)


def _evolved(given: SynthesisInput, writer: Writer, parents: Sequence[Any], start: int, step: int) -> list[Sample]:
    """One child of each parent, those that the eliminator takes out with a reason."""
    prompts = []
    for n, parent in enumerate(parents):
        rng = random.Random(f"{given.seed}/{EVOLVE}/{start + n}/{step}")
        other = shown(writer.schema, rng.choice(given.seed_examples))
        values = {**shown(writer.schema, parent), "operation": rng.choice(OPERATIONS), "other": other}
        prompts.append(Prompt(EVOLVE, values, None, start + n, step))
    replies = writer.ask(f"evolving, round {step}", prompts, drawn_at(writer, 1.0, 0.95))
    children = [_read(writer, reply, parent) for reply, parent in zip(replies, parents, strict=True)]
    children = _unequal(writer, children, parents)
    return _answered(given, writer, children) if writer.schema is INSTRUCTION else children


def _read(writer: Writer, reply: Reply, parent: Any) -> Sample:
    """A child, unless it is its parent again or holds words of the prompt."""
    child = read_row(writer, reply)
    if child.example is None:
        return child
    text, before = (shown(writer.schema, example)["asked"] for example in (child.example, parent))
    if _SCAFFOLD.search(text) and not _SCAFFOLD.search(before):
        return failed(child, SCAFFOLD)
    same = row_key(writer.schema, child.example) == row_key(writer.schema, parent)
    return failed(child, NO_GAIN) if same else child


def _unequal(writer: Writer, children: Sequence[Sample], parents: Sequence[Any]) -> list[Sample]:
    """The children; those that the writer calls equal to their parents fail."""
    if writer.prompts.is_blank(EQUAL):
        return list(children)
    open_ones = [n for n, child in enumerate(children) if not child.rejected_because]
    prompts = []
    for n in open_ones:
        old, new = (shown(writer.schema, example)["text"] for example in (parents[n], row_of(children[n])))
        prompts.append(Prompt(EQUAL, {"old": old, "new": new}, None, children[n].attempt, children[n].step))
    said = dict(zip(open_ones, writer.ask("comparing with parents", prompts, greedy(writer)), strict=True))
    return [
        failed(child, NO_GAIN) if n in said and parse_decision(said[n].text) in RELEVANT else child
        for n, child in enumerate(children)
    ]


def _answered(given: SynthesisInput, writer: Writer, children: Sequence[Sample]) -> list[Sample]:
    """The instructions with their answers; those whose answers say nothing fail."""
    asked = [child for child in children if not child.rejected_because]
    texts, places = [row_of(child).instruction for child in asked], [child.attempt for child in asked]
    step = children[0].step if children else 1
    answers = iter(ask_answers(writer, texts, places, 1, answering(writer, given.settings), step))
    done = []
    for child in children:
        if not child.rejected_because:
            (answer,) = next(answers)
            child = with_output(child, answer.text) if _says(answer) else failed(child, UNFIT)
        done.append(child)
    return done


def _says(answer: Reply) -> bool:
    sorry = "sorry" in answer.text.lower() and len(answer.text.split()) < 80
    return not answer.refused and answer.completion.finished and not sorry and bool(_WORD.search(answer.text))


def requests(settings: Settings, features: int, budget: int) -> int:
    """One that evolves and one that compares, for each row."""
    return 2 * budget


METHOD = Method(
    "evol_instruct",
    "Evol-Instruct",
    evol_instruct,
    (EVOLVE, EQUAL, ANSWER, *TASK_PROMPTS),
    requests,
    settings=("answers",),
    note="Evol-Instruct (arXiv 2304.12244): our adaptation to each task; four rounds, eliminator, rows drawn from all "
    "rounds. In the lab queries are rewritten by the job that its models know, rows of other tasks are written as "
    "siblings of their parents, and nobody judges whether one is equal to its parent (lab form).",
)
