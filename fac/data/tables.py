"""Tables of delimited text (.csv, .tsv) to rows, and what their quotes mean.

Quotes either enclose fields, which may then hold delimiters, line breaks and doubled quotes (RFC 4180, as Excel and
pandas write), or are part of the texts, and then every line is a row. `quotes` of the source says which; under "auto":

- .tsv: the quotes are part of the texts if every line has the header's number of tabs; they enclose fields if only that
  reading gives whole rows, or if both do and some enclosed field holds doubled quotes, or a column is always enclosed.
  If neither reading is whole, the file is refused.
- .csv: they enclose fields. Refused are fields that run over lines where the quotes seem to pair up by chance: several
  of those lines are rows by themselves with numbers and classes where the columns hold such, or all are with numbers in
  one column, or every line of the file is a row by itself and no field holds a doubled quote.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fac.data.source import Malformed, Row, Source, listing, named_twice
from fac.data.text import lines, unpacked_name
from fac.errors import FacError

MAX_FIELD = 1 << 30  # characters; the csv module refuses fields above 128 KiB unless told otherwise
KINDS_FROM = 10_000  # records from which the values of columns are known
DOUBLED = re.compile(r'""[^,\r\n]|[^,]""')  # a quote inside an enclosed field; "" alone is an empty field
FEW = 20  # a column of at most so many different values holds classes


class Record(NamedTuple):
    """One row of a table."""

    line: int  # where it starts
    cells: list[str] | Malformed
    held: list[str]  # the lines it stands on


def read_table(path: Path, source: Source) -> Iterator[Row]:
    """The rows of a .csv or .tsv file, by its header or the source's `columns`."""
    csv.field_size_limit(MAX_FIELD)
    delimiter = "\t" if unpacked_name(path).endswith(".tsv") else ","
    table = _Table(path, delimiter, source)
    names = list(source.columns) if source.columns else None
    for record in table.records():
        place = f"{path}, line {record.line}"
        if names is None:
            names = _header(record, place, delimiter)
        elif isinstance(record.cells, Malformed):
            yield Row(place, record.cells)
        elif len(record.cells) != len(names):
            yield Row(place, Malformed(f"{len(record.cells)} fields where {len(names)} columns are expected"))
        elif source.columns and record.line == 1 and _same(record.cells, names):
            raise FacError(f"{place} is a header line: leave out data.{source.name}.columns.")
        else:
            yield Row(place, dict(zip(names, record.cells, strict=True)))


def _header(record: Record, place: str, delimiter: str) -> list[str]:
    """The names of the columns. Raises FacError for a line that cannot name them."""
    if isinstance(record.cells, Malformed):
        raise FacError(f"{place} is to name the columns, but {record.cells}: mend it.")
    if twice := named_twice(record.cells):
        raise FacError(f"{place} names {twice}: rename one of them.")
    others = {";": "semicolons", ",": "commas", "\t": "tabs", "|": "vertical bars"}
    for other, called in others.items():
        if len(record.cells) == 1 and other != delimiter and other in record.cells[0]:
            raise FacError(
                f"{place} names one column, {listing(record.cells)!r}, whose name holds {called}: if these part "
                f"columns, save the file with {others[delimiter]} (a .tsv has tabs, a .csv commas)."
            )
    return record.cells


def _same(cells: list[str], names: list[str]) -> bool:
    return [cell.strip().lower() for cell in cells] == [name.strip().lower() for name in names]


@dataclass(frozen=True)
class _Table:
    """One file, which can be read in two ways."""

    path: Path
    delimiter: str
    source: Source

    def records(self) -> Iterator[Record]:
        """As the source says, or as the file itself tells. Raises FacError where it cannot be told."""
        if self.source.quotes == "none":
            return self._literal()
        if self.source.quotes == "csv":
            return self._enclosed()
        found = self._survey()
        if found.first is None:  # no field begins with a quote, so both readings are the same
            return self._literal() if self.delimiter == "\t" else self._enclosed()
        return self._of_tsv(found) if self.delimiter == "\t" else self._of_csv(found)

    def _of_tsv(self, found: _Lines) -> Iterator[Record]:
        whole, runs_on = self._try_enclosed(found.width)
        if found.whole and not whole:
            return self._literal()
        if whole and not found.whole:
            return self._enclosed()
        if whole and not runs_on:
            return self._enclosed() if found.enclosed else self._literal()
        raise self._unclear(runs_on or found.first or 1)

    def _of_csv(self, found: _Lines) -> Iterator[Record]:
        kinds, runs_on, doubled = _Kinds(found.width), False, False
        for record in self._enclosed():
            runs_on |= len(record.held) > 1
            doubled |= any(DOUBLED.search(line) for line in record.held)
            if len(record.held) == 1 and not isinstance(record.cells, Malformed) and record.line != found.header:
                kinds.add(record.cells)
        return self._checked(kinds, found.whole and not doubled) if runs_on else self._enclosed()

    def _checked(self, kinds: _Kinds, all_whole: bool) -> Iterator[Record]:
        """The records by the quotes; `all_whole`: every line of the file is a row by itself. Raises FacError for a
        record that seems to have swallowed others."""
        for record in self._enclosed():
            if len(record.held) > 1:
                rows = [row for row in map(self._split, record.held) if len(row) == kinds.width]
                broken = isinstance(record.cells, Malformed) or len(record.cells) != kinds.width
                alike = sum(map(kinds.has, rows)) > 1 or (len(rows) == len(record.held) and _share_numbers(rows))
                if alike or (broken and len(rows) > 1) or (all_whole and all(map(kinds.may_have, rows))):
                    raise self._unclear(record.line)
            yield record

    def _try_enclosed(self, width: int) -> tuple[bool, int | None]:
        """Whether quotes that enclose fields give whole rows, and the first that runs over lines. A row that holds two
        lines which are rows by themselves, by their number of delimiters, is none."""
        runs_on = None
        try:
            for record in self._enclosed(stop_at=width if width > 1 else None):
                if len(record.held) > 1:
                    runs_on = runs_on or record.line
                if isinstance(record.cells, Malformed) or len(record.cells) != width:
                    return False, runs_on
        except _Swallowed as swallowed:
            return False, runs_on or swallowed.line
        except FacError:
            return False, runs_on
        return True, runs_on

    def _survey(self) -> _Lines:
        """What the lines say, taken one by one."""
        found = _Lines(len(self.source.columns or ()))
        for number, line in lines(self.path, self.source.encoding):
            if line := line.strip("\r\n"):
                found.add(number, line, self.delimiter)
        return found

    def _literal(self) -> Iterator[Record]:
        """Every line a row, quotes part of its texts."""
        for number, line in lines(self.path, self.source.encoding):
            text = line.rstrip("\r\n")
            if "\r" in text:
                yield Record(number, Malformed("a CR stands inside the line, so the line ends are mixed"), [line])
            elif text:
                yield Record(number, text.split(self.delimiter), [line])

    def _enclosed(self, stop_at: int | None = None) -> Iterator[Record]:
        """Rows by the quotes. Raises FacError for a quote that is never closed, and `_Swallowed` where a row holds two
        lines that have `stop_at` fields by themselves."""
        held: list[str] = []
        reader = csv.reader(self._fed(held, stop_at), delimiter=self.delimiter, strict=True)
        while True:
            held.clear()
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):
                    raise FacError(
                        f"{self.path}, line {line}: a quote is opened and never closed: mend the quotes of the file, "
                        f"or set data.{self.source.name}.quotes=none if they are part of its texts."
                    ) from None
                mixed = "new-line" in str(error)
                said = "a CR stands outside of quotes, so the line ends are mixed" if mixed else error
                yield Record(line, Malformed(f"the quotes are wrong ({said})"), held)
            else:
                if cells:
                    yield Record(line, cells, held)

    def _fed(self, held: list[str], stop_at: int | None) -> Iterator[str]:
        """The lines, which are kept in `held` too."""
        whole, first = 0, 1
        for number, line in lines(self.path, self.source.encoding):
            if not held:
                whole, first = 0, number
            held.append(line)
            whole += stop_at is not None and len(self._split(line)) == stop_at
            if whole > 1:
                raise _Swallowed(first)
            yield line

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self.delimiter)

    def _unclear(self, line: int) -> FacError:
        option = f"data.{self.source.name}.quotes"
        return FacError(
            f"{self.path}, line {line}: a field begins with a quote, and whether it runs on over the next lines cannot "
            f"be told: set {option}=none if quotes are part of the texts and every line is a row, {option}=csv if they "
            f"enclose fields."
        )


class _Swallowed(Exception):
    """A field that runs over lines holds lines that are rows by themselves."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass
class _Lines:
    """What the lines of a table say, each taken for a row with quotes as part of its texts."""

    width: int  # columns; 0: by the first line
    header: int = 0  # its line; 0: none
    whole: bool = True  # every line has as many fields
    first: int | None = None  # the first line of which a field begins with a quote
    doubled: bool = False  # a field is enclosed and holds doubled quotes
    odd: bool = False  # a field holds quotes that enclose nothing, as no writer of enclosed fields leaves them
    always: list[bool] = field(default_factory=list)  # the columns of which every field is enclosed

    @property
    def enclosed(self) -> bool:
        """Whether quotes are what a writer puts around fields."""
        return not self.odd and (self.doubled or any(self.always))

    def add(self, number: int, line: str, delimiter: str) -> None:
        fields = line.split(delimiter)
        if not self.width:
            self.width, self.header = len(fields), number
        self.whole &= len(fields) == self.width
        self.always = self.always or [True] * self.width
        for index, text in enumerate(fields):
            inside = _inside(text)
            if index < len(self.always):
                self.always[index] &= inside is not None
            if '"' not in text:
                continue
            if text.startswith('"') and self.first is None:
                self.first = number
            self.doubled |= inside is not None and '""' in inside
            self.odd |= inside is None


def _inside(text: str) -> str | None:
    """What stands between the quotes of a field that is enclosed; None if it is not."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return None
    inside = text[1:-1]
    return inside if '"' not in inside.replace('""', "") else None


class _Kinds:
    """What the columns of a table hold: numbers, a few classes, or anything."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._count = 0
        self._numbers = [True] * width
        self._values: list[set[str]] = [set() for _ in range(width)]

    def add(self, cells: list[str]) -> None:
        if len(cells) != self.width or self._count == KINDS_FROM:
            return
        self._count += 1
        for index, cell in enumerate(cells):
            self._numbers[index] &= _is_number(cell)
            if len(self._values[index]) <= FEW:
                self._values[index].add(cell)

    def has(self, cells: list[str]) -> bool:
        """Whether `cells` are a row like the others, by all columns that hold numbers or classes."""
        classes = [len(values) <= FEW and 2 * len(values) <= self._count for values in self._values]
        known = [
            cell in values for cell, of_classes, values in zip(cells, classes, self._values, strict=True) if of_classes
        ]
        return self.may_have(cells) and all(known) and bool(known or (self._count and any(self._numbers)))

    def may_have(self, cells: list[str]) -> bool:
        """Whether `cells` hold numbers where all others do."""
        return not self._count or all(
            _is_number(cell) for cell, numbers in zip(cells, self._numbers, strict=True) if numbers
        )


def _share_numbers(rows: list[list[str]]) -> bool:
    """Whether some column holds a number in all rows."""
    return any(all(map(_is_number, column)) for column in zip(*rows, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
