"""Cells to labels: 0 or 1, of one column or of several that are brought under one rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from fac.data.files import read_rows
from fac.data.source import Malformed, Source, listing, lookup
from fac.errors import FacError

ONES, ZEROS = ("1", "true", "yes"), ("0", "false", "no")
EMPTY = ("", "nan", "na", "n/a", "null", "none")  # what programs write where there is no value
ROWS_SEEN = 1000  # rows whose values are listed where one is not known


class Labels:
    """The labels of one data set. `empty` counts the cells that said nothing, of rows that have a label."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.names = (source.label,) if isinstance(source.label, str) else source.label or ()
        self.empty = 0
        self._ones, self._zeros = _plain_set(source.label_ones), _plain_set(source.label_zeros)
        if self._ones and self._zeros and (both := self._ones & self._zeros):
            key = f"data.{source.name}.label"
            raise FacError(f"{listing(sorted(both))} stands in {key}_ones and in {key}_zeros: name it in one.")
        self._absent = set(self.names)  # columns that no row had yet
        self._rows = self._named = 0
        self._listed: str | None = None

    def of(self, values: Mapping[str, Any]) -> int | None:
        """The label of a row; None if the source names no column. Raises Malformed if it cannot be told."""
        if not self.names:
            return None
        votes = [vote for name in self.names if (vote := self._vote(values, name)) is not None]
        if not votes:
            empty = listing(repr(values.get(name)) for name in self.names[:5])
            raise Malformed(f"the label {listing(self.names)} is empty ({empty}), {self._wanted()}")
        self.empty += len(self.names) - len(votes)
        self._rows += 1
        if self.source.label_rule == "majority" and 2 * sum(votes) == len(votes):
            raise Malformed("as many label columns say 1 as say 0")
        rules = {"any": any(votes), "all": all(votes), "majority": 2 * sum(votes) > len(votes)}
        return int(rules[self.source.label_rule])

    def check(self) -> None:
        """Raise FacError if a column was in no row, or no value was one of those that count as 1."""
        key = f"data.{self.source.name}"
        if self._rows and self._absent:
            raise FacError(f"No row of {self.source} has the column {listing(sorted(self._absent))}: mend {key}.label.")
        if self._rows and self._ones is not None and not self._named:
            raise FacError(f"No label of {self.source} is one of {key}.label_ones ({self._seen()}): mend them.")

    def _vote(self, values: Mapping[str, Any], name: str) -> int | None:
        """What one cell says; None if it is empty or, of several columns, not there."""
        try:
            value = lookup(values, name)
        except Malformed:
            if len(self.names) == 1:
                raise
            return None
        self._absent.discard(name)
        plain = _plain(value)
        ones, zeros = self._ones or {"1"}, self._zeros or (set() if self._ones else {"0"})
        if plain in ones:
            self._named += 1
            return 1
        if plain in zeros:
            return 0
        if plain in EMPTY:
            return None
        if self._ones and not self._zeros and plain is not None:
            return 0
        raise Malformed(f"the label {name} is {listing([repr(value)])}, {self._wanted()} ({self._seen()})")

    def _wanted(self) -> str:
        key = f"data.{self.source.name}.label"
        if self._ones:
            return f"in neither {key}_ones nor {key}_zeros"
        return f"neither 0/1 nor true/false nor yes/no: say which values count as 1 with {key}_ones=[...]"

    def _seen(self) -> str:
        """The values of the first rows."""
        if self._listed is None:
            found: dict[str, None] = {}
            for row in islice(read_rows(self.source), ROWS_SEEN):
                if isinstance(row.values, Malformed):
                    continue
                for name in self.names:
                    try:
                        found[repr(lookup(row.values, name))] = None
                    except Malformed:
                        continue
            self._listed = f"values of the first rows: {listing(found, at_most=10)}"
        return self._listed


def _plain(value: Any) -> str | None:
    """A cell as a text by which values are compared, with one spelling of true and of false; None for no value."""
    if value is None:
        return ""
    if not isinstance(value, (str, bool, int, float)):
        return None
    text = str(value).strip().lower()
    try:
        number = float(text)
        text = str(int(number)) if number.is_integer() else str(number)
    except (ValueError, OverflowError):
        pass
    return "1" if text in ONES else "0" if text in ZEROS else text


def _plain_set(values: Iterable[Any] | None) -> set[str] | None:
    return None if values is None else {_plain(value) or "" for value in values}
