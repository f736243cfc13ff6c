"""Table 1: every task's column for every method, on one model.

    fac experiment=main_results model=llama [experiment.tasks=[toxicity,reward]] [experiment.world=1]

For each task: mine the gap, let every method write, train and test one cell per seed. Knows: which cells, and what the
table says. Does not know: how a task draws, trains and tests (`experiments.tasks`), or the method (`fac.pipeline`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from pydantic import PositiveInt

from experiments import config, labels, parity
from experiments.cells import Cells, Scored, default_workers, percent_cell, track
from experiments.engines import COMPARE, Crew, Engines, Judge
from experiments.job import Job
from experiments.lab_page import Row, budget_note, coverage_of
from experiments.report import Figure, Page, Series
from experiments.results import Cell, Table, measured, observed, paired, provenance, versions
from experiments.session import Session
from experiments.tasks import TASKS, Task
from experiments.tasks.base import PLAIN, Protocol, TaskData, examples_artifact, trained_on
from experiments.tasks.data import Origin, Sources, origin_of, task_data
from fac.backbone import ModelRef
from fac.errors import FacError, closest
from fac.features import FeatureSettings
from fac.interpret import ROLES, interpretation_note
from fac.llm.base import ChatModel
from fac.pipeline import Mined, Thresholds, Workshop, mine, synthesis_of
from fac.prompts import Prompts
from fac.sae import SaeRef, TrainSettings
from fac.sae.recipe import RecipeSettings
from fac.store import Artifact, Store
from fac.synthesis.method import Outcome, SynthesisInput, finished
from fac.synthesis.methods import METHODS
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Writer

BASE = "base"  # the row of the model as it is, for tasks that can test it
PROTOCOL_NOTES = {
    "added": "added: a row trains on the seed data and what it adds",
    "alone": "alone: what a row adds stands in place of the seed's rows",
}
ROW_NAMES = {BASE: "Untrained model"} | {method.name: method.title for method in METHODS.values()}
COVERAGE = {"rows": "rows added", "fac": "FAC of missing", "ratio": "FAC ratio"}  # columns beside a task's number
COVERAGE_NOTE = (
    "FAC of missing: share of the missing features that the added rows activate (what the paper's tables print); FAC "
    "ratio: |F(Q)| / |F(P)| of the seed data with the added rows (its definition)."
)


@dataclass(frozen=True)
class TaskPlan:
    """The settings of one task."""

    task: Task
    prompts: Prompts
    synthesis: Settings
    budget: int
    origin: Origin
    train: Any
    seeds: tuple[int, ...]
    read: Any
    protocol: Protocol
    full: Literal["budget", "all"] = "budget"  # how many human rows the row "full" adds

    @property
    def has_judge(self) -> bool:
        """Whether the test asks the annotator `compare`; the lab's asks the lab's model."""
        return self.task.evaluation is not None and isinstance(self.origin, Sources)

    @property
    def place(self) -> str:
        """What the number `experiment.world` counts."""
        return "data seed" if isinstance(self.origin, Sources) else "world"

    def cells_of(self, row: str) -> tuple[int, ...]:
        """The seeds that a row is trained with: none of a row that this task does without.

        Nothing is drawn for the untrained model. The seed's rows in place of the seed's rows are the baseline.
        """
        if row == BASE:
            return self.seeds[:1] if self.task.untrained else ()
        return () if row == "seed_twice" and self.protocol == "alone" else self.seeds

    @property
    def note(self) -> str:
        """What the table says of the task's number."""
        task = self.task
        note = task.note_on_data if isinstance(self.origin, Sources) and task.note_on_data else task.note
        if task.finish is None:
            return note
        drawn = f"drawn at temperature {self.synthesis.temperature:g}, top-p {self.synthesis.top_p:g}"
        return f"{note} The writer's answers are {drawn if self.synthesis.answers == 'drawn' else 'greedy'}."

    def title(self, judges: Iterable[str]) -> str:
        """Of the task's number, with its protocol; a judge's is called by the judge and what it was asked with."""
        if not self.has_judge or not isinstance(self.origin, Sources):
            return f"{self.task.title}, {self.protocol}"
        prompts = self.origin.evaluation.prompts
        return f"{self.task.title}, {self.protocol}, judged by {', '.join(sorted(judges))} with {prompts}/compare.jinja"


@dataclass(frozen=True)
class Column:
    """What one task came to before its cells are scored."""

    plan: TaskPlan
    mined: Mined
    rows: list[Row]
    kept: dict[str, str]  # row -> what became of what was written for it
    losses: Sequence[str]  # what was left out of the data sets


@dataclass(frozen=True)
class Findings:
    """What the tables are made of."""

    columns: Sequence[Column]
    names: Sequence[str]  # rows, in order
    scored: Sequence[tuple[Scored, str]]  # finished cells, with their MLflow runs
    world: int
    crew: str  # who wrote and annotated
    kinds: Mapping[str, labels.Kind]  # whose a task's numbers are


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    names = config.value(cfg, "experiment.rows", list[str])
    plans = task_plans(cfg)
    for name in names:
        if name not in (BASE, *METHODS):
            raise FacError(f"experiment.rows cannot be {name}{closest(name, (BASE, *METHODS))}.")
    test = config.tested_on(cfg)
    model = config.model_ref(cfg)
    base = config.base_ref(cfg)
    for plan in plans:
        if plan.task.from_base and base is None:
            raise FacError(f"The {plan.task.name} task trains a base model: set model.base to a folder or hub id.")
    tools = Tools.of(cfg, model, base)
    world: int = config.value(cfg, "experiment.world", int)
    workers: int = config.value(cfg, "workers", PositiveInt | None) or default_workers()
    engines = tools.engines
    engines.check((*ROLES, COMPARE) if any(plan.has_judge for plan in plans) else ROLES)
    refs = {config.plain(cfg, "model.name"): model}
    kinds: dict[str, labels.Kind] = {
        p.task.name: labels.kind_of(labels.data_of(p.task, p.origin), refs, engines) for p in plans
    }
    torch.set_num_threads(1)
    with Session.open(cfg) as session, Cells(workers) as cells:
        columns = []
        with engines.open(model, session.say) as crew:
            for plan in plans:
                data = task_data(session.store, plan.task, world, plan.origin, test)
                for note in data.notes:
                    session.say(note)
                columns.append(write_column(session, cells, tools, crew, plan, data, names))
        scored = [track(session, cell) for cell in cells.results()]
        return _finish(session, Findings(columns, names, scored, world, crew.note, kinds))


@dataclass(frozen=True)
class Tools:
    """What measures, writes and is trained, for every task of a run."""

    model: ModelRef
    base: ModelRef | None
    sae: SaeRef | TrainSettings | RecipeSettings
    layer: int | None
    features: FeatureSettings
    thresholds: Thresholds
    engines: Engines

    @classmethod
    def of(cls, cfg: DictConfig, model: ModelRef, base: ModelRef | None) -> Tools:
        sae, layer, features = config.sae_of(cfg), config.sae_layer(cfg), config.feature_settings(cfg)
        return cls(model, base, sae, layer, features, config.thresholds(cfg), config.engines(cfg))


def write_column(
    session: Session,
    cells: Cells,
    tools: Tools,
    crew: Crew,
    plan: TaskPlan,
    data: TaskData,
    names: Sequence[str],
    group: str = "",
) -> Column:
    """Find what the seed data of one task miss, let every method write for it, and submit what is trained on that."""
    model, base, store = tools.model, tools.base, session.store
    curve = session.sae_curve(f"sae_{plan.task.name}")
    shop = Workshop(store, model, tools.sae, tools.layer, tools.features, data.anchor, curve)
    mined = mine(
        shop, data.anchor, data.known, crew.annotators, plan.prompts, plan.read, tools.thresholds, data.labelled
    )
    gap = mined.gap
    session.say(f"{plan.task.name}: {interpretation_note(gap.interpretations.values())}")
    found = f"{int(gap.active().sum())} relevant features on the anchor, {int(gap.missing().sum())} missing in seed"
    for said in (*gap.notes(), found):
        session.say(f"{plan.task.name}: {said}")
    given, writer = synthesis_for(plan, mined, crew.writer, data)
    column = Column(plan, mined, [], {}, data.losses)
    others = plan.task.others(store, data, model) if plan.task.others else {}
    judge = Judge(tools.engines, model) if plan.has_judge else model
    for name in (name for name in names if plan.cells_of(name)):
        row = Row(BASE, Outcome([]), None)
        if name != BASE:
            row = write_row(store, name, given, writer, plan, mined)
            column.rows.append(row)
        if row.outcome.samples:
            column.kept[name] = str(row.outcome.counts)
            session.say(f"{plan.task.name}, {name}: {column.kept[name]}")
        cells.submit(jobs_of(plan, store, data, row, model, base, others, group, judge))
    shop.release()
    return column


def task_plans(cfg: DictConfig) -> list[TaskPlan]:
    """The tasks that `experiment.tasks` names, with their settings checked."""
    chosen: list[str] = config.value(cfg, "experiment.tasks", list[str])
    if not chosen or len(set(chosen)) < len(chosen):
        raise FacError("experiment.tasks needs at least one task, and each only once.")
    plans = []
    for name in chosen:
        if name not in TASKS:
            raise FacError(f"experiment.tasks cannot be {name}{closest(name, TASKS)}.")
        task, key = TASKS[name], f"tasks.{name}"
        values = config.group(cfg, key)
        common = config.synthesis_settings(cfg, max_new_tokens=config.value(cfg, f"{key}.max_new_tokens", PositiveInt))
        seeds = tuple(config.value(cfg, f"{key}.seeds", list[int]))
        if not seeds or len(set(seeds)) < len(seeds):
            raise FacError(f"{key}.seeds needs at least one seed, and each only once.")
        plans.append(
            TaskPlan(
                task,
                Prompts(values["prompts"]),
                common,
                config.value(cfg, f"{key}.budget", PositiveInt),
                origin_of(task, values),
                config.typed(task.settings, values["train"], f"{key}.train"),
                seeds,
                config.read_settings(cfg),
                config.value(cfg, f"{key}.protocol", Protocol),
                config.value(cfg, f"{key}.full", Literal["budget", "all"]) if "full" in values else "budget",
            )
        )
    return plans


def synthesis_for(plan: TaskPlan, mined: Mined, model: ChatModel, data: TaskData) -> tuple[SynthesisInput, Writer]:
    """What the methods are given for one task, and what they write with."""
    return synthesis_of(
        mined,
        model,
        plan.prompts,
        plan.task.schema,
        plan.synthesis,
        data.seed_examples,
        data.human_examples,
        plan.budget,
        data.held_out,
    )


def write_row(store: Store, name: str, given: SynthesisInput, writer: Writer, plan: TaskPlan, mined: Mined) -> Row:
    """Let one method write; its examples, finished where the task finishes them, and what they cover."""
    if name == "full" and plan.full == "all":
        given = replace(given, budget=len(given.human_examples))
    outcome = METHODS[name].run(given, writer)
    if outcome.examples and plan.task.finish:
        done = plan.task.finish(store, outcome.examples, writer.model, plan.prompts, plan.synthesis)
        outcome = finished(outcome, done)
    added = examples_artifact(store, plan.task.schema, outcome.examples) if outcome.examples else None
    return coverage_of(mined.shop, mined.gap, Row(name, outcome, added))


def jobs_of(
    plan: TaskPlan,
    store: Store,
    data: TaskData,
    row: Row,
    model: ModelRef,
    base: ModelRef | None,
    others: Mapping[str, Artifact],
    group: str = "",
    judge: ModelRef | Judge | None = None,
) -> list[Job]:
    """One job per seed; `judge` None is the run's own model."""
    untrained = row.name == BASE
    parts = {} if untrained else trained_on(data, row.added, plan.protocol)
    trained = base if plan.task.from_base and base else model
    return [
        Job(
            plan.task.name,
            row.name,
            seed,
            store.root,
            trained,
            plan.train,
            data.test,
            **parts,
            others=others,
            group=group,
            untrained=untrained,
            judge=judge or model,
        )
        for seed in plan.cells_of(row.name)
    ]


def coverage_cells(row: Row, prefix: str, seed: int) -> list[Cell]:
    """How many rows a method added and what they cover, in both readings; `seed` is that of writing."""
    added = observed(row.name, f"{prefix}rows", len(row.outcome.examples), unit="count")
    found = [(kind, share) for kind, share in (("fac", row.any), ("ratio", row.ratio)) if share is not None]
    return [added, *(measured(row.name, f"{prefix}{kind}", {seed: 100 * share.binary}) for kind, share in found)]


def protocol_note(plans: Iterable[TaskPlan]) -> str:
    """What the protocols behind the columns' names mean."""
    used = dict.fromkeys(plan.protocol for plan in plans)
    return f"{'; '.join(PROTOCOL_NOTES[protocol] for protocol in used)}. Differences are paired by seed."


def _finish(session: Session, found: Findings) -> Path:
    columns, table, details = found.columns, _table(session, found), _details(session, found)
    facts = [
        (
            f"{c.plan.task.title}: relevant features on the anchor, missing in the seed data",
            f"{int(c.mined.gap.active().sum())}, {int(c.mined.gap.missing().sum())}",
        )
        for c in columns
    ]
    facts += [
        (f"{c.plan.task.title}, {ROW_NAMES[row]}: written", kept) for c in columns for row, kept in c.kept.items()
    ]
    page = Page(
        title=table.title,
        subtitle="Table 1 of the paper: what each method's data teach, task by task.",
        tables=[table, details],
        facts=facts,
        figures=[_figure(table, found)],
    )
    metrics = {f"{cell.column}/{cell.row}": cell.mean for cell in table.cells}
    return session.finish(page, metrics)


def _table(session: Session, findings: Findings) -> Table:
    columns, names, scored = findings.columns, findings.names, findings.scored
    cells: list[Cell] = []
    also: dict[str, str] = {}  # columns of further metrics, with their titles
    for column in columns:
        task = column.plan.task
        found = {
            name: [(c, run) for c, run in scored if c.job.task == task.name and c.job.row == name] for name in names
        }
        by_row = {}
        kind, test = findings.kinds[task.name], session.cfg.experiment.test
        beside = labels.stands_beside(kind, session.cfg.model.name, test)
        for name in (name for name in names if found[name]):
            paper = labels.table_1(task, name, column.plan.train) if beside else None
            by_row[name] = percent_cell(found[name], task.metric, name, task.name, paper, unit=task.unit)
        cells += by_row.values()
        for metric, title in task.also.items():
            for name in names:
                having = [(c, run) for c, run in found[name] if metric in c.metrics]
                if having:
                    also[f"{task.name}_{metric}"] = title
                    cells.append(percent_cell(having, metric, name, f"{task.name}_{metric}"))
        if "baseline" in by_row:
            cells += [
                replace(paired(cell, by_row["baseline"], name), column=f"{task.name}_gain")
                for name, cell in by_row.items()
                if name not in (BASE, "baseline")
            ]
        for row in column.rows:
            cells += coverage_cells(row, f"{task.name}_", column.plan.synthesis.seed)
    tasks = [column.plan.task for column in columns]
    judges = {c.job.judge.identity() for c, _ in scored if isinstance(c.job.judge, Judge)}
    return Table(
        experiment="main_results",
        scale=session.cfg.scale.name,
        title=f"Main results, {session.cfg.model.name}, {columns[0].plan.place} {findings.world}",
        rows=tuple(names),
        columns=tuple(
            f"{task.name}{kind}"
            for task in tasks
            for kind in (
                "",
                "_gain",
                *(f"_{m}" for m in (*task.also, *COVERAGE) if m in COVERAGE or f"{task.name}_{m}" in also),
            )
        ),
        cells=tuple(cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        label=labels.label(findings.kinds.values()),
        names=ROW_NAMES
        | {column.plan.task.name: column.plan.title(judges) for column in columns}
        | {f"{task.name}_gain": "minus Baseline" for task in tasks}
        | also
        | {f"{task.name}_{kind}": title for task in tasks for kind, title in COVERAGE.items()},
        notes=(
            protocol_note(column.plan for column in columns),
            COVERAGE_NOTE,
            *(
                note
                for column in columns
                if (note := budget_note(column.plan.task.title, column.plan.budget, column.rows, ROW_NAMES))
            ),
            f"Scored on the {session.cfg.experiment.test} set of the {columns[0].plan.place.removesuffix(' seed')}.",
            findings.crew,
            *(f"{loss}." for column in columns for loss in column.losses),
            *(f"{c.plan.task.title}: {interpretation_note(c.mined.gap.interpretations.values())}" for c in columns),
            *(f"{column.plan.task.title}: {note}" for column in columns for note in column.mined.gap.notes()),
            *(f"Answers were judged by {judge}." for judge in judges),
            *(f"{column.plan.task.title}: {column.plan.note}" for column in columns if column.plan.note),
            *parity.notes(
                session.cfg, parity.read_by([task.name for task in tasks]), [column.plan.train for column in columns]
            ),
        ),
    )


def _details(session: Session, findings: Findings) -> Table:
    """Every metric that the cells returned, not only the one of Table 1."""
    cells = []
    shown: dict[str, str] = {}
    for column in findings.columns:
        task = column.plan.task
        found = [c for c, _ in findings.scored if c.job.task == task.name]
        for metric in found[0].metrics if found else ():
            key = f"{task.name}_{metric}"
            shown[key] = f"{task.title}: {metric}"
            unit, factor = (PLAIN[metric], 1) if metric in PLAIN else ("percent", 100)
            for name in findings.names:
                values = {c.job.seed: factor * c.metrics[metric] for c in found if c.job.row == name}
                if values:
                    cells.append(measured(name, key, values, unit=unit))
    return Table(
        experiment="all_metrics",
        scale=session.cfg.scale.name,
        title="Every metric",
        rows=tuple(shown),
        columns=tuple(findings.names),
        cells=tuple(replace(cell, row=cell.column, column=cell.row) for cell in cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        label=labels.label(findings.kinds.values()),
        names=ROW_NAMES | shown,
    )


def _figure(table: Table, findings: Findings) -> Figure:
    names, tasks = findings.names, [column.plan.task for column in findings.columns]
    series = []
    for task in tasks:
        found = [table.cell(name, task.name) for name in names]
        series.append(Series(task.title, list(range(len(names))), [cell.mean if cell else 0.0 for cell in found]))
    return Figure(title="Each task by method", x_label="method, in the table's order", y_label="percent", series=series)
