"""Tables of a run: what every one of them carries (label, hash, versions), and the columns that tasks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.harness import labels, parity
from experiments.harness.config import RunConfig
from experiments.harness.experiment import BASE, Record, Trial
from experiments.harness.outputs import config_hash
from experiments.harness.paper_numbers import PaperNumber, footnotes, paper_table
from experiments.harness.records import losses
from experiments.harness.results import Cell, Table, provenance, versions
from experiments.harness.views import Column, Value, count, coverage, length, metric, pivot
from experiments.tasks import TASKS
from experiments.tasks.base import PLAIN, Task
from fac.llm.engines import Judge
from fac.model_ref import ModelRef
from fac.synthesis.methods import METHODS
from fac.synthesis.samples import Counts

BASELINE = "baseline"
PARTS = {  # of a trial, as they are told
    "features_of": "features of {}",
    "writer": "written by {}",
    "data_seed": "data seed {}",
    "generation": "generation {}",
}
TITLES = {BASE: "Untrained model", **{name: method.title for name, method in METHODS.items()}}  # of rows
PROTOCOLS = {
    "added": "added: a method's rows are trained on beside the seed data",
    "alone": "alone: what a method adds stands in place of the seed's rows",
}
COVERAGE_NOTE = (
    "FAC of missing: share of the missing features that the added rows activate (what the paper's tables print); FAC "
    "ratio: |F(Q)| / |F(P)| of the seed data with the added rows (its definition)."
)


def table(
    run: RunConfig,
    name: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Iterable[Cell],
    names: Mapping[str, str],
    notes: Iterable[str] = (),
    kinds: Iterable[labels.Kind] = (),
    **more: Any,
) -> Table:
    """A table of this run; empty columns are left out, and the traps of the paper's numbers in it are noted."""
    cells = tuple(cells)
    notes = [*notes, *footnotes(cell.paper for cell in cells)]
    held = {cell.column for cell in cells}
    return Table(
        experiment=name,
        scale=run.scale,
        title=title,
        rows=tuple(rows),
        columns=tuple(column for column in columns if column in held),
        cells=cells,
        config_hash=config_hash(run.values),
        versions=versions(),
        provenance=provenance(),
        label=labels.label(kinds, run),
        names={**TITLES, **names},
        notes=tuple(dict.fromkeys(note for note in (*notes, weights_note(run)) if note)),
        **more,
    )


def weights_note(run: RunConfig) -> str:
    """That the weights of the run's model are not the model's own, where they were written out from few bits."""
    told = ModelRef(str(run.values["model"]["path"])).weights_of  # looked at, not read: every run has a model
    return f"{run.values['model']['name']}: {told}." if told else ""


def place(run: RunConfig, tasks: Iterable[str]) -> str:
    """What seeds.data is to these tasks: the lab's world, or what draws rows of data sets."""
    return "world" if all(run.tasks[name].sizes is not None for name in tasks) else "data seed"


def number(task: Task) -> Value:
    """The task's own number."""
    return metric(task.metric, task.unit)


def of_task(name: str) -> Callable[[Trial], bool]:
    return lambda trial: trial.task == name


def task_columns(
    task: Task,
    holds: Callable[[Trial], bool],
    title: str,
    paper: Callable[[str], PaperNumber | None],
    prefix: str,
    gain: Callable[[str], PaperNumber | None] = lambda row: None,
    covered: Callable[[str], PaperNumber | None] = lambda row: None,
) -> list[Column]:
    """A task's number, its difference from the baseline, its further metrics, and what was added and covered.

    `prefix` begins the columns' names; the first is called `prefix` itself. `paper`, `gain` and `covered` are the
    paper's numbers of a row, its differences from the baseline and what it covers of the missing features.
    """
    plain = {name: metric(name, PLAIN.get(name, "percent")) for name in task.also}

    def trained(trial: Trial) -> bool:
        return holds(trial) and trial.method != BASE

    return [
        Column(prefix, title, number(task), holds, paper=paper),
        Column(f"{prefix}_gain", "minus Baseline", number(task), trained, less=BASELINE, paper=gain),
        *(Column(f"{prefix}_{name}", told, plain[name], holds) for name, told in task.also.items()),
        *coverage_columns(holds, prefix, covered),
    ]


def coverage_columns(
    holds: Callable[[Trial], bool], prefix: str, covered: Callable[[str], PaperNumber | None] = lambda row: None
) -> list[Column]:
    """How many rows a method added, how long, and how much of the missing features they cover, in both readings."""
    return [
        Column(f"{prefix}_rows", "rows added", count("added"), holds),
        Column(f"{prefix}_tokens", "tokens per text added", length(), holds),
        Column(f"{prefix}_fac", "FAC of missing", coverage("any"), holds, paper=covered),
        Column(f"{prefix}_ratio", "FAC ratio", coverage("ratio"), holds),
    ]


def task_title(run: RunConfig, name: str) -> str:
    """Of a task's number, with its protocol; a judge's is called by the judge and what it is asked with.

    The benchmark's own annotator goes without saying.
    """
    task, config = run.task(name), run.tasks[name]
    title = f"{task.title} {task.metric_title}, {config.protocol}"
    if config.evaluation is None:
        return title
    by = config.evaluation.judged_by(Judge(run.llms, run.model.ref))
    return f"{title}, judged by {by}" if by else title


def every_metric(
    run: RunConfig, records: Sequence[Record], methods: Sequence[str], kinds: Iterable[labels.Kind]
) -> Table:
    """All that the tests measured, a row for each metric and a column for each method."""
    places = dict.fromkeys((r.trial.task, name) for r in records for name in r.metrics)
    names = {f"{task}_{name}": f"{TASKS[task].title}: {name}" for task, name in places}
    cells = []
    for task, name in places:
        value = metric(name, PLAIN.get(name, "percent"))
        found = pivot(records, methods, [Column(f"{task}_{name}", "", value, of_task(task))])
        cells += [replace(cell, row=cell.column, column=cell.row) for cell in found]
    return table(run, "all_metrics", "Every metric", list(names), methods, cells, names, kinds=kinds)


def written(records: Iterable[Record]) -> list[tuple[str, str]]:
    """What each method wrote and what became of it, for a page: (task and method, one line)."""
    records = [record for record in records if record.counts.get("requested")]
    titled, told = by_title(records, ("features_of", "writer")), {}
    for record in records:
        counts = {name: record.counts[name] for name in Counts.__dataclass_fields__ if name in record.counts}
        told[f"{TASKS[record.trial.task].title}, {titled(record.trial)}: written"] = str(Counts(**counts))
    return list(told.items())


def by_title(records: Iterable[Record], parts: Sequence[str]) -> Callable[[Trial], str]:
    """What a trial's method is called, with those of the parts of a trial in which the records differ."""
    trials = [record.trial for record in records]
    telling = [part for part in parts if len({getattr(trial, part) for trial in trials}) > 1]

    def title(trial: Trial) -> str:
        return ", ".join([TITLES[trial.method], *(PARTS[part].format(getattr(trial, part)) for part in telling)])

    return title


def found_missing(records: Iterable[Record]) -> list[tuple[str, str]]:
    """How many features are relevant and missing, for a page; each model's where there are several."""
    told = {}
    records = [record for record in records if "missing" in record.counts]
    several = len({record.trial.features_of for record in records}) > 1
    for record in records:
        of = f", {PARTS['features_of'].format(record.trial.features_of)}" if several else ""
        name = f"{TASKS[record.trial.task].title}{of}: relevant features on the anchor, missing in the seed data"
        told[name] = f"{record.counts['relevant']}, {record.counts['missing']}"
    return list(told.items())


def paper_column(run: RunConfig, task: Task, test: str, kind: labels.Kind) -> Callable[[str], PaperNumber | None]:
    """The paper's number of each method for this task, where it may stand beside the run's."""
    if not labels.stands_beside(kind, run.model.name, test):
        return lambda method: None
    how = run.tasks[task.name].evaluation
    if how is not None and not how.judged_by(Judge(run.llms, run.model.ref)):
        return lambda method: paper_table("table1").get(method, how.paper)
    return lambda method: labels.table_1(task, method, run.tasks[task.name].train)


def task_notes(
    run: RunConfig,
    records: Sequence[Record],
    tasks: Iterable[str],
    protocols: Iterable[str] = (),
    budgets: bool = True,
) -> list[str]:
    """What a table over tasks must say: protocols, budgets that were not reached, who wrote, what was left out.

    `protocols` are those of the tasks where none are named; else the tasks' own are not read. Not `budgets`: the rows
    that are added are what the table varies.
    """
    tasks, own = list(tasks), not protocols
    protocols = list(protocols) or dict.fromkeys(run.tasks[name].protocol for name in tasks)
    notes = ["; ".join(PROTOCOLS[protocol] for protocol in protocols) + ". Differences are paired by seed."]
    notes.append(COVERAGE_NOTE)
    notes += filter(None, (budget_note(run, records, name) for name in tasks if budgets))
    notes += method_notes(records)
    notes.append(run.llms.note(run.model.ref))
    notes += losses(records)
    for name in tasks:
        task = run.task(name)
        told = task.note
        if task.complete is not None:
            told = f"{told} The writer's answers are {answers_of(run, name)}."
        notes += [f"{task.title}: {told}"] if told else []
    return [*notes, *parity.notes(run, tasks, with_protocols=own)]


def method_notes(records: Iterable[Record]) -> list[str]:
    """What the methods of the records say of themselves: their sources, and what is simplified."""
    methods = dict.fromkeys(record.trial.method for record in records if record.trial.method in METHODS)
    return [f"{METHODS[name].title}: {METHODS[name].note}" for name in methods if METHODS[name].note]


def answers_of(run: RunConfig, task: str) -> str:
    """How what is written is answered, where the task needs answers."""
    settings = run.synthesis(task, seed=0)
    drawn = f"drawn at temperature {settings.temperature:g}, top-p {settings.top_p:g}"
    return drawn if settings.answers == "drawn" else "greedy"


def budget_note(run: RunConfig, records: Iterable[Record], task: str) -> str:
    """Which methods added other numbers of rows than the budget, which is the same for all; "" if none did."""
    budget = run.tasks[task].budget
    held = [r for r in records if r.trial.task == task and r.trial.method in METHODS and METHODS[r.trial.method].adds]
    titled = by_title(held, ("features_of", "writer", "data_seed", "generation"))
    added = {titled(r.trial): r.counts["added"] for r in held}
    odd = [f"{title} added {rows:,}" for title, rows in added.items() if rows != budget]
    return f"{TASKS[task].title}: the budget is {budget:,} rows; {', '.join(odd)}." if odd else ""
