"""What the rows of a table come to, in a sentence: which is first, and by how much with which interval.

Rows are compared by their values at the same seeds (worlds, where the table is over worlds), in pairs: the interval is
Student's t over these differences, which says nothing of what all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eval.statistics import Estimate, nested_mean
from experiments.harness.results import DECIMALS, Cell, Table

OURS, BASELINE = "fac", "baseline"  # rows: the paper's method, and the seed data alone


@dataclass(frozen=True)
class Standing:
    """One column of a table by which its rows are judged: the more, the better."""

    column: str  # as it is printed
    first: Cell
    second: Cell | None
    lead: Estimate | None  # of the first over the second; None: not over the same seeds, or of one
    ours: Cell | None
    gain: Estimate | None  # of ours over the baseline
    names: Mapping[str, str]  # how rows are printed
    over: str = "seeds"  # what the cells' numbers were had again over

    def __str__(self) -> str:
        first = f"{self.names[self.first.row]} is first with {_number(self.first, self.first.mean)}"
        if self.second is None:
            return f"{self.column}: {first}."
        second = f"{self.names[self.second.row]} ({_number(self.second, self.second.mean)})"
        if self.lead is None:
            return f"{self.column}: {first}, before {second}; one seed gives no interval."
        told = "" if self.lead.interval.low > 0 else ": not told apart"
        found = (
            f"{self.column}: {first}, before {second} by {spread(self.lead)} over {self.lead.worlds} {self.over}{told}"
        )
        if self.gain is None or self.second.row == BASELINE:
            return f"{found}."
        return f"{found}. {self.names[OURS]} less {self.names[BASELINE]}: {spread(self.gain)}."


def spread(estimate: Estimate) -> str:
    """A difference with its interval, such as `+2.8 [+1.2, +4.4]`."""
    low, high = estimate.interval
    return f"{estimate.mean:+z.1f} [{low:+z.1f}, {high:+z.1f}]"


def standings(table: Table, over: str = "seeds") -> list[Standing]:
    """Of each column that rows are judged by (`judged`), in the table's order."""
    found = []
    for column in judged(table):
        cells = [cell for row in table.rows if (cell := table.cell(row, column)) is not None]
        ranked = sorted(cells, key=lambda cell: -cell.mean)
        second = ranked[1] if len(ranked) > 1 else None
        lead = None if second is None else difference(ranked[0], second)
        ours, base = (next((cell for cell in cells if cell.row == row), None) for row in (OURS, BASELINE))
        gain = difference(ours, base) if ours and base else None
        names = {cell.row: table.name(cell.row) for cell in cells}
        found.append(Standing(table.name(column), ranked[0], second, lead, ours, gain, names, over))
    return found


def judged(table: Table) -> list[str]:
    """The columns by which rows are judged: scores behind which the column of their own differences stands.

    Such columns are called SCORE_gain, or gain_...: a difference of two columns judges no row.
    """
    units = {column: {cell.unit for cell in table.cells if cell.column == column} for column in table.columns}

    def is_gain(name: str, of: str) -> bool:
        return units[name] == {"points"} and (name == f"{of}_gain" or name.startswith("gain"))

    pairs = zip(table.columns, table.columns[1:], strict=False)
    return [one for one, next_ in pairs if units[one] == {"percent"} and is_gain(next_, one)]


def difference(one: Cell, other: Cell) -> Estimate | None:
    """`one` less `other`, paired by seed, in the unit of the cells; None where they share fewer than two seeds."""
    if one.seeds != other.seeds or len(one.seeds) < 2:
        return None
    pairs = zip(one.seeds, one.values, other.values, strict=True)
    return nested_mean({(seed, 0, 0): a - b for seed, a, b in pairs})


def answer(told: str, standing: list[Standing], facts: tuple[tuple[str, str], ...]) -> str:
    """What a run found: its own sentence, or where our method stands, or its first fact."""
    if told:
        return told
    if len(standing) == 1 or (standing and not any(s.ours for s in standing)):  # of a table without our method's row
        return str(standing[0])
    if standing:
        first = [s for s in standing if s.first.row == OURS]
        sure = [s for s in first if s.lead is not None and s.lead.interval.low > 0]
        ours = next(s.names[OURS] for s in standing if s.ours)
        beyond = f"beyond its interval in {len(sure) or 'none'}"
        return f"{ours} is first in {len(first)} of {len(standing)} columns, {beyond}. {standing[0]}"
    return f"{facts[0][0]}: {facts[0][1]}." if facts else ""


def _number(cell: Cell, value: float) -> str:
    decimals = DECIMALS.get(cell.unit, (3, 2))[0]
    return f"{value:z,.{decimals}f}"
