"""What `experiments.steering_curves` shows: how answers follow the multiplier, by method and behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Results, Trial
from experiments.harness.nested import reading_aid
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Figure, Page, Series
from experiments.harness.tables import TITLES, place, table, task_notes
from experiments.harness.views import Column, metric, names_of, pivot
from experiments.pages import rows
from experiments.steps.steering_curves import load_curve
from fac.store import Step

if TYPE_CHECKING:
    from experiments.steering_curves import Options

SHOWN = (("robust", "robust accuracy", "Fig. 14"), ("standard", "standard accuracy", "Fig. 13"))
READINGS = {"robust": "Robust accuracy", "standard": "Standard accuracy", "p_matching": "P(matching)"}


def page(run: RunConfig, curves: Mapping[Trial, Step], results: Results) -> Page:
    """A row for each method and behaviour, a column for each multiplier and reading."""
    o: Options = run.experiment
    records = [_with_curve(record, load_curve(results.folder(curves[record.trial]))) for record in results.records]
    multipliers = sorted({name.partition("@")[2] for r in records for name in r.metrics if "@" in name}, key=float)
    kinds: list[labels.Kind] = [rows.kind_of(run, task, records) for task in o.tasks]
    columns = [
        Column(f"{reading}@{at}", f"{told}, {float(at):+g}" if float(at) else f"{told}, 0", metric(f"{reading}@{at}"))
        for reading, told in READINGS.items()
        for at in multipliers
    ]
    scr = Column("scr", "SCR (robust, +1 less -1)", metric("scr"), paper=partial(_printed, run, records))
    names = {f"{task}/{m}": f"{run.task(task).title}: {TITLES[m]}" for task in o.tasks for m in o.methods}
    over = place(run, o.tasks)
    main = table(
        run,
        "steering_curves",
        f"Answers by multiplier, {run.model.name}, {rows.where(run, o, o.tasks)}",
        list(names),
        ["scr", *(column.name for column in columns)],
        pivot(records, list(names), [scr, *columns], row_of),
        {**names, **names_of([scr, *columns])},
        [
            "Robust: the matching letter is the most probable in both orders of the options. Standard: in the order of "
            "the data set, which a liking for a letter inflates (Fig. 13).",
            *task_notes(run, records, o.tasks),
        ],
        kinds,
        aid=reading_aid((record.trial for record in records), over.removesuffix(" seed")),
    )
    x = [float(at) for at in multipliers]

    def line(task: str, method: str, reading: str) -> Series:
        held = [main.cell(f"{task}/{method}", f"{reading}@{at}") for at in multipliers]
        found = [(at, cell) for at, cell in zip(x, held, strict=True) if cell is not None]
        spread = [(cell.mean - (cell.std or 0), cell.mean + (cell.std or 0)) for _, cell in found]
        low, high = zip(*spread, strict=True) if any(cell.std for _, cell in found) else ((), ())
        return Series(TITLES[method], [at for at, _ in found], [cell.mean for _, cell in found], low, high)

    figures = [
        Figure(f"{run.task(task).title}: {told} by multiplier ({figure})", "multiplier", f"{told} (%)",
               [line(task, method, reading) for method in o.methods])
        for task in o.tasks
        for reading, told, figure in SHOWN
    ]  # fmt: skip
    return Page(
        title=main.title,
        subtitle="Figs. 13 and 14 of the paper: how far each method's vectors move the answers, and what letters add.",
        tables=[main],
        figures=[figure for figure in figures if any(series.x for series in figure.series)],
    )


def row_of(trial: Trial) -> str:
    return f"{trial.task}/{trial.method}"


def _with_curve(record: Record, curve: Mapping[str, Mapping[str, float]]) -> Record:
    """The record with all readings at every multiplier."""
    found = {f"{reading}@{at}": score[reading] for at, score in curve.items() for reading in READINGS}
    return replace(record, metrics={**record.metrics, **found})


def _printed(run: RunConfig, records: list[Record], row: str) -> PaperNumber | None:
    task, _, method = row.partition("/")
    kind = rows.kind_of(run, task, records)
    beside = rows.is_beside(run, task, kind, "", run.experiment.test)
    return paper_table("table1").get(method, run.task(task).paper["table1"]) if beside else None
