"""JSON files to rows, through one decoder (Python's own), so that .json and .jsonl hold the same values.

Whole numbers of any size stay whole, NaN is a number that is none, and an object that names a key twice is malformed.
A .json file is read value by value: memory does not grow with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fac.data.source import Malformed, Row, Source, first_line, listing
from fac.data.text import blocks, lines
from fac.errors import FacError

ROW_ARRAYS = ("data", "rows", "instances", "examples")  # where a .json object usually keeps its rows
BLANKS = " \t\n\r"
LONGEST = 1 << 20  # characters of a first line by which a .json file is recognised as JSON lines
TAIL = 8  # an error this near to the end of what was read may be a value that is cut: "\\u00e9", "-Infin"


def read_jsonl(path: Path, source: Source) -> Iterator[Row]:
    """One object per line."""
    decoder = _Decoder()
    for number, line in lines(path, source.encoding):
        if line.strip(BLANKS):
            yield Row(f"{path}, line {number}", decoder.row(line))


def read_json(path: Path, source: Source) -> Iterator[Row]:
    """An array of objects, an object that holds one, or objects one after the other, on lines of their own or not."""
    if _is_json_lines(path, source.encoding):
        yield from read_jsonl(path, source)
        return
    values, number = _Values(path, source.encoding), 0
    try:
        rows = _rows(values, _array(path, source))
        for number, (row, repeated) in enumerate(rows, start=1):
            yield Row(f"{path}, row {number}", _checked(row, repeated))
    except (ValueError, RecursionError) as error:
        raise _bad_json(path, f"after row {number}", error) from None


class _Decoder:
    """Python's decoder, which notes the keys that stand twice in an object."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            self.repeated += [name for name in made if names.count(name) > 1]
        return made

    def value(self, text: str, at: int) -> tuple[Any, int]:
        """The value that starts at `at`, and where it ends. Raises ValueError or RecursionError."""
        self.repeated = []
        return self._decoder.raw_decode(text, at)

    def row(self, line: str) -> dict[str, Any] | Malformed:
        """The object that a line holds."""
        text = line.strip(BLANKS)
        try:
            value, end = self.value(text, 0)
        except (ValueError, RecursionError) as error:
            hint = "; rows that run over several lines are read from a file that ends in .json"
            return Malformed(f"not valid JSON ({_reason(error)})" + (hint if text in ("[", "{", "[{") else ""))
        if end < len(text):
            return Malformed(f"not valid JSON (something follows the value, at character {end + 1})")
        return _checked(value, self.repeated)


class _Values:
    """The values of a JSON text, one after the other, of which no more is held than the one that is read."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self._blocks = blocks(path, encoding)
        self._decoder = _Decoder()
        self._text, self._at = "", 0

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in BLANKS:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, *wanted: str) -> str:
        """The next character, which must be one of `wanted`. Raises ValueError."""
        found = self.peek()
        if found not in wanted:
            raise ValueError(f"{' or '.join(wanted)} is expected, not {found or 'the end'}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole. Raises ValueError or RecursionError."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.value(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - TAIL
                if cut and self._more():
                    continue
                raise
            if end == len(self._text) and self._more():  # a number may go on
                continue
            self._at = end
            return value

    @property
    def repeated(self) -> list[str]:
        """Keys that stand twice in an object of the value read last."""
        return self._decoder.repeated

    def items(self) -> Iterator[Any]:
        """The values of an array."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        yield self.value()
        while self.take(",", "]") == ",":
            yield self.value()

    def keys(self) -> Iterator[str]:
        """The keys of an object; whoever asks for the next has read the value of the last. Raises ValueError."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        seen: set[str] = set()
        while True:
            if self.peek() != '"':
                self.take('"')
            key = self.value()
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice")
            seen.add(key)
            self.take(":")
            yield key
            if self.take(",", "}") == "}":
                return

    def _more(self) -> bool:
        """Read on: at least as much again as is held, so that a long value is not decoded too often."""
        held = [self._text[self._at :]]
        wanted = len(held[0])
        while wanted >= 0 and (block := next(self._blocks, None)) is not None:
            held.append(block)
            wanted -= len(block) or 1
        self._text, self._at = "".join(held), 0
        return len(held) > 1


def _rows(values: _Values, array: str | None) -> Iterator[tuple[Any, list[str]]]:
    """The rows, each with the keys that stand twice in it: the items of the array that is named, of the top array (""),
    or the values at the top (None)."""
    if array is None:
        while values.peek():
            yield values.value(), values.repeated
        return
    inside = values.items() if array == "" else _items_at(values, array)
    for value in inside:
        yield value, values.repeated
    if values.peek():
        raise ValueError("something follows the array")


def _items_at(values: _Values, array: str) -> Iterator[Any]:
    for name in _arrays(values, ""):
        if name == array:
            yield from values.items()
        else:
            _skip_items(values)


def _arrays(values: _Values, prefix: str) -> Iterator[str]:
    """The names of the arrays in an object and the objects in it; whoever asks for the next has read the last."""
    for key in values.keys():  # noqa: SIM118
        name, start = f"{prefix}{key}", values.peek()
        if start == "[":
            yield name
        elif start == "{":
            yield from _arrays(values, f"{name}.")
        else:
            values.value()


def _skip_items(values: _Values) -> bool:
    """Read an array and drop it; whether its first item is an object."""
    of_objects = False
    for index, item in enumerate(values.items()):
        of_objects |= index == 0 and isinstance(item, dict)
    return of_objects


def _array(path: Path, source: Source) -> str | None:
    """Where the rows stand, as `_rows` wants it. Raises FacError if there are none, or it cannot be told."""
    values = _Values(path, source.encoding)
    try:
        start = values.peek()
        if start in ("[", ""):
            return "" if start else None
        if start != "{":
            values.value()
            raise _no_rows(path)
        found: dict[str, bool] = {}
        for name in _arrays(values, ""):
            found[name] = _skip_items(values)
        if values.peek():
            return None
    except (ValueError, RecursionError) as error:
        raise _bad_json(path, "before the first row", error) from None
    if source.rows != "auto" and source.rows in found:
        return source.rows
    candidates = [name for name, of_objects in found.items() if of_objects]
    top = [name for name in candidates if "." not in name] or candidates
    if source.rows == "auto":
        if known := [name for name in top if name in ROW_ARRAYS]:
            return known[0]
        if len(top) == 1:
            return top[0]
    if not candidates:
        raise _no_rows(path)
    wrong = "several arrays" if source.rows == "auto" else f"no array {source.rows!r}"
    raise FacError(f"{path} holds {wrong}: set data.{source.name}.rows to one of {listing(candidates)}.")


def _is_json_lines(path: Path, encoding: str | None) -> bool:
    """Whether the first line of a .json file is an object by itself and another line follows, as many tools write it.

    A first line of more than `LONGEST` characters is taken for something else: rows then have numbers, lines have not.
    """
    first, text = "", ""
    for block in blocks(path, encoding):
        text = (text + block).lstrip(BLANKS)
        first, _, rest = text.partition("\n")
        if rest.strip(BLANKS):
            break
        if (text and text[0] != "{") or len(first) > LONGEST:
            return False
    else:
        return False
    try:
        value, end = _Decoder().value(first, 0)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not first[end:].strip(BLANKS)


def _checked(value: Any, repeated: Iterable[str]) -> dict[str, Any] | Malformed:
    if not isinstance(value, dict):
        return Malformed("the row is not a JSON object")
    twice = listing(map(repr, repeated))
    return Malformed(f"the row names the key {twice} twice") if twice else value


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else first_line(error)


def _no_rows(path: Path) -> FacError:
    return FacError(f"{path} holds no array of objects: write the rows as a JSON array, or one per line as .jsonl.")


def _bad_json(path: Path, where: str, error: Exception) -> FacError:
    said = error.msg if isinstance(error, json.JSONDecodeError) else _reason(error)  # its place is in what was held
    return FacError(f"{path} is not valid JSON {where} ({said}): mend or fetch the file again.")
