"""Cells and tables: how a measured number is summarised over seeds, compared, printed, written and read back."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.statistics import interval
from experiments.harness.paper_numbers import PaperNumber
from fac.errors import FacError
from fac.provenance import DIRTY, commit_of_this_process, host
from fac.provenance import versions as versions  # who writes a table names them, too
from fac.store import Origin

LAB_LABEL = "LAB RESULT: small models and a written world; compare shapes, not values"
# unit -> decimals of our numbers and of the paper's
DECIMALS = {"percent": (1, 2), "points": (1, 2), "count": (1, 1), "seconds": (1, 1), "features": (2, 2), "loss": (4, 4),
            "tokens": (1, 1)}  # fmt: skip

STEPS = "steps"  # of a table's provenance


@dataclass(frozen=True)
class Cell:
    """One number of a table, with its spread over seeds. Made by `measured`, `paired` or `observed`."""

    row: str
    column: str
    mean: float
    std: float | None  # sample standard deviation, ddof = 1; None for a single value
    n: int
    seeds: tuple[int, ...]  # increasing; none for a number that no seed has a part in
    values: tuple[float, ...]  # one per seed, in the order of `seeds`; without seeds, the number itself
    unit: str  # "percent", "points" (a difference of percentages), "count", "seconds", "correlation", ...
    paper: PaperNumber | None = None
    run_ids: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None  # 95 %, of the mean, over resampled test items
    # The mean in each resampling of the test items, [draws]: in memory, so that rows are compared draw by draw.
    replicates: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def shown(self) -> str:
        """The number as a table prints it, such as `62.6 ± 4.4 [57.9, 66.8]`."""
        decimals = DECIMALS.get(self.unit, (3, 2))[0]
        number = _plus_minus(self.mean, self.std, self.unit, decimals)
        if self.interval is None:
            return number
        return f"{number} [{', '.join(_plus_minus(end, None, self.unit, decimals) for end in self.interval)}]"

    def paper_shown(self) -> str:
        """The paper's number with the paper's decimals, such as `62.60 ± 4.41`; empty where it has none."""
        if self.paper is None:
            return ""
        return _plus_minus(self.paper.mean, self.paper.std, self.unit, DECIMALS.get(self.unit, (3, 2))[1])

    def from_paper(self) -> str:
        """Our number less the paper's, such as `+3.4`; empty where it has none."""
        if self.paper is None:
            return ""
        decimals = DECIMALS.get(self.unit, (3, 2))[0]
        return f"{self.mean - self.paper.mean:+z,.{decimals}f}"


def _plus_minus(mean: float, std: float | None, unit: str, decimals: int) -> str:
    head = f"{mean:{'+' if unit == 'points' else ''}z,.{decimals}f}"
    spread = "" if std is None else f" ± {std:,.{decimals}f}"
    return f"{head}{spread}".replace(".0", "") if unit == "count" else f"{head}{spread}"


def measured(
    row: str,
    column: str,
    by_seed: Mapping[int, float],
    *,
    unit: str = "percent",
    paper: PaperNumber | None = None,
    run_ids: Iterable[str] = (),
    replicates: Iterable[NDArray[np.float64]] = (),
) -> Cell:
    """Summarise one value per seed.

    `replicates` hold the value in each resampling of the test items, [draws] for each seed, if they are known for all.

    Raises:
        FacError: no value, or one that is not finite (a training run that diverged, a metric without positives).
    """
    if not by_seed:
        raise FacError(f"The cell {row} / {column} has no value; run it with at least one seed.")
    seeds = tuple(sorted(by_seed))
    values = tuple(float(by_seed[seed]) for seed in seeds)
    for seed, value in zip(seeds, values, strict=True):
        if not math.isfinite(value):
            raise _not_finite(f"The cell {row} / {column} is {value} at seed {seed}")
    std = statistics.stdev(values) if len(values) > 1 else None
    mean, drawn = statistics.fmean(values), list(replicates)
    resampled = np.mean(drawn, axis=0) if len(drawn) == len(values) else None
    bounds = None if resampled is None else interval(resampled)
    return Cell(row, column, mean, std, len(values), seeds, values, unit, paper, tuple(run_ids), bounds, resampled)


def observed(row: str, column: str, value: float, *, unit: str = "percent", paper: PaperNumber | None = None) -> Cell:
    """A number that no seed has a part in, such as a count over given files; it has no spread.

    Raises:
        FacError: the value is not finite.
    """
    if not math.isfinite(value):
        raise _not_finite(f"The cell {row} / {column} is {value}")
    return Cell(row, column, float(value), None, 1, (), (float(value),), unit, paper)


def _not_finite(what: str) -> FacError:
    return FacError(
        f"{what}; look at that run (a learning rate that is too high, a test set with one class only), mend it, and "
        "run again: the other cells are kept."
    )


def paired(ours: Cell, other: Cell, row: str, paper: PaperNumber | None = None) -> Cell:
    """`ours - other`, seed by seed: the mean and spread of the differences, with the interval over the test's items.

    Both were tested on the same items. What they share of their seed (head, order of the data) is little: the spread is
    hardly smaller than that of unpaired differences.

    The unit of a difference of percentages is "points".

    Raises:
        FacError: the two cells do not have the same column and seeds.
    """
    if ours.column != other.column or ours.seeds != other.seeds:
        raise FacError(
            f"{ours.row} / {ours.column} (seeds {list(ours.seeds)}) and {other.row} / {other.column} (seeds "
            f"{list(other.seeds)}) cannot be compared in pairs; run both with the same seeds."
        )
    differences = {s: a - b for s, a, b in zip(ours.seeds, ours.values, other.values, strict=True)}
    unit = "points" if ours.unit == "percent" else ours.unit
    run_ids = dict.fromkeys(ours.run_ids + other.run_ids)
    found = measured(row, ours.column, differences, unit=unit, paper=paper, run_ids=run_ids)
    if ours.replicates is None or other.replicates is None:
        return found
    resampled = ours.replicates - other.replicates
    return dataclasses.replace(found, replicates=resampled, interval=interval(resampled))


@dataclass(frozen=True)
class Table:
    """The result of one experiment. Rows and columns are keys; `names` says how they are printed."""

    experiment: str
    scale: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    config_hash: str
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)  # who wrote it and its steps; no part of the result
    label: str = ""  # what to know before any number is read
    aid: str | None = None  # what `±` and brackets are; None: seeds, and resampled test items

    def __post_init__(self) -> None:
        places = [(cell.row, cell.column) for cell in self.cells]
        strays = [p for p in places if p[0] not in self.rows or p[1] not in self.columns]
        if strays or len(set(places)) < len(places):
            raise ValueError(f"cells outside the table or twice in it: {strays or sorted(places)}")

    def noting(self, notes: Iterable[str]) -> Table:
        """The table with further notes."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def cell(self, row: str, column: str) -> Cell | None:
        """The cell at that place, or None where nothing was measured."""
        return next((c for c in self.cells if (c.row, c.column) == (row, column)), None)

    def name(self, key: str) -> str:
        """How a row or column is printed."""
        return self.names.get(key, key)

    def heading(self, column: str) -> str:
        """A column's printed name with its unit, such as `Toxicity AUPRC (%)`."""
        units = {cell.unit for cell in self.cells if cell.column == column} - {"points"}
        unit = units.pop() if len(units) == 1 else ""
        return self.name(column) + (f" ({'%' if unit == 'percent' else unit})" if unit else "")

    def seeds(self) -> tuple[int, ...]:
        """Every seed that any cell used."""
        return tuple(sorted({seed for cell in self.cells for seed in cell.seeds}))

    def to_json(self, *, with_provenance: bool = True) -> str:
        """The table as JSON: keys sorted, cells in table order, floats rounded to six decimals, no time of day.

        Two runs of one configuration give the same bytes with `with_provenance=False`, which leaves out the commit,
        the machine and the ids of the tracked runs.
        """
        order = {place: i for i, place in enumerate((r, c) for r in self.rows for c in self.columns)}
        record = dataclasses.asdict(self)
        record["cells"] = sorted(record["cells"], key=lambda cell: order[cell["row"], cell["column"]])
        for cell in record["cells"]:
            del cell["replicates"]
        if not with_provenance:
            del record["provenance"]
            for cell in record["cells"]:
                del cell["run_ids"]
        return json.dumps(_rounded(record), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Table:
        """Read what `to_json` wrote.

        Raises:
            FacError: the text is not such a table.
        """
        try:
            raw = json.loads(text)
            cells = tuple(_cell_from(cell) for cell in raw.pop("cells"))
            lists = {key: tuple(raw.pop(key)) for key in ("rows", "columns", "notes")}
            return cls(cells=cells, **lists, **raw)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FacError(f"This is not a table written by fac ({error}); run the experiment again.") from error

    def to_markdown(self) -> str:
        """The table for people: the paper's number stands in the same cell, after ours."""
        lines = [f"# {self.title}", ""]
        if told := self.told():
            lines += [f"> **{told}**", ""]
        lines.append("| | " + " | ".join(_escape(self.heading(c)) for c in self.columns) + " |")
        lines.append("|---|" + "---:|" * len(self.columns))
        for row in self.rows:
            lines.append(
                f"| {_escape(self.name(row))} | " + " | ".join(self._entry(row, c) for c in self.columns) + " |"
            )
        lines.append("")
        if aid := self.reading_aid():
            lines += [aid, ""]
        lines += [f"- {note}" for note in self.notes]
        with_ = ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items()))
        written = f", written at commit {self.provenance['git_sha']}" if "git_sha" in self.provenance else ""
        earlier = {origin["commit"] for origin in self.provenance.get(STEPS, ())}
        if len(earlier) == 1 and earlier != {self.provenance.get("git_sha")}:  # several: a note says so
            written += f", its steps computed at {short_commit(*earlier)}"
        last = f"Experiment `{self.experiment}`, configuration `{self.config_hash}`{written}. {with_}."
        return "\n".join([*lines, "", last, ""])

    def told_provenance(self) -> list[tuple[str, str]]:
        """Who wrote the table, and with what its steps were computed, as (name, text)."""
        told = [(name, str(value)) for name, value in sorted(self.provenance.items()) if name != STEPS]
        for origin in self.provenance.get(STEPS, ()):
            with_ = ", ".join(f"{name} {version}" for name, version in sorted(origin["versions"].items()))
            where = ", ".join(str(value) for value in origin["host"].values() if value is not None)
            told.append((f"{origin['steps']} steps", f"commit {origin['commit']}; {where}; {with_}"))
        return told

    def computed_by(self, origins: Sequence[Origin]) -> Table:
        """The table with the origins of the steps that its numbers come from; a mix of them is said in its notes."""
        steps = [dataclasses.asdict(origin) for origin in origins]
        notes = [*self.notes, *origin_notes(origins)]
        return dataclasses.replace(self, notes=tuple(notes), provenance={**self.provenance, STEPS: steps})

    def told(self) -> str:
        """The label above the table, such as LAB_LABEL; empty if there is none."""
        return self.label

    def reading_aid(self) -> str:
        """One line that says what `±` and brackets are; empty where no seed has a part in any number."""
        if self.aid is not None:
            return self.aid
        seeds = ", ".join(map(str, self.seeds()))
        aid = f"Of one seed, {seeds}." if seeds else ""
        if any(cell.n > 1 for cell in self.cells):
            aid = f"Mean ± sample standard deviation (ddof 1) over seeds {seeds}."
        if any(cell.interval for cell in self.cells):
            aid += " In brackets: 95 % interval of the mean over resampled test items."
        return aid.lstrip()

    def _entry(self, row: str, column: str) -> str:
        cell = self.cell(row, column)
        if cell is None:
            return "–"
        paper = cell.paper_shown()
        return cell.shown() + (f" (paper {paper})" if paper else "")


def _cell_from(raw: dict[str, Any]) -> Cell:
    paper = raw.pop("paper")
    lists = {key: tuple(raw.pop(key, ())) for key in ("seeds", "values", "run_ids")}
    bounds = raw.pop("interval", None)
    found = Cell(paper=None if paper is None else PaperNumber(**paper), **lists, **raw)
    return found if bounds is None else dataclasses.replace(found, interval=tuple(bounds))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) + 0.0  # + 0.0 turns -0.0 into 0.0
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def provenance() -> dict[str, Any]:
    """Of the process that writes a table: its machine, and its commit (absent outside a checkout)."""
    commit = commit_of_this_process()
    return {**host(), **({} if commit is None else {"git_sha": commit})}


def origin_notes(origins: Sequence[Origin]) -> list[str]:
    """What a reader must know of the steps' origins: code that is in no commit, and a mix of any kind."""
    notes = []
    commits = _counted((short_commit(origin.commit), origin.steps) for origin in origins)
    if len(commits) > 1:
        notes.append(f"Its steps were computed by several versions of the code: {_listed(commits)}.")
    elif any(commit.endswith(DIRTY) for commit in commits):
        notes.append(f"Computed by code with changes that are in no commit ({', '.join(commits)}).")
    for library in sorted({library for origin in origins for library in origin.versions}):
        found = _counted((origin.versions.get(library, "none"), origin.steps) for origin in origins)
        if len(found) > 1:
            notes.append(f"Its steps were computed with several versions of {library}: {_listed(found)}.")
    for what, name in (("device", "machines"), ("threads", "numbers of threads")):
        found = _counted((str(value), origin.steps) for origin in origins if (value := origin.host[what]) is not None)
        if len(found) > 1:
            notes.append(f"Its steps were computed on several {name}: {_listed(found)}.")
    return notes


def _counted(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in pairs:
        found[name] = found.get(name, 0) + count
    return found


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count} step{'s' if count > 1 else ''})" for name, count in found.items())


def short_commit(commit: str | None) -> str:
    """Seven digits of a commit, and whether there were changes."""
    if commit is None:
        return "no checkout"
    return commit.removesuffix(DIRTY)[:7] + (DIRTY if commit.endswith(DIRTY) else "")
