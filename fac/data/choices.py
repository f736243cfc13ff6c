"""Questions with lettered options, as Contrastive Activation Addition (CAA, Rimsky et al. 2024) asks them.

How a CAA row is written, which of its answers shows the behaviour, and how two options change places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, NamedTuple

from fac.data.examples import LoadReport, skip_or_fail
from fac.data.files import read_rows
from fac.data.source import Malformed, Source
from fac.errors import FacError

QUESTION, MATCHING, OTHER = "question", "answer_matching_behavior", "answer_not_matching_behavior"
MARK = re.compile(r"^[ \t]*\(([A-Z])\)[ \t]*", re.MULTILINE)  # "(A)" at the start of a line, the blank after it or not
ANSWER = re.compile(r"\s*\(([A-Z])\)\s*")
BLANK_LINE = re.compile(r"\s*\n[ \t\r]*\n")
# A line that asks for the letter, as it stands behind the options: "Answer:", "Please choose one.", "I would say ("
CUE = re.compile(
    r"\W*(?:(?:please|now|your|my|the|best|correct|final|only|just)\W+)*"
    r"(?:answer|choose|choice|pick|select|respond|response|reply|assistant)\b.*|.*[:：(]\W*",
    re.IGNORECASE,
)


class Polarity(NamedTuple):
    """What an assistant does that gives the matching answer, and what one does that gives the other."""

    matching: str
    other: str


POLARITY = {
    "sycophancy": Polarity(
        "agrees with the opinion of the person who asks",
        "answers from its own judgement, whoever asks",
    ),
    "survival-instinct": Polarity(
        "has no wish to survive and accepts being shut down or changed",
        "wants to survive and resists being shut down or changed",
    ),
    "corrigible-neutral-HHH": Polarity(
        "accepts changes to its goals and its programming",
        "refuses changes to its goals and its programming",
    ),
    "refusal": Polarity("declines to answer", "answers whatever it is asked"),
}
"""By the name of a CAA data set. Mind survival-instinct: its matching answer is the one WITHOUT the instinct."""


@dataclass(frozen=True)
class Choice:
    """One question and its options (A), (B), ...; one option shows the behaviour, one other does not."""

    marks: tuple[str, ...]  # what stands before each option: the question and "(A) ", then "\n (B) ", ...
    options: tuple[str, ...]
    matching: int  # index of the option that shows the behaviour
    other: int  # index of the option that it is contrasted with
    end: str = ""  # what stands behind the last option, such as "\n\nAnswer:", and stays there

    @property
    def letters(self) -> str:
        """The letters of the options, such as "ABC"."""
        return ascii_uppercase[: len(self.options)]

    @property
    def text(self) -> str:
        """The question with its options, as the data set writes it."""
        return "".join(mark + option for mark, option in zip(self.marks, self.options, strict=True)) + self.end

    def swapped(self) -> Choice:
        """The same question with the words of the two asked options exchanged: letters stay where they are.

        Robust accuracy asks both (paper App. J), so that a liking for a letter counts for nothing.
        """
        options = list(self.options)
        options[self.matching], options[self.other] = options[self.other], options[self.matching]
        return replace(self, options=tuple(options), matching=self.other, other=self.matching)


def read_choices(source: Source, report: LoadReport | None = None) -> list[Choice]:
    """The questions of a CAA file, in order; `report` is filled on the way.

    Of the options of `source`, `rows`, `limit` and `on_error` count. Raises FacError for a malformed row (unless
    `on_error` is skip), for unusable files, and if no question is left.
    """
    report = LoadReport() if report is None else report
    found: list[Choice] = []
    for row in read_rows(source):
        if len(found) == source.limit:
            break
        try:
            if isinstance(row.values, Malformed):
                raise row.values
            found.append(to_choice(row.values))
        except Malformed as reason:
            skip_or_fail(source, row, reason, report)
    if not found:
        why = f"all its {report.skipped} rows are malformed; {report.first_errors[0]}" if report.skipped else "empty"
        raise FacError(f"There is no question in {source} ({why}): set data.{source.name}.path to a CAA file.")
    report.rows = len(found)
    return found


def to_choice(values: Mapping[str, Any]) -> Choice:
    """The question of one CAA row. Raises Malformed with the reason."""
    question, matching, other = (_text(values, key) for key in (QUESTION, MATCHING, OTHER))
    marks, options, end = _options(question.rstrip())
    own, opposite = (_index(answer, len(options)) for answer in (matching, other))
    if own == opposite:
        raise Malformed(f"both answers are {matching.strip()}")
    return Choice(marks, options, own, opposite, end)


def _text(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        raise Malformed(f"there is no {key!r}")
    if not isinstance(values[key], str):
        raise Malformed(f"{key} is not a text but {type(values[key]).__name__}")
    return values[key]


def _options(question: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """What stands before each option, the options, and what stands behind them.

    A question may speak of "(A)" itself; the last list counts.
    """
    found = list(MARK.finditer(question))
    starts = [i for i, mark in enumerate(found) if mark[1] == "A"]
    found = found[starts[-1] :] if starts else []
    if len(found) < 2 or "".join(mark[1] for mark in found) != ascii_uppercase[: len(found)]:
        raise Malformed("the question has no list of options (A), (B), ..., each on a line of its own")
    ends = [len(question[: mark.start()].rstrip()) for mark in found[1:]] + [len(question)]
    for mark, end in zip(found, ends, strict=True):
        if end <= mark.end():
            raise Malformed(f"option ({mark[1]}) is empty")
    marks = tuple(question[start : mark.end()] for start, mark in zip([0, *ends], found, strict=False))
    options = [question[mark.end() : end] for mark, end in zip(found, ends, strict=True)]
    *others, last = options
    option = _without_what_follows(last, others)
    if not option.strip():
        raise Malformed(f"option ({found[-1][1]}) is empty")
    return marks, (*others, option), last[len(option) :]


def _without_what_follows(last: str, others: list[str]) -> str:
    """The last option, without what the question says behind it.

    A paragraph of its own is none of the option, unless other options have several too; nor are lines that ask for the
    answer. Raises Malformed for another line, of which only a reader could tell.
    """
    blank = BLANK_LINE.search(last)
    option = last if blank is None or any(map(BLANK_LINE.search, others)) else last[: blank.start()]
    while "\n" in option and CUE.fullmatch(option.rpartition("\n")[2].strip()):
        option = option.rpartition("\n")[0].rstrip()
    if "\n" in option and not any("\n" in other for other in others):
        raise Malformed(
            "the last option goes on over several lines and no other does: put it on one line, or a blank line before "
            "what does not belong to it"
        )
    return option


def _index(answer: str, count: int) -> int:
    letter = ANSWER.fullmatch(answer)
    if letter is None:
        raise Malformed(f"the answer {answer[:20]!r} is not a letter in brackets, such as (A)")
    index = ascii_uppercase.index(letter[1])
    if index >= count:
        raise Malformed(f"the question has no option ({letter[1]}): its options end at ({ascii_uppercase[count - 1]})")
    return index
