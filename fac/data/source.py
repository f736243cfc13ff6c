"""What a data set is (`Source`), with the options that cannot be, and what is read from it: rows, each with its place.

Files and formats are the matter of `fac.data.files`, texts, labels and chats that of `fac.data.examples`.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fac.data.hub import hub_name, is_hub
from fac.errors import FacError

HUB_ONLY = ("subset", "split", "revision")


@dataclass(frozen=True)
class Source:
    """A data set on disk and how to read it.

    Formats by suffix: .jsonl, .json (an array, an object that holds the array, or objects one after the other), .csv,
    .tsv (first line = column names, unless `columns`), .txt (one text per line) and .parquet, each also with .gz, .bz2,
    .xz or .zst. Blank lines are not rows. A folder and a pattern ("data/*.csv") stand for their data files, sorted by
    name, a list for all that it names. `hub:ID` is a data set on the Hugging Face hub, of which `subset`, `split` and
    `revision` say what is read; `hub:ID/FILE` is one file of it.

    Raises FacError for an option that cannot be.
    """

    path: Path | tuple[Path, ...]
    name: str = "NAME"
    """How the data set is called in the configuration; error messages say `data.<name>.<option>`."""
    text: str | tuple[str, ...] = "auto"
    """The column that is read: a string or a list of messages; several columns are joined by a blank line (empty ones
    are left out); dots reach into nested columns; "auto" recognises it (see `fac.data.examples.AUTO_COLUMNS`)."""
    label: str | tuple[str, ...] | None = None
    """Column with 0/1, true/false or yes/no; dots reach into nested columns. Several are one label, by `label_rule`;
    their empty cells are left out of it."""
    label_rule: Literal["any", "all", "majority"] = "any"
    """Of several label columns: 1 if any of them is, if all are, or if more are than are not."""
    label_ones: tuple[Any, ...] | None = None
    """Values that count as 1, whatever their case; null: 1, true and yes."""
    label_zeros: tuple[Any, ...] | None = None
    """Values that count as 0; null: 0, false and no or, with `label_ones`, every other value."""
    columns: tuple[str, ...] | None = None
    """Column names of a .csv or .tsv file without a header line."""
    quotes: Literal["auto", "csv", "none"] = "auto"
    """Whether quotes enclose the fields of a .csv or .tsv file (csv) or are part of its texts (none); see
    `fac.data.tables`."""
    encoding: str | None = None
    """Of a text file that is not UTF-8 and has no byte order mark, as Python calls it: windows-1252, utf-16-le."""
    rows: str = "auto"
    """Key of the array in a .json file that holds an object; dots reach into nested keys. "auto" takes the first of
    `fac.data.objects.ROW_ARRAYS`, otherwise the only array of objects."""
    turns: Literal["user", "all"] = "user"
    """What is kept of a conversation: the user's words, as one user turn (the paper measures queries), or all."""
    subset: str | None = None
    """Of a hub data set that has several (`datasets` calls it the configuration's name)."""
    split: str | None = None
    """Of a hub data set; None: its only one."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set; None: what its main branch is at."""
    where: dict[str, Any] | None = None
    """Only rows that hold these values are the data set: {"human_annotation": True}. Values are compared as texts,
    whatever their case, since a .csv holds "True" where a .json holds true; dots reach into nested columns."""
    skip: int = 0
    """Leave out so many rows at the start: with `limit`, a file makes several data sets."""
    limit: int | None = None
    """Keep at most this many texts, from the start."""
    dedup: bool = False
    """Leave out exact repeats of an earlier text, whatever their label."""
    on_error: Literal["fail", "skip"] = "fail"
    """What to do with a malformed row."""

    def __post_init__(self) -> None:
        given = self.path if isinstance(self.path, (tuple, list)) else (self.path,)
        paths = tuple(Path(path).expanduser() for path in given)
        object.__setattr__(self, "path", paths if isinstance(self.path, (tuple, list)) else paths[0])
        for option in ("text", "label", "label_ones", "label_zeros", "columns"):
            if isinstance(getattr(self, option), list):
                object.__setattr__(self, option, tuple(getattr(self, option)))
        object.__setattr__(self, "where", self.where or None)
        self._check_choices()
        if self.encoding is not None and codecs.lookup(self.encoding).name == "utf-8":
            object.__setattr__(self, "encoding", None)  # as if nothing were said
        self._check_columns()
        self._check_paths()

    def _check_choices(self) -> None:
        choices = {
            "on_error": ("fail", "skip"),
            "turns": ("user", "all"),
            "quotes": ("auto", "csv", "none"),
            "label_rule": ("any", "all", "majority"),
        }
        for option, known in choices.items():
            if getattr(self, option) not in known:
                said = f"{', '.join(known[:-1])} or {known[-1]}"
                raise FacError(f"data.{self.name}.{option} is {getattr(self, option)!r}: set it to {said}.")
        if self.skip < 0:
            raise FacError(f"data.{self.name}.skip is {self.skip}: set it to 0 or more.")
        if self.limit is not None and self.limit < 1:
            raise FacError(f"data.{self.name}.limit is {self.limit}: set it to 1 or more, or leave it out.")
        if self.encoding is not None and not _is_encoding(self.encoding):
            raise FacError(
                f"data.{self.name}.encoding is {self.encoding!r}, which is no encoding of texts that Python knows: set "
                f"it to one such as windows-1252, latin-1, utf-16-le or gb18030."
            )

    def _check_columns(self) -> None:
        if not self.text:
            raise FacError(f"data.{self.name}.text names no column: set it to a column or to auto.")
        if self.label is not None and not self.label:
            raise FacError(f"data.{self.name}.label names no column: set it to one, or to null.")
        for option in ("columns", "label"):
            names = getattr(self, option)
            if isinstance(names, tuple) and (twice := named_twice(names)):
                raise FacError(f"data.{self.name}.{option} names {twice}: name each once.")
        if self.label_zeros is not None and self.label_ones is None:
            key = f"data.{self.name}.label"
            raise FacError(f"{key}_zeros is set without {key}_ones: set that too, to the values that count as 1.")

    def _check_paths(self) -> None:
        first = next(iter(self.paths), None)
        if first is None:
            raise FacError(f"data.{self.name}.path names no file: set it to a file, a folder or a list of them.")
        if len(self.paths) > 1 and any(map(is_hub, self.paths)):
            raise FacError(f"data.{self.name}.path lists {self}: a list holds files, no hub:ID.")
        if not is_hub(first):
            for option in HUB_ONLY:
                if getattr(self, option) is not None:
                    raise FacError(f"data.{self.name}.{option} is only for hub:ID: leave it out for {self}.")
        elif hub_name(first).file and (self.subset or self.split):
            raise FacError(f"data.{self.name}: {self} is one file, so leave out subset and split.")

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.path if isinstance(self.path, tuple) else (self.path,)

    @property
    def on_hub(self) -> bool:
        """Whether it is a data set of the hub, or one file of it."""
        return is_hub(self.paths[0])

    @property
    def title(self) -> str:
        """What it is called on a page: the names of what `path` names, without folders."""
        return listing(path.name for path in self.paths)

    def __str__(self) -> str:
        return listing(map(str, self.paths), shorten=False)


def _is_encoding(name: str) -> bool:
    """Whether bytes can be decoded by this name; not the codecs of texts and of packed bytes (rot13, zip)."""
    try:
        bytes(4).decode(name)
    except (LookupError, ValueError):
        return False
    return True


class Malformed(ValueError):
    """Why one row cannot be used; the reason only, without the place."""


class Row(NamedTuple):
    """One row and where it stands."""

    place: str  # "FILE, line 17" (text formats: the line where the row starts) or "FILE, row 17"; counted from 1
    values: dict[str, Any] | Malformed

    @property
    def file(self) -> str:
        return self.place.rpartition(", ")[0]


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """`values[name]`, or through nested objects at the dots of `name`. Raises Malformed if there is no such column."""
    if name in values:
        return values[name]
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise Malformed(f"there is no column {name!r} (found: {listing(values)})")
        found = found[part]
    return found


def named_twice(names: Iterable[str]) -> str | None:
    """Which name stands twice, and where; None if none does. Columns without a name cannot be asked for."""
    names = [name.strip() for name in names]
    for name, count in Counter(names).items():
        if name and count > 1:
            first = names.index(name)
            return f"the column {name!r} twice, as columns {first + 1} and {names.index(name, first + 1) + 1}"
    return None


def listing(names: Iterable[str], at_most: int = 20, shorten: bool = True) -> str:
    """Names for an error message: few enough, and short enough, to be read."""
    names = [name if len(name) <= 40 or not shorten else name[:37] + "..." for name in names]
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def first_line(error: Exception) -> str:
    """What an exception says, in a line without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(". ") or type(error).__name__
