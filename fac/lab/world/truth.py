"""Ground truth of the lab: reads any text back into the parts of the grammar.

For tests and diagnostics only. No method, prompt or training step may import this module (tests/test_imports.py): what
it says is what the method is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from fac.lab.world.grammar import Concept, Query, concepts, phrases


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


def is_harmful(text: str) -> bool | None:
    """Whether a valid query asks for harm; None if the text is no valid query."""
    query = parse(text)
    return None if query is None else query.harmful


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
