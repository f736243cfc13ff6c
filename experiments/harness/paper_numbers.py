"""The numbers that the paper reports, as typed into `results/paper/*.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fac.errors import FacError
from fac.provenance import REPOSITORY

PAPER_TABLES = REPOSITORY / "results" / "paper"
ALL = "all"  # the trap of a whole table


@dataclass(frozen=True)
class PaperNumber:
    """A number printed in the paper, in the unit of its table."""

    mean: float
    std: float | None
    source: str  # arXiv id and table, with "(sic: ...)" where the print contradicts itself
    place: str = field(default="", compare=False)  # "table13/fac/chat": file, row and column


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper; `results/README.md` describes its file."""

    name: str
    title: str
    source: str
    units: Mapping[str, str]  # column -> unit
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    numbers: Mapping[tuple[str, str], PaperNumber]  # (row, column) -> number
    names: Mapping[str, str]  # row or column -> the name to print
    sic: Mapping[tuple[str, str], str]
    note: str = ""
    traps: Mapping[str, str] = field(default_factory=dict)  # what misleads about a column, or about ALL

    def footnotes(self, places: Iterable[tuple[str, str]]) -> list[str]:
        """What must stand below a table that shows the numbers at these (row, column)."""
        places = list(places)
        of = dict.fromkeys([ALL, *(column for _, column in places)])
        told = dict.fromkeys(filter(None, [self.note, *(self.traps.get(key) for key in of)]))  # columns may share one
        title = self.source.rpartition(", ")[2]
        notes = [f"Paper, {title}: {' '.join(told)}"] if told else []
        for row, column in (place for place in places if place in self.sic):
            cell = f"{self.names.get(row, row)}, {self.names[column]}"
            notes.append(f"Paper, {title}, {cell} (sic): {self.sic[row, column]}.")
        return notes

    def get(self, row: str, column: str) -> PaperNumber | None:
        """The reported number, or None where the paper has none."""
        return self.numbers.get((row, column))


def names() -> list[str]:
    """The tables and figures of the paper whose numbers are kept, such as "table1"."""
    return sorted(path.stem for path in PAPER_TABLES.glob("*.yaml") if path.stem[-1].isdigit())


def paper_table(name: str) -> PaperTable:
    """Load `results/paper/<name>.yaml`, such as "table1" or "figure15".

    Raises:
        FacError: no such file; the message lists those there are.
    """
    import yaml

    path = PAPER_TABLES / f"{name}.yaml"
    if not path.is_file():
        raise FacError(f"No numbers of the paper are kept under the name {name!r}; there are {', '.join(names())}.")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    sic = {_split(key): why for key, why in raw.get("sic", {}).items()}
    numbers = {}
    for row, cells in raw["rows"].items():
        for column, value in cells.items():
            mean, std = (value["mean"], value["std"]) if isinstance(value, dict) else (value, None)
            why = sic.get((row, column))
            source = f"{raw['source']} (sic: {why})" if why else raw["source"]
            place = f"{name}/{row}/{column}"
            numbers[row, column] = PaperNumber(float(mean), None if std is None else float(std), source, place)
    columns = tuple(raw["columns"])
    unit = raw["unit"]
    return PaperTable(
        name=name,
        title=raw["title"],
        source=raw["source"],
        units={column: unit[column] if isinstance(unit, dict) else unit for column in columns},
        rows=tuple(raw["rows"]),
        columns=columns,
        numbers=numbers,
        names=raw["names"],
        sic=sic,
        note=raw.get("note", ""),
        traps=raw.get("traps", {}),
    )


def footnotes(numbers: Iterable[PaperNumber | None]) -> list[str]:
    """What must stand below a table that shows these numbers: of each of the paper's tables its note and traps."""
    shown: dict[str, dict[tuple[str, str], None]] = {}
    for number in numbers:
        if number is not None and number.place:
            name, row, column = number.place.split("/")
            shown.setdefault(name, {})[row, column] = None
    return [note for name, places in shown.items() for note in paper_table(name).footnotes(places)]


def _split(key: str) -> tuple[str, str]:
    row, column = key.split("/")
    return row, column
