"""What tables of trials show: rows that are methods or settings, tasks as columns, and which rows differ by how much.

A declaration says what its rows are (`Rows`) and where the paper prints them; the table, the comparisons with Holm's
correction and what they allow to say are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.harness import labels
from experiments.harness.comparisons import Comparison, claims_table, compare, numbers_of, sentence
from experiments.harness.config import RunConfig
from experiments.harness.experiment import BASE, Record, Repeated, Results, Trial
from experiments.harness.nested import reading_aid
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Figure, Page
from experiments.harness.results import Table
from experiments.harness.tables import (
    TITLES,
    every_metric,
    found_missing,
    of_task,
    place,
    table,
    task_columns,
    task_notes,
    task_title,
    written,
)
from experiments.harness.views import Column, by_method, names_of, pivot
from fac.synthesis.methods import METHODS

Printed = Callable[[str, str], PaperNumber | None]  # the paper's number of a task's or column's row


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a table, and how they stand beside the paper's."""

    names: Mapping[str, str]  # by key, in the order of the table: what they are called
    of: Callable[[Trial], str] = by_method  # which row a trial stands in
    pairs: Sequence[tuple[str, str]] = ()  # rows that are compared: this one less that one
    paper: Printed = lambda task, row: None
    gain: Printed = lambda task, row: None  # ... and what the paper gives as the difference from the baseline,
    covered: Printed = lambda task, row: None  # ... as FAC of missing
    mode: str = ""  # how the paper trained for them, lora or head; "": both, or it does not matter


@dataclass(frozen=True)
class Shown:
    """What a page shows beside the table and the comparisons."""

    title: str
    subtitle: str
    columns: Callable[[str], Sequence[Column]] = lambda task: ()  # further ones of a task
    notes: Sequence[str] = ()
    figures: Callable[[Table], Sequence[Figure]] = lambda table: ()
    tables: Sequence[Table] = ()
    facts: Sequence[tuple[str, str]] = field(default=())


def in_paper(name: str, *more: str) -> tuple[str, ...]:
    """The rows of a table of the paper that there are methods for, in its order; `more` stand before the last, ours."""
    rows = [row for row in paper_table(name).rows if row in METHODS]
    return (*rows[:-1], *more, rows[-1])


def of_toxicity(table: str, column: str) -> Printed:
    """A column of a table of the paper that has numbers of toxicity only."""
    return lambda task, row: paper_table(table).get(row, column) if task == "toxicity" else None


def against_all(ours: str, others: Iterable[str]) -> list[tuple[str, str]]:
    """A row and each other one, but the untrained model, which is no method."""
    return [(ours, other) for other in others if other not in (ours, BASE)]


def of_methods(methods: Sequence[str], ours: str = "fac", **more: object) -> Rows:
    """Rows that are methods, of which `ours` is compared with every other one."""
    pairs = against_all(ours, methods) if ours in methods else []
    return Rows(names={name: TITLES[name] for name in methods}, pairs=pairs, **more)  # type: ignore[arg-type]


def page(
    run: RunConfig,
    results: Results,
    name: str,
    tasks: Sequence[str],
    rows: Rows,
    shown: Shown,
    budgets: bool = True,
) -> Page:
    """The table `name`, what its rows differ by, and every metric behind it."""
    records, options = results.records, run.experiment
    kinds: list[labels.Kind] = [kind_of(run, task, records) for task in tasks]
    columns = [
        column
        for task, kind in zip(tasks, kinds, strict=True)
        for column in _columns_of(run, options, task, kind, rows, shown)
    ]
    over = place(run, tasks)
    trials = [record.trial for record in records]
    compared = compared_rows(run, records, tasks, rows)
    main = table(
        run,
        name,
        f"{shown.title}, {run.model.name}, {where(run, options, tasks)}",
        list(rows.names),
        [column.name for column in columns],
        pivot(records, list(rows.names), columns, rows.of),
        {**rows.names, **names_of(columns)},
        [
            *shown.notes,
            *training_notes(run, tasks, rows, kinds),
            *task_notes(run, records, tasks, budgets=budgets),
            f"Scored on the {options.test} set of the {over.removesuffix(' seed')}.",
        ],
        kinds,
        aid=reading_aid(trials, over.removesuffix(" seed")),
    )
    titled = {task: run.task(task).title for task in tasks}
    claims = claims_table(run, compared, f"{shown.title}: row against row", kinds, rows.names, titled)
    found = [*found_missing(records), *written(records)] if rows.of is by_method else []
    methods = [*rows.names] if rows.of is by_method else []
    return Page(
        title=main.title,
        subtitle=shown.subtitle,
        tables=[
            main,
            *([claims] if compared else []),
            *shown.tables,
            *([every_metric(run, records, methods, kinds)] if methods else []),
        ],
        facts=[*((titled[c.task], sentence(c, rows.names)) for c in compared), *shown.facts, *found],
        figures=[figure for figure in shown.figures(main) if any(series.x for series in figure.series)],
    )


def _columns_of(
    run: RunConfig, options: Repeated, task: str, kind: labels.Kind, rows: Rows, shown: Shown
) -> list[Column]:
    beside = is_beside(run, task, kind, rows.mode, options.test)

    def printed(of: Printed) -> Callable[[str], PaperNumber | None]:
        return lambda row: of(task, row) if beside else None

    numbers = (printed(rows.gain), printed(rows.covered))
    first, *rest = task_columns(
        run.task(task), of_task(task), task_title(run, task), printed(rows.paper), task, *numbers
    )
    return [first, *shown.columns(task), *rest]


def compared_rows(run: RunConfig, records: Sequence[Record], tasks: Sequence[str], rows: Rows) -> list[Comparison]:
    """Every pair of rows on every task, corrected together."""
    numbers = {task: numbers_of(records, run.task(task), rows.of) for task in tasks}
    return compare(numbers, [(task, *pair) for task in tasks for pair in rows.pairs])


def models_of(records: Iterable[Record]) -> list[str]:
    """Names of the models that are trained on what was found with them and written by them."""
    named = (name for r in records for name in (r.trial.trained, r.trial.features_of))
    return list(dict.fromkeys(named))


def kind_of(run: RunConfig, task: str, records: Iterable[Record]) -> labels.Kind:
    """Whose the numbers of a task are."""
    return labels.kind_of(run, task, models_of(records))


def where(run: RunConfig, options: Repeated, tasks: Sequence[str]) -> str:
    """The world of a table, or how many there are."""
    worlds, over = options.worlds or (run.seeds.data,), place(run, tasks)
    return f"{over} {worlds[0]}" if len(worlds) == 1 else f"{len(worlds)} {over}s"


def is_beside(run: RunConfig, task: str, kind: labels.Kind, mode: str, test: str) -> bool:
    """Whether the paper's numbers may stand beside those of a task: of LoRA and of heads never, but in the lab.

    The lab has no number that could be taken for the paper's, and its note says how either was trained.
    """
    if not labels.stands_beside(kind, run.model.name, test):
        return False
    trained = getattr(run.tasks[task].train, "mode", "")
    return kind == "lab" or not mode or not trained or mode == trained


def training_notes(run: RunConfig, tasks: Sequence[str], rows: Rows, kinds: Sequence[labels.Kind]) -> list[str]:
    """That the paper trained otherwise than this run, where it did."""
    called = {"head": "the head alone", "lora": "LoRA adapters"}
    modes = {task: getattr(run.tasks[task].train, "mode", "") for task in tasks}
    odd = [task for task, mode in modes.items() if rows.mode and mode and mode != rows.mode]
    if not odd:
        return []
    which = ", ".join(run.task(task).title for task in odd)
    shown = "" if "lab" in kinds else ", so its numbers do not stand beside these"
    because = ": on so small a model a head alone is near chance" if "lab" in kinds else ""
    return [f"{which}: {called[modes[odd[0]]]} are trained here{because}. The paper trains {called[rows.mode]}{shown}."]
