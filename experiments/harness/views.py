"""Records as tables and figures: the unit of a number, its spread over seeds and the paper's beside it, said once.

pivot(records, rows=[...], columns=[Column("auprc", "Toxicity AUPRC", metric("auprc")), ...])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.harness.experiment import Record, Trial
from experiments.harness.nested import Place, cell_of, is_nested
from experiments.harness.paper_numbers import PaperNumber
from experiments.harness.report import Figure, Series
from experiments.harness.results import Cell, Table, measured, observed, paired


@dataclass(frozen=True)
class Value:
    """A number of a record."""

    of: Callable[[Record], float | None]  # in `unit`; None where a record has none
    unit: str = "percent"
    seed: Callable[[Trial], int | None] = lambda trial: trial.seed  # the seed that it varies with; None: with none
    replicates: Callable[[Record], NDArray[np.float64] | None] = lambda record: None  # in `unit`, [draws]


def metric(name: str, unit: str = "percent") -> Value:
    """A metric of the test; fractions are shown as percentages."""
    factor = 100 if unit in ("percent", "points") else 1

    def of(record: Record) -> float | None:
        return factor * record.metrics[name] if name in record.metrics else None

    def replicates(record: Record) -> NDArray[np.float64] | None:
        return factor * record.replicates[name] if name in record.replicates else None

    return Value(of, unit, replicates=replicates)


def coverage(name: str, threshold: str | None = None) -> Value:
    """Coverage above a threshold; None: the one that synthesis used. It varies with the seed of writing."""

    def of(record: Record) -> float | None:
        found = record.coverage.get(threshold or "chosen", {}).get(name)
        return None if found is None else 100 * found

    return Value(of, seed=lambda trial: trial.generation)


def count(name: str) -> Value:
    """A count of samples or features."""

    def of(record: Record) -> float | None:
        return record.counts.get(name)

    return Value(of, "count", seed=lambda trial: None)


def length() -> Value:
    """Mean number of content tokens of the texts that were added (both replies of a pair are texts)."""

    def of(record: Record) -> float | None:
        texts = record.counts.get("added_texts")
        return record.counts["added_tokens"] / texts if texts else None

    return Value(of, "tokens", seed=lambda trial: trial.generation)


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    title: str
    value: Value
    holds: Callable[[Trial], bool] = lambda trial: True  # which trials stand in it
    less: str | None = None  # a row: differences from it, paired by seed
    lead: str | None = None  # a row: what it has more than each other row, paired by seed
    paper: Callable[[str], PaperNumber | None] = lambda row: None  # of a row


def by_method(trial: Trial) -> str:
    return trial.method


def pivot(
    records: Iterable[Record],
    rows: Sequence[str],
    columns: Sequence[Column],
    row: Callable[[Trial], str] = by_method,
) -> list[Cell]:
    """One cell per row and column that records stand in: mean and spread over seeds, the interval over test items.

    Columns of differences have none in the row that all others are compared with, nor without it.
    """
    records = list(records)
    cells = []
    for column in columns:
        held = [record for record in records if column.holds(record.trial)]
        by_row = {name: [r for r in held if row(r.trial) == name] for name in rows}
        one = column.less or column.lead
        for name, found in by_row.items():
            if not one:
                cell = _cell(found, name, column)
            elif name == one:
                continue
            else:
                both = (found, by_row.get(one, [])) if column.less else (by_row.get(one, []), found)
                cell = _difference(*both, name, column)
            cells += [] if cell is None else [cell]
    return cells


def _difference(ours: Sequence[Record], other: Sequence[Record], row: str, column: Column) -> Cell | None:
    """One row less another, pair by pair; None where either has no number."""
    if is_nested(record.trial for record in [*ours, *other]):
        mine, theirs = _by_place(ours, column.value), _by_place(other, column.value)
        differences = {place: mine[place] - theirs[place] for place in mine if place in theirs}
        unit = "points" if column.value.unit == "percent" else column.value.unit
        return cell_of(row, column.name, differences, unit, paper=column.paper(row)) if differences else None
    cells = _cell(ours, row, column), _cell(other, row, column)
    if cells[0] is None or cells[1] is None:
        return None
    return replace(paired(cells[0], cells[1], row, paper=column.paper(row)), column=column.name)


def _by_place(records: Sequence[Record], value: Value) -> dict[Place, float]:
    """The numbers by world, generation and training seed; one that no training seed has a part in, by the first two."""
    found: dict[Place, float] = {}
    for record in records:
        if (number := value.of(record)) is not None:
            trial = record.trial
            trained = trial.seed if value.seed(trial) == trial.seed else None
            found[trial.data_seed, trial.generation, trained or 0] = number
    return found


def _cell(records: Sequence[Record], row: str, column: Column) -> Cell | None:
    if is_nested(record.trial for record in records):
        paper = None if column.less or column.lead else column.paper(row)
        tracked = tuple(dict.fromkeys(record.run_id for record in records if record.run_id))
        found = _by_place(records, column.value)
        return cell_of(row, column.name, found, column.value.unit, paper=paper, run_ids=tracked) if found else None
    value, by_seed = column.value, {}
    draws: dict[int | None, NDArray[np.float64]] = {}
    runs: dict[str, None] = {}
    for record in records:
        number = value.of(record)
        if number is None:
            continue
        seed = value.seed(record.trial)
        by_seed[seed] = number
        if (drawn := value.replicates(record)) is not None:
            draws[seed] = drawn
        if record.run_id:
            runs[record.run_id] = None
    if not by_seed:
        return None
    paper = None if column.less or column.lead else column.paper(row)
    if None in by_seed:
        return observed(row, column.name, by_seed[None], unit=value.unit, paper=paper)
    seeded = {seed: number for seed, number in by_seed.items() if seed is not None}
    return measured(
        row,
        column.name,
        seeded,
        unit=value.unit,
        paper=paper,
        run_ids=runs,
        replicates=[draws[seed] for seed in sorted(seeded) if seed in draws],
    )


def sweep_figure(
    records: Iterable[Record],
    x: Callable[[Trial], float],
    columns: Sequence[Column],
    title: str,
    x_label: str,
    y_label: str,
    caption: str = "",
) -> Figure:
    """Each column's mean over seeds at every x, with its spread as the band."""
    records = list(records)
    places = sorted({x(record.trial) for record in records})
    series = []
    for column in columns:
        held = [record for record in records if column.holds(record.trial)]
        found = [(place, _cell([r for r in held if x(r.trial) == place], str(place), column)) for place in places]
        cells = [(place, cell) for place, cell in found if cell is not None]
        spread = [cell.std or 0.0 for _, cell in cells]
        means = [cell.mean for _, cell in cells]
        series.append(
            Series(
                column.title,
                [place for place, _ in cells],
                means,
                low=[mean - std for mean, std in zip(means, spread, strict=True)] if any(spread) else (),
                high=[mean + std for mean, std in zip(means, spread, strict=True)] if any(spread) else (),
            )
        )
    return Figure(title, x_label, y_label, series, caption)


def bars(table: Table, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Columns of a table as lines over its rows, in their order."""
    series = []
    for column in columns:
        found = [table.cell(row, column) for row in rows]
        series.append(
            Series(table.name(column), list(range(len(rows))), [cell.mean if cell else 0.0 for cell in found])
        )
    return Figure(title, "method, in the table's order", "percent", series)


def names_of(columns: Iterable[Column]) -> dict[str, str]:
    """How columns are printed, for `Table.names`."""
    return {column.name: column.title for column in columns}
