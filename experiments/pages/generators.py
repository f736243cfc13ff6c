"""What `experiments.generators` shows: a row for each temperature, a column for each writer, and the gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.comparisons import claims_table, compare, numbers_of, sentence
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Results, Trial
from experiments.harness.nested import reading_aid
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell
from experiments.harness.tables import found_missing, number, place, table, task_notes, task_title
from experiments.harness.views import Column, count, coverage, pivot, sweep_figure
from experiments.pages import rows

if TYPE_CHECKING:
    from experiments.generators import Options

TEMPERATURE = "synthesis.temperature"
SECOND = "gpt_4o_mini"  # of Table 4's columns


def temperature(trial: Trial) -> float:
    return trial.setting(TEMPERATURE)


def key(trial: Trial) -> str:
    return f"{temperature(trial)}/{trial.writer}"


def page(run: RunConfig, writers: Sequence[str], results: Results) -> Page:
    """Table 4 with the gap paired by seed, and a line for each writer."""
    o: Options = run.experiment
    records, task = results.records, run.task(o.task)
    kinds: list[labels.Kind] = [labels.kind_of(run.for_writer(name), o.task, [run.model.name]) for name in writers]
    beside = o.task == "toxicity" and all(rows.is_beside(run, o.task, kind, "head", o.test) for kind in kinds)
    first, second = writers
    columns = [
        Column("score", "", number(task)),
        Column("rows", "", count("added")),
        Column("fac", "", coverage("any")),
        Column("gap", "", number(task), less=second),
    ]
    cells = [
        _turned(cell, str(at), (beside and kinds[0]) or None, writers)
        for at in o.temperatures
        for cell in pivot(_at(records, at), writers, columns, lambda trial: trial.writer)
    ]
    titles = {f"{name}{end}": f"{name}{told}" for name in writers for end, told in
              (("", ""), ("_rows", ": rows added"), ("_fac", ": FAC of missing"))}  # fmt: skip
    titles["gap"] = f"{first} minus {second}"
    numbers = {o.task: numbers_of(records, task, key)}
    compared = compare(numbers, [(o.task, f"{at}/{first}", f"{at}/{second}") for at in o.temperatures])
    names = {f"{at}/{name}": f"{name} at {at}" for at in o.temperatures for name in writers}
    over = place(run, [o.task])
    made = rows.Rows(names=names, mode="head")
    stands_for = f"{second} stands in the place of GPT-4o mini. " if beside and kinds[1] == "lab" else ""
    main = table(
        run,
        "generators",
        f"Writers and temperatures, {task_title(run, o.task)}, {run.model.name}, {rows.where(run, o, [o.task])}",
        [str(at) for at in o.temperatures],
        [*writers, "gap", *(f"{name}{end}" for name in writers for end in ("_rows", "_fac"))],
        cells,
        {**{str(at): f"T = {at}" for at in o.temperatures}, **titles},
        [
            f"{stands_for}What is missing is found with {run.model.name}, which is trained on what was written.",
            *rows.training_notes(run, [o.task], made, kinds),
            *task_notes(run, records, [o.task], budgets=False),
        ],
        kinds,
        aid=reading_aid((r.trial for r in records), over.removesuffix(" seed")),
    )
    lines = [Column(name, name, number(task), partial(_by, name)) for name in writers]
    return Page(
        title=main.title,
        subtitle="Table 4 of the paper: the generator and the temperature that it writes at.",
        tables=[main, claims_table(run, compared, f"{first} against {second}", kinds, names, {o.task: task.title})],
        facts=[*((task.title, sentence(c, names)) for c in compared), *found_missing(records)],
        figures=[
            sweep_figure(records, temperature, lines, f"{task.title} by temperature", "temperature", task.metric_title)
        ],
    )


def _at(records: Sequence[Record], at: float) -> list[Record]:
    return [record for record in records if temperature(record.trial) == at]


def _by(writer: str, trial: Trial) -> bool:
    return trial.writer == writer


def _turned(cell: Cell, at: str, kind: labels.Kind | None, writers: Sequence[str]) -> Cell:
    """A cell of a writer's row in the row of its temperature, with the paper's number if it may stand there."""
    column = {"score": cell.row, "gap": "gap"}.get(cell.column, f"{cell.row}_{cell.column}")
    in_paper = {"score": _printed(cell.row, kind, writers), "gap": "gap"}.get(cell.column)
    paper: PaperNumber | None = paper_table("table4").get(at, in_paper) if kind and in_paper else None
    return replace(cell, row=at, column=column, paper=paper)


def _printed(writer: str, kind: labels.Kind | None, writers: Sequence[str]) -> str | None:
    """The column of Table 4 that a writer's numbers stand beside."""
    if writer in labels.TABLE_1_MODELS:
        return "llama"
    return SECOND if kind == "lab" or writer == "openai" else None
