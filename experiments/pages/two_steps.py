"""What `experiments.two_steps` shows: coverage by threshold, of the rows added and of all that was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.comparisons import claims_table, compare, sentence, values_of
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Results, matching
from experiments.harness.nested import reading_aid
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Table
from experiments.harness.tables import (
    TITLES,
    budget_note,
    found_missing,
    of_task,
    place,
    table,
    written,
)
from experiments.harness.views import Column, by_method, coverage, pivot
from experiments.pages import rows
from fac.coverage import Threshold

if TYPE_CHECKING:
    from experiments.two_steps import Options

STEPS = {"fac_one_step": "one_step", "fac": "two_step"}  # methods: how Table 10 calls them
TOLD = {"one_step": "one step", "two_step": "two steps", "gain": "two steps minus one"}
READINGS = {  # which samples count: name of the table, and what it says
    "any": ("two_steps", "of the rows added"),
    "written_any": ("all_written", "of all samples of the last step's first round, kept or not"),
}


def page(run: RunConfig, results: Results) -> Page:
    """Both readings of what is covered, and the two ways compared at the threshold that synthesis uses."""
    o: Options = run.experiment
    records = results.records
    kinds: list[labels.Kind] = [rows.kind_of(run, task, records) for task in o.tasks]
    numbers = {task: values_of(matching(records, task=task), coverage("any"), by_method) for task in o.tasks}
    compared = compare(numbers, [(task, "fac", "fac_one_step") for task in o.tasks])
    titled = {task: run.task(task).title for task in o.tasks}
    main, everything = (_table(run, records, kinds, reading) for reading in READINGS)
    return Page(
        title=main.title,
        subtitle="Table 10 and Fig. 5 of the paper: what contrastive pairs add to what descriptions alone cover.",
        tables=[main, everything, claims_table(run, compared, "Two steps against one", kinds, TITLES, titled)],
        facts=[
            *((titled[c.task], sentence(c)) for c in compared),
            *found_missing(records),
            *written(records),
        ],
        figures=[_figure(run, records, task) for task in o.tasks],
    )


def thresholds(records: Sequence[Record]) -> list[str]:
    """Those that were measured, absolute ones first."""
    found = dict.fromkeys(name for record in records for name in record.coverage if name != "chosen")
    return sorted(found, key=lambda name: (Threshold.parse(name).relative, Threshold.parse(name).value))


def _table(run: RunConfig, records: Sequence[Record], kinds: Sequence[labels.Kind], reading: str) -> Table:
    o: Options = run.experiment
    name, told = READINGS[reading]
    cells, names = [], {}
    for at in thresholds(records):
        names |= {f"{step}@{at}": f"{of}, δ = {at}" for step, of in TOLD.items()}
        for task, kind in zip(o.tasks, kinds, strict=True):
            beside = reading == "any" and labels.stands_beside(kind, run.model.name, o.test)
            covered = coverage(reading, at)
            columns = [
                Column("share", "", covered, of_task(task)),
                Column("gain", "", covered, of_task(task), less="fac_one_step"),
            ]
            for cell in pivot(records, [*STEPS], columns):
                row = f"{STEPS[cell.row] if cell.column == 'share' else 'gain'}@{at}"
                paper = paper_table("table10").get(row, task) if beside else None
                cells.append(replace(cell, row=row, column=task, paper=paper))
    return table(
        run,
        name,
        f"One step and two: missing features covered, {told}, {run.model.name}, {rows.where(run, o, o.tasks)}",
        list(names),
        o.tasks,
        cells,
        {**names, **{task: run.task(task).title for task in o.tasks}},
        [
            f"Missing are the features of the threshold that synthesis uses ({run.thresholds.default}), at every row. "
            "Thresholds with ×max are relative to each feature's maximum on the anchor; absolute ones are in the units "
            "of the SAE, which are the paper's only with the paper's SAE.",
            *filter(None, (budget_note(run, records, task) for task in o.tasks)),
        ],
        kinds,
        aid=reading_aid((record.trial for record in records), place(run, o.tasks).removesuffix(" seed")),
    )


def _figure(run: RunConfig, records: Sequence[Record], task: str) -> Figure:
    """Fig. 5: the thresholds of the kind that synthesis uses."""
    relative = Threshold.parse(run.thresholds.default).relative
    swept = [name for name in thresholds(records) if Threshold.parse(name).relative == relative]
    held = list(matching(records, task=task))
    lines = [
        replace(line, name=TOLD[STEPS[method]])
        for method in STEPS
        for line in [_line(list(matching(held, method=method)), swept)]
    ]
    axis = "δ as a share of the feature's anchor maximum" if relative else "δ"
    return Figure(f"{run.task(task).title}: FAC by threshold (Fig. 5)", axis, "% of F_miss", lines)


def _line(records: Sequence[Record], swept: Sequence[str]):
    """The series of one method; every threshold as a column of its own."""
    cells = [pivot(records, [records[0].trial.method], [Column(at, "", coverage("any", at))])[0] for at in swept]
    spread = [cell.std or 0.0 for cell in cells]
    means = [cell.mean for cell in cells]
    low = [mean - std for mean, std in zip(means, spread, strict=True)] if any(spread) else ()
    high = [mean + std for mean, std in zip(means, spread, strict=True)] if any(spread) else ()
    return Series("", [Threshold.parse(at).value for at in swept], means, low, high)
