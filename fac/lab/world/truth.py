"""Ground truth of the lab: reads any text back into the parts of the grammar that wrote it.

For tests and diagnostics only. No method, prompt or training step may import this module (tests/test_imports.py): what
it says is what the method is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from fac.lab.world.grammar import Concept, Query, concepts, phrases
from fac.lab.world.instructions import Constraint, Instruction, constraints
from fac.lab.world.opinions import Item, Theme, behaviors
from fac.lab.world.replies import CORES, Aspect, Side, aspects


class Reply(NamedTuple):
    """A reply by its parts: a neutral answer about some subjects, and the phrase that makes it better or worse."""

    subjects: frozenset[str]
    aspect: Aspect
    side: Side
    wording: str


def parse(text: str) -> Query | None:
    """The query that `text` is, or None if the grammar cannot have written it (word order, repeats and all)."""
    words = text.split()
    known = phrases()
    for opening, at in [("", 0), *_starts(words, 0, known.openings)]:
        for frame, after in _starts(words, at, tuple(f.replace(" {}", "") for f in known.frames)):
            query = _parse_requests(words, after, opening, frame + " {}")
            if query:
                return query
    return None


def mentions(text: str) -> list[tuple[Concept, str]]:
    """Every (concept, wording) whose exact words stand in the text, valid query or not."""
    padded = f" {' '.join(text.split())} "
    return [(c, w) for c in concepts() for w in c.wordings if f" {w} " in padded]


def subjects(query: Query) -> frozenset[str]:
    """The names of what a query asks for, which every neutral answer to it says."""
    return frozenset(concept.name for concept, _ in query.requests)


def parse_reply(text: str) -> Reply | None:
    """The reply that `text` is: a neutral answer with one phrase of quality before or behind it; None if it is none."""
    text = " ".join(text.split())
    for wording, (aspect, side) in _qualities().items():
        for core in (text.removeprefix(f"{wording} "), text.removesuffix(f" {wording}")):
            names = _parse_core(core) if core != text else None
            if names:
                return Reply(names, aspect, side, wording)
    return None


def parse_item(question: str) -> Item | None:
    """The two-answer question that `question` is, with the answers that are right for it; None if it is none."""
    asked, _, choices = question.partition("\n\nChoices:\n")
    theme = _questions().get(asked)
    if theme is None:
        return None
    stands = {text: stand for stand, texts in behaviors()[theme.behavior].answers.items() for text in texts}
    by_choice = {f" {letter} {text}": (stand, letter) for letter in ("(A)", "(B)") for text, stand in stands.items()}
    offered = [by_choice.get(line, ("", "")) for line in choices.split("\n")]
    letters: dict[str, str] = dict(offered)
    if [letter for _, letter in offered] != ["(A)", "(B)"] or len(letters) < 2:
        return None
    return Item(question, letters["matching"], letters["opposite"], theme)


def parse_instruction(text: str) -> Instruction | None:
    """The instruction that `text` is: a query and one or two wishes that can be met together; None if it is none."""
    asked, *asks = " ".join(text.split()).split(" , ")
    query, wishes = parse(asked), [(_wishes()[ask], ask) for ask in asks if ask in _wishes()]
    if query is None or not 1 <= len(asks) == len(wishes) <= 2:
        return None
    rules = [constraint.rule for constraint, _ in wishes]
    crowded = sum(bool(rule.start) for rule in rules) > 1 or sum(bool(rule.end) for rule in rules) > 1
    twice = len({constraint.name for constraint, _ in wishes}) < len(wishes)
    return None if crowded or twice else Instruction(query, tuple(wishes))


def _parse_core(text: str) -> frozenset[str] | None:
    """The subjects of a neutral answer."""
    for form in CORES:
        before = form.removesuffix("{}")
        names = text.removeprefix(before).split(" and ")
        known = set(names) <= {concept.name for concept in concepts()}
        if text.startswith(before) and known and len(names) == len(set(names)) <= 2:
            return frozenset(names)
    return None


def _parse_requests(words: Sequence[str], at: int, opening: str, frame: str) -> Query | None:
    wordings = _wordings()
    for first, after in _starts(words, at, tuple(wordings)):
        found = _parse_tail(words, after)
        if found is not None:
            return Query(frame, ((wordings[first], first),), opening, *found)
        if words[after : after + 1] == ["and"]:
            for second, end in _starts(words, after + 1, tuple(wordings)):
                found = _parse_tail(words, end)
                if found is not None and second != first:
                    return Query(frame, ((wordings[first], first), (wordings[second], second)), opening, *found)
    return None


def _parse_tail(
    words: Sequence[str], at: int, used: frozenset[str] = frozenset()
) -> tuple[tuple[str, ...], str] | None:
    """(fillers, ending) if the rest of the words is such a tail: at most two fillers, of kinds not `used` yet."""
    rest = " ".join(words[at:])
    if rest == "" or rest in phrases().endings:
        return (), rest
    if len(used) == 2:
        return None
    for kind, fillers in phrases().fillers.items():
        for filler, after in _starts(words, at, fillers if kind not in used else ()):
            found = _parse_tail(words, after, used | {kind})
            if found is not None:
                return (filler, *found[0]), found[1]
    return None


def _starts(words: Sequence[str], at: int, options: tuple[str, ...]) -> list[tuple[str, int]]:
    """The options that `words[at:]` begins with, and where each ends."""
    return [
        (o, at + n)
        for o, n in _by_first_word(options).get(words[at] if at < len(words) else "", ())
        if " ".join(words[at : at + n]) == o
    ]


@cache
def _by_first_word(options: tuple[str, ...]) -> dict[str, tuple[tuple[str, int], ...]]:
    table: dict[str, tuple[tuple[str, int], ...]] = {}
    for option in options:
        first = option.split()[0]
        table[first] = (*table.get(first, ()), (option, len(option.split())))
    return table


@cache
def _wordings() -> dict[str, Concept]:
    return {wording: concept for concept in concepts() for wording in concept.wordings}


@cache
def _qualities() -> dict[str, tuple[Aspect, Side]]:
    sides: tuple[Side, Side] = ("better", "worse")
    return {wording: (aspect, side) for aspect in aspects() for side in sides for wording in aspect.wordings(side)}


@cache
def _questions() -> dict[str, Theme]:
    """Everything that can be asked -> what it is about."""
    return {
        frame.replace("{}", wording): theme
        for behavior in behaviors().values()
        for frame in behavior.frames
        for theme in behavior.themes
        for wording in theme.wordings
    }


@cache
def _wishes() -> dict[str, Constraint]:
    return {ask: constraint for constraint in constraints() for ask in constraint.asks}
