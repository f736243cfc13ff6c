"""The paper's claims, held against finished runs: supported, not supported or undecided, by the interval.

The claims are typed once, in results/paper/claims.yaml, each with the experiments whose tables decide it (those that
weigh most first) and a rule of `RULES` that reads their cells. What is compared is paired by seed (by world, where a
table is over worlds) and corrected for all comparisons of the table (Holm).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from eval.statistics import LEVEL, Estimate, Interval, holm, verdict
from experiments.harness.experiment import BASE
from experiments.harness.paper_numbers import PAPER_TABLES
from experiments.harness.results import Cell, Table
from experiments.harness.site.answers import OURS, difference, judged, spread
from experiments.harness.site.runs import Run
from fac.errors import FacError
from fac.synthesis.methods import METHODS

FILE = PAPER_TABLES / "claims.yaml"
SUPPORTED, NOT_SUPPORTED, UNDECIDED, NO_RUN = "supported", "not supported", "undecided", "no run yet"
STATED = "claims"  # a run's own table of comparisons (`experiments.harness.comparisons.claims_table`)
Names = str | Sequence[str]  # of a row: several are what it is called in different tables
VERDICTS = (SUPPORTED, NOT_SUPPORTED, UNDECIDED, NO_RUN)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper. `rule` and what it is asked with, `experiments`: whose tables it reads."""

    id: str
    statement: str
    where: str
    paper: str  # its numbers, as the paper has them
    rule: str
    experiments: tuple[str, ...]
    paper_scale: bool = False  # nothing of the lab, or of one's own, has any bearing on it
    asks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What one table says of a claim, with the numbers."""

    verdict: str
    told: tuple[str, ...]


@dataclass(frozen=True)
class Decided:
    """A claim with what each run says of it. The verdict is that of the runs that weigh most, where they agree."""

    claim: Claim
    verdict: str
    why: str  # where the verdict needs a word more
    findings: tuple[tuple[Run, Finding], ...]


class Absent(Exception):
    """A table does not hold the cells that a rule reads."""


def load() -> list[Claim]:
    """The claims of FILE. Raises FacError for one that asks for a rule that there is not."""
    told = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    claims = []
    for one in told["claims"]:
        named = {name: one.pop(name) for name in ("id", "statement", "where", "paper", "rule", "experiments")}
        if named["rule"] not in RULES:
            raise FacError(
                f"{FILE.name}: {named['id']} asks for the rule {named['rule']}; there are {', '.join(RULES)}."
            )
        named |= {"experiments": tuple(named["experiments"]), "paper_scale": one.pop("paper_scale", False)}
        claims.append(Claim(**named, asks=one))
    return claims


def decide(claims: Sequence[Claim], runs: Sequence[Run]) -> list[Decided]:
    """What the runs say of every claim; choices made on validation data say nothing."""
    results = [run for run in runs if not run.chooses]
    return [_decided(claim, results) for claim in claims]


def _decided(claim: Claim, runs: Sequence[Run]) -> Decided:
    found: list[tuple[Run, Finding]] = []
    lacking: dict[str, None] = {}
    for run in sorted(runs, key=lambda run: (_rank(claim, run), bool(run.label), run.name)):
        if _rank(claim, run) < len(claim.experiments):
            if claim.paper_scale and run.label:
                lacking["it takes runs at the paper's scale"] = None
                continue
            try:
                found.append((run, _finding(claim, run)))
            except Absent as absent:
                lacking[f"{run.name} does not hold {absent}"] = None
    if not found:
        return Decided(claim, NO_RUN, "; ".join(lacking), ())
    best, _ = found[0]
    weighing = [f for run, f in found if (_rank(claim, run), run.label) == (_rank(claim, best), best.label)]
    verdicts = {finding.verdict for finding in weighing}
    if len(verdicts) > 1:
        return Decided(claim, UNDECIDED, "the runs differ", tuple(found))
    return Decided(claim, verdicts.pop(), "", tuple(found))


def _rank(claim: Claim, run: Run) -> int:
    """Of a run among those that decide a claim; as many as there are if it does not."""
    names = (run.experiment, *run.paper)
    return min((claim.experiments.index(n) for n in names if n in claim.experiments), default=len(claim.experiments))


def _finding(claim: Claim, run: Run) -> Finding:
    """By the first of the run's tables that holds the cells. Raises Absent if none does."""
    lacking = Absent("its cells")
    stated = next((table for table in run.tables if table.experiment == STATED), None)
    for table in run.tables:
        for column in _several(claim.asks.get("column")):
            try:
                asks = {**claim.asks, "column": column} if column is not None else claim.asks
                return RULES[claim.rule](table, **asks, stated=stated, tables=run.tables)
            except Absent as absent:
                lacking = absent
    raise lacking


# Rules ---------------------------------------------------------------------------------------------------------------


def best(
    table: Table, column: str, rows: Sequence[str], ours: str = OURS, stated: Table | None = None, **_: Any
) -> Finding:
    """Ours is above every one of the rows. Rows that were not run leave open what those that were would support."""
    mine = _cell(table, ours, column)
    others = [cell for row in rows if (cell := table.cell(row, column)) is not None]
    if not others:
        raise Absent(f"any other row in {column}")
    found = _compared(table, [(mine, other) for other in others], stated)
    lacking = [_titled(table, row) for row in rows if table.cell(row, column) is None]
    if not lacking:
        return found
    told = f"not run: {', '.join(lacking)}"
    return Finding(UNDECIDED if found.verdict == SUPPORTED else found.verdict, (*found.told, told))


def more(table: Table, column: str, pairs: Sequence[Sequence[Names]], stated: Table | None = None, **_: Any) -> Finding:
    """In every pair of rows, the first is above the second."""
    rows = [(_row(table, one), _row(table, other)) for one, other in pairs]
    return _compared(table, [(_cell(table, one, column), _cell(table, other, column)) for one, other in rows], stated)


def gains(table: Table, row: Names, over: Names, stated: Table | None = None, **_: Any) -> Finding:
    """In every column by which rows are judged (in a table without such: of shares), one row is above another."""
    columns = judged(table) or [c.column for c in table.cells if c.row == _row(table, row) and c.unit == "percent"]
    held = [(table.cell(_row(table, row), c), table.cell(_row(table, over), c)) for c in columns]
    pairs = [(one, other) for one, other in held if one is not None and other is not None]
    if not pairs:
        raise Absent(f"{_row(table, row)} and {_row(table, over)} in one column")
    return _compared(table, pairs, stated, by_column=True)


def leads(table: Table, column: str, rows: Sequence[str], **_: Any) -> Finding:
    """Every row's cell in a column of differences is above nothing, after Holm's correction over the rows."""
    cells = [_cell(table, row, column) for row in rows]
    pairs = [(cell, replace(cell, mean=0.0, values=(0.0,) * len(cell.values))) for cell in cells]
    found = [difference(*pair) for pair in pairs]
    corrected = iter(holm([estimate.p for estimate in found if estimate is not None]))
    told, verdicts = [], []
    for cell, estimate in zip(cells, found, strict=True):
        name = f"{table.name(cell.row)}, {table.name(column)}"
        if estimate is None:
            told.append(f"{name}: {cell.shown()}, without an interval")
            verdicts.append(UNDECIDED)
            continue
        p = next(corrected)
        told.append(f"{name}: {spread(estimate)}, p {estimate.p:.3f}, after Holm {p:.3f}")
        verdicts.append({"more": SUPPORTED, "less": NOT_SUPPORTED}.get(verdict(estimate, p, LEVEL), UNDECIDED))
    return Finding(_all(verdicts), tuple(told))


def positive(
    table: Table,
    column: str,
    rows: Sequence[str],
    behind: Sequence[str] = (),
    tables: Sequence[Table] = (),
    **_: Any,
) -> Finding:
    """Cells that have an interval of their own, such as correlations, are above nothing.

    So must be those `behind` them that any of the run's tables has: a point apart can make a correlation by itself.
    """
    found = [_each(table, column, rows, 0.0)]
    held = [(one, row) for row in behind for one in tables if one.cell(row, column) is not None]
    found += [_each(one, column, [row], 0.0) for one, row in held]
    return Finding(_all([f.verdict for f in found]), tuple(line for f in found for line in f.told))


def above(table: Table, column: str, rows: Sequence[str], least: float, **_: Any) -> Finding:
    """Every row's number, with its interval where it has one, is at least so much."""
    found = _each(table, column, rows, least, alone=True)
    return Finding(found.verdict, (*found.told, f"at least {least:g}"))


def largest(table: Table, column: str, row: str, but: Sequence[str], **_: Any) -> Finding:
    """A correlation is larger in size than those of all other rows `but` some, their intervals included."""
    mine = _cell(table, row, column)
    others = [c for c in table.cells if c.column == column and c.row != row and c.row not in but]
    if not others:
        raise Absent(f"any other row in {column}")
    second = max(others, key=lambda cell: abs(cell.mean))
    told = tuple(f"{table.name(c.row)}: {c.shown()}" for c in (mine, second))
    if mine.interval is None or any(cell.interval is None for cell in others):
        return Finding(UNDECIDED, (*told, "without intervals"))
    sizes = [sorted(map(abs, cell.interval)) for cell in others if cell.interval]  # ends by size
    if all(mine.interval[0] > high for _, high in sizes):
        return Finding(SUPPORTED, told)
    beaten = any(
        low * high > 0 and min(abs(low), abs(high)) > max(map(abs, mine.interval))
        for low, high in (cell.interval for cell in others if cell.interval)
    )
    return Finding(NOT_SUPPORTED if beaten else UNDECIDED, told)


def within(table: Table, column: str, row: Names, margin: float, of: Sequence[str] | None = None, **_: Any) -> Finding:
    """No other row (of some, or of all) is further below this one than the margin, in points, its interval included."""
    mine = _cell(table, _row(table, row), column)
    others = [
        c for c in table.cells if c.column == column and c.row not in (mine.row, BASE) and (of is None or c.row in of)
    ]
    if not others:
        raise Absent(f"any other row in {column}")
    told, verdicts = [], []
    for other in others:
        estimate = difference(other, mine)
        if estimate is None:
            told.append(f"{table.name(other.row)}: {other.mean - mine.mean:+z.1f}, without an interval")
            verdicts.append(UNDECIDED)
            continue
        low, high = estimate.interval
        told.append(f"{table.name(other.row)} less {table.name(mine.row)}: {spread(estimate)}")
        verdicts.append(SUPPORTED if low >= -margin else NOT_SUPPORTED if high < -margin else UNDECIDED)
    return Finding(_all(verdicts), (*told, f"margin: {margin:g} points"))


def unprinted(table: Table, **_: Any) -> Finding:
    """The paper prints no number to hold it against."""
    return Finding(UNDECIDED, ("the paper prints no number to hold it against: see the figures of the run",))


RULES: Mapping[str, Callable[..., Finding]] = {
    rule.__name__: rule for rule in (best, more, gains, leads, positive, above, largest, within, unprinted)
}


def _each(table: Table, column: str, rows: Sequence[str], least: float, alone: bool = False) -> Finding:
    """Every row's interval lies above `least`; `alone`: a number without one is taken as it is."""
    told, verdicts = [], []
    for row in rows:
        cell = _cell(table, row, column)
        held = cell.interval or ((cell.mean, cell.mean) if alone else None)
        told.append(f"{table.name(row)}, {table.name(column)}: {cell.shown()}{'' if held else ', without an interval'}")
        if held is None:
            verdicts.append(UNDECIDED)
            continue
        low, high = held
        verdicts.append(SUPPORTED if low >= least else NOT_SUPPORTED if high < least else UNDECIDED)
    return Finding(_all(verdicts), tuple(told))


def _compared(
    table: Table, pairs: Sequence[tuple[Cell, Cell]], stated: Table | None, by_column: bool = False
) -> Finding:
    """Whether the first of each pair is above the second, after Holm's correction over the table's comparisons.

    As the run itself `stated` it, where it compared them; else by the cells (`_corrected`).
    """
    found = [(one, other, difference(one, other)) for one, other in pairs]
    corrected, family = _corrected(table, found)
    told, verdicts = [], []
    for one, other, estimate in found:
        name = f"{table.name(one.row)} less {table.name(other.row)}"
        name = f"{table.name(one.column)}: {name}" if by_column else name
        if (own := _stated(stated, one, other)) is not None:
            estimate, p, over = *own, "its comparisons"
        elif estimate is not None:
            p, over = corrected[one.column, one.row, other.row], f"{family} comparisons"
        else:
            told.append(f"{name}: {one.mean - other.mean:+z.1f}, without an interval (not over the same seeds, or one)")
            verdicts.append(UNDECIDED)
            continue
        after = f", after Holm over {over} {p:.3f}" if own is not None or family > 1 else ""
        told.append(f"{name}: {spread(estimate)}, p {estimate.p:.3f}{after}")
        said = verdict(estimate, p, LEVEL)
        verdicts.append({"more": SUPPORTED, "less": NOT_SUPPORTED}.get(said, UNDECIDED))
    return Finding(_all(verdicts), tuple(told))


def _stated(stated: Table | None, one: Cell, other: Cell) -> tuple[Estimate, float] | None:
    """A comparison as the run's own table has it, with p after Holm."""
    row = f"{one.column}/{one.row}/{other.row}"
    cells = [stated.cell(row, column) if stated else None for column in ("difference", "p", "holm")]
    difference_, p, after = cells
    if difference_ is None or difference_.interval is None or p is None or after is None:
        return None
    return Estimate(difference_.mean, Interval(*difference_.interval), p.mean, 0, {}), after.mean


def _corrected(
    table: Table, asked: Sequence[tuple[Cell, Cell, Estimate | None]]
) -> tuple[dict[tuple[str, str, str], float], int]:
    """p after Holm by column and two rows, and over how many comparisons: those asked for, and each of their first rows
    against every other row in all columns by which the table's rows are judged."""
    p = {(one.column, one.row, other.row): e.p for one, other, e in asked if e is not None}
    for row in {one.row for one, _, _ in asked}:
        for column in judged(table):
            mine = table.cell(row, column)
            others = [cell for cell in table.cells if mine and cell.column == column and cell.row != row]
            for cell in others:
                if mine is not None and (estimate := difference(mine, cell)) is not None:
                    p.setdefault((column, row, cell.row), estimate.p)
    return dict(zip(p, holm(list(p.values())), strict=True)), len(p)


def _all(verdicts: Sequence[str]) -> str:
    """Of a claim that says several things: all must hold, one that does not is enough against it."""
    if NOT_SUPPORTED in verdicts:
        return NOT_SUPPORTED
    return SUPPORTED if set(verdicts) == {SUPPORTED} else UNDECIDED


def _titled(table: Table, row: str) -> str:
    """How a row is printed, be it in the table or not."""
    return METHODS[row].title if row not in table.names and row in METHODS else table.name(row)


def _row(table: Table, names: Names) -> str:
    """The first of several names that the table has. Raises Absent if it has none."""
    for name in _several(names):
        if name in table.rows:
            return name
    raise Absent(f"{' or '.join(_several(names))}")


def _cell(table: Table, row: str, column: str) -> Cell:
    cell = table.cell(row, column)
    if cell is None:
        raise Absent(f"{row} in {column}")
    return cell


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
