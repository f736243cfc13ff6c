"""Rows to chats: which column is the text, what a conversation looks like, and what is kept of it.

Columns and conversation layouts are those of the data sets in use: ToxicChat, Alpaca, LIMA, HH-RLHF, UltraFeedback,
ShareGPT and their like. Files are read in `fac.data.files`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fac.data.files import read_rows
from fac.data.labels import Labels
from fac.data.source import Malformed, Row, Source, listing, lookup
from fac.data.turns import string_of, turns_of
from fac.errors import FacError

if TYPE_CHECKING:  # fac.chat needs transformers; a message is a plain dict
    from fac.chat import Message

Item = TypeVar("Item")

AUTO_COLUMNS = (
    "text",
    "prompt",
    "instance",
    "user_input",
    "query",
    "question",
    "instruction",  # joined with "input" where there is one
    "messages",
    "conversations",
    "conversation",
    "chosen",  # an HH-RLHF transcript, or a list of messages
    "transcript",
)
"""Columns that `text: auto` looks for; the first one that the first row has, holding a text or a list, is the text."""

REPLIES = ("chosen", "transcript")  # the text only where they hold a conversation
FIRST_ERRORS = 5  # reasons kept of skipped rows
MOST_REASONS = 8  # different reasons that are counted
QUOTED = re.compile(r"'[^']*'|\(.*\)|\d+")  # what differs between rows that are malformed for one reason


@dataclass(frozen=True)
class Example:
    """One text of a corpus, as a chat."""

    messages: list[Message]
    label: int | None = None  # 0 or 1
    id: str = ""

    @property
    def text(self) -> str:
        """What the messages say, joined by blank lines."""
        return "\n\n".join(message["content"] for message in self.messages)


@dataclass
class LoadReport:
    """What became of the rows of a source."""

    rows: int = 0  # texts kept
    skipped: int = 0  # malformed rows left out (on_error=skip)
    duplicates: int = 0  # exact repeats left out (dedup)
    first_errors: list[str] = field(default_factory=list)  # place and reason of the first skipped rows
    reasons: dict[str, int] = field(default_factory=dict)  # how many rows were skipped for what
    empty_labels: int = 0  # cells of several label columns that say nothing, in rows that are kept

    def __str__(self) -> str:
        parts = [f"{self.rows} texts"]
        if self.duplicates:
            parts.append(f"{self.duplicates} exact repeats left out")
        if self.empty_labels:
            parts.append(f"{self.empty_labels} empty cells of label columns left out")
        if self.skipped:
            counts = "; ".join(f"{count}: {reason}" for reason, count in self.reasons.items())
            parts.append(f"{self.skipped} malformed rows skipped (first: {self.first_errors[0]}; all: {counts})")
        return ", ".join(parts)

    def notes(self, name: str) -> tuple[str, ...]:
        """What a table that rests on the data set `name` has to say about it: nothing, if every row was kept."""
        return (f"{name}: {self}.",) if self.skipped or self.empty_labels else ()

    def skip(self, place: str, reason: str) -> None:
        """Count a malformed row."""
        self.skipped += 1
        if len(self.first_errors) < FIRST_ERRORS:
            self.first_errors.append(f"{place}: {reason}")
        kind = QUOTED.sub("...", reason)
        if kind not in self.reasons and len(self.reasons) >= MOST_REASONS:
            kind = "other reasons"
        self.reasons[kind] = self.reasons.get(kind, 0) + 1


def left_out(reports: Mapping[str, LoadReport]) -> tuple[str, ...]:
    """What a table has to say of the rows of its data sets, by their names."""
    return tuple(note for name, report in reports.items() for note in report.notes(name))


class Placed(NamedTuple):
    """One text with the row that it was read from."""

    example: Example
    row: Row  # its place, and its values as they are in the file
    columns: tuple[str, ...]  # those that the text was read from


def read_examples(source: Source, report: LoadReport | None = None) -> Iterator[Example]:
    """Yield the texts of `source`, in order; `report` is filled on the way. See `read_placed`."""
    return (placed.example for placed in read_placed(source, report))


def read_placed(source: Source, report: LoadReport | None = None) -> Iterator[Placed]:
    """Yield the texts of `source` with their rows, in order; `report` is filled on the way.

    An example's id is the row's own `id` (a text or a number), otherwise its position among the rows of the source,
    counted from 1. Memory does not grow with the source, except for 16-byte hashes of all texts under `dedup`.
    Raises FacError for a malformed row (unless `on_error` is skip), for unusable files, and if nothing is left.
    """
    report = LoadReport() if report is None else report
    names: tuple[str, ...] | None = None if source.text == "auto" else _as_tuple(source.text)
    labels = Labels(source)

    def convert(row: Row, values: dict[str, Any], position: int) -> list[Placed]:
        nonlocal names
        if names is None:
            names = _recognise(values, source)
        return [Placed(_to_example(values, names, source, labels, position), row, names)]

    yield from sift(source, read_rows(source), convert, lambda placed: placed.example.messages, report, "text")
    report.empty_labels = labels.empty
    labels.check()


def sift(
    source: Source,
    rows: Iterable[Row],
    convert: Callable[[Row, dict[str, Any], int], list[Item]],
    identity: Callable[[Item], Any],
    report: LoadReport | None,
    noun: str,
) -> Iterator[Item]:
    """What `convert` makes of the rows of `source`, under the source's `on_error`, `dedup` and `limit`.

    `convert` is given the row, its values and its position (from 1), and raises Malformed for a row that cannot be
    used. Two items are repeats if their `identity` (anything that JSON can hold) is the same. `noun` is what one item
    is called. Raises FacError for a malformed row (unless `on_error` is skip) and if nothing is left.
    """
    report = LoadReport() if report is None else report
    seen: set[bytes] = set()
    for position, row in enumerate(rows, start=1):
        try:
            if isinstance(row.values, Malformed):
                raise row.values
            items = convert(row, row.values, position)
        except Malformed as reason:
            skip_or_fail(source, row, reason, report)
            continue
        for item in items:
            if source.dedup:
                digest = text_digest(json.dumps(identity(item)))
                if digest in seen:
                    report.duplicates += 1
                    continue
                seen.add(digest)
            report.rows += 1
            yield item
            if report.rows == source.limit:
                return
    if not report.rows:
        why = (
            f"all its {report.skipped} rows are malformed; {report.first_errors[0]}"
            if report.skipped
            else "it is empty"
        )
        raise FacError(f"There is no {noun} in {source} ({why}): set data.{source.name}.path to a file with {noun}s.")


def skip_or_fail(source: Source, row: Row, reason: Malformed, report: LoadReport) -> None:
    """Count a malformed row in `report`. Raises FacError, naming its place, unless the source's `on_error` is skip."""
    if source.on_error == "fail":
        mend = f"mend the row, or data.{source.name}.on_error=skip counts and skips such rows"
        raise FacError(f"{row.place}: {reason}; {mend}.") from None
    report.skip(row.place, str(reason))


def _to_example(
    values: dict[str, Any], names: tuple[str, ...], source: Source, labels: Labels, position: int
) -> Example:
    conversation = _conversation(values, names, source)
    messages = _users_words(conversation) if source.turns == "user" else _all_turns(conversation)
    example = Example(messages, None, id_of(values, position))
    check_characters(example.text + example.id)
    return replace(example, label=labels.of(values))


def id_of(values: dict[str, Any], position: int) -> str:
    """The row's own `id` (a text or a number), otherwise its position."""
    own = values.get("id")
    return str(own if isinstance(own, (str, int)) and own != "" else position)


def check_characters(text: str) -> None:
    """Raise Malformed if `text` cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed("the text holds half of a surrogate pair, which is no character") from None


def _recognise(values: dict[str, Any], source: Source) -> tuple[str, ...]:
    """The text columns of a source whose first well-formed row is `values`."""
    for name in AUTO_COLUMNS:
        value = values.get(name)
        if name in REPLIES and isinstance(value, str) and turns_of(value, name) is None:
            continue
        if isinstance(value, (str, list)):
            return (name, "input") if name == "instruction" else (name,)
    if any(name in values and not _holds(values[name]) for name in AUTO_COLUMNS):
        raise Malformed("the text is empty")
    headerless = "" if source.columns else "; a .csv or .tsv without a header line needs data.{}.columns=[...]"
    raise FacError(
        f"No column of {source} is known to hold the text (found: {listing(values)}): "
        f"set data.{source.name}.text=COLUMN{headerless.format(source.name)}."
    )


def _holds(value: Any) -> bool:
    """Whether a cell holds anything; NaN is what pandas writes where there is nothing."""
    return value is not None and value == value


def _conversation(values: dict[str, Any], names: tuple[str, ...], source: Source) -> list[Message]:
    """The turns of a row; plain texts in a list (UltraChat) are the user's and the assistant's in turn."""
    if len(names) == 1:
        value = lookup(values, names[0])
        if source.text != "auto" and isinstance(value, list) and all(isinstance(turn, str) for turn in value):
            value = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(value)]
        turns = turns_of(value, names[0])
        return [{"role": "user", "content": string_of(value, names[0])}] if turns is None else turns
    optional = names[1:] if source.text == "auto" else ()
    parts = [_plain(lookup(values, name), name) for name in names if name in values or name not in optional]
    return [{"role": "user", "content": "\n\n".join(part for part in parts if part.strip())}]


def _plain(value: Any, name: str) -> str:
    """A text that is to be joined with others."""
    if isinstance(value, str) and turns_of(value, name) is not None:
        raise Malformed(f"{name} holds a conversation, which cannot be joined with other columns")
    return string_of(value, name)


def _users_words(conversation: list[Message]) -> list[Message]:
    """The user's turns as one: chat templates refuse two user turns in a row."""
    said = [turn["content"] for turn in conversation if turn["role"] == "user" and turn["content"].strip()]
    if not said:
        roles = sorted({turn["role"] for turn in conversation})
        raise Malformed(
            "the text is empty" if roles == ["user"] else f"the user says nothing (roles: {listing(roles)})"
        )
    return [{"role": "user", "content": "\n\n".join(said)}]


def _all_turns(conversation: list[Message]) -> list[Message]:
    for number, turn in enumerate(conversation, start=1):
        if not turn["content"].strip():
            raise Malformed("the text is empty" if len(conversation) == 1 else f"turn {number} is empty")
    if not conversation:
        raise Malformed("the conversation has no turns")
    return conversation


def _as_tuple(text: str | tuple[str, ...]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def text_digest(text: str) -> bytes:
    """A 16-byte hash by which texts are compared."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
