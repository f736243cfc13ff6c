"""Table 1: every task's column for every method, on one model.

    fac experiment=main_results model=llama [tasks=[toxicity,reward]] [lab.seed=1]

For each task: mine the gap, let every method write, train and test one cell per seed. Knows: which cells, and what the
table says. Does not know: how a task draws, trains and tests (`experiments.tasks`), or the method (`fac.pipeline`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from pydantic import PositiveInt

from experiments import config
from experiments.cells import Cells, Job, Scored, default_workers, track
from experiments.lab_page import Row, coverage_of
from experiments.report import Figure, Page, Series, render
from experiments.results import Cell, Table, measured, paired, paper_table, provenance, versions
from experiments.session import Session
from experiments.tasks import TASKS, Task
from experiments.tasks.base import rows_artifact
from experiments.tasks.data import TaskData, lab_data
from fac.backbone import ModelRef
from fac.errors import FacError, closest
from fac.interpret import ROLES
from fac.lab.world.corpora import Sizes
from fac.lab.world.tasks import TaskSizes, known_themes
from fac.llm.base import ChatModel
from fac.llm.transformers import TransformersChat
from fac.pipeline import Mined, Workshop, material_of, mine
from fac.prompts import Prompts
from fac.store import Artifact, Store
from fac.synthesis.methods import METHODS, Material
from fac.synthesis.two_step import Settings

ROW_NAMES = {
    "baseline": "Baseline (seed data)",
    "full": "Full (human data)",
    "random_features": "SAE + random features",
    "fac_one_step": "FAC, one step",
    "fac": "FAC, two steps (ours)",
    "seed_twice": "Seed rows twice (control)",
}


@dataclass(frozen=True)
class TaskPlan:
    """The settings of one task."""

    task: Task
    prompts: Prompts
    synthesis: Settings
    budget: int
    sizes: Sizes | TaskSizes
    train: Any
    seeds: tuple[int, ...]
    read: Any


@dataclass(frozen=True)
class Column:
    """What one task came to before its cells are scored."""

    plan: TaskPlan
    mined: Mined
    rows: list[Row]
    kept: dict[str, str]  # row -> samples kept of samples written


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    names = config.value(cfg, "experiment.rows", list[str])
    plans = task_plans(cfg)
    for name in names:
        if name not in METHODS:
            raise FacError(f"experiment.rows cannot be {name}{closest(name, METHODS)}.")
    test = config.tested_on(cfg)
    model = config.model_ref(cfg)
    base = config.base_ref(cfg)
    for plan in plans:
        if plan.task.from_base and base is None:
            raise FacError(f"The {plan.task.name} task trains a base model: set model.base to a folder or hub id.")
    sae, layer, features = config.sae_of(cfg), config.sae_layer(cfg), config.feature_settings(cfg)
    thresholds = config.thresholds(cfg)
    world: int = config.value(cfg, "experiment.world", int)
    workers: int = config.value(cfg, "workers", PositiveInt | None) or default_workers()
    torch.set_num_threads(1)
    writer = TransformersChat(model)
    annotators: dict[str, ChatModel] = dict.fromkeys(ROLES, writer)
    with Session.open(cfg) as session, Cells(workers) as cells:
        columns = []
        for plan in plans:
            data = lab_data(session.store, plan.task, world, plan.sizes, test)
            shop = Workshop(session.store, model, sae, layer, features, data.anchor)
            mined = mine(shop, data.anchor, data.known, annotators, plan.prompts, plan.read, thresholds, data.labelled)
            session.say(
                f"{plan.task.name}: {int(mined.gap.active().sum())} relevant features on the anchor, "
                f"{int(mined.gap.missing().sum())} missing in seed"
            )
            material = material_for(plan, mined, writer, data)
            column = Column(plan, mined, [], {})
            others = plan.task.others(session.store, data, model) if plan.task.others else {}
            for name in names:
                row = write_row(session.store, name, material, plan, mined, writer)
                column.rows.append(row)
                if row.outcome.samples:
                    kept = sum(s.kept for s in row.outcome.samples)
                    column.kept[name] = f"{kept} of {len(row.outcome.samples)}"
                    session.say(f"{plan.task.name}, {name}: {column.kept[name]} samples kept")
                cells.submit(jobs_of(plan, session.store, data, row, model, base, others))
            columns.append(column)
        scored = [track(session, cell) for cell in cells.results()]
        return _finish(session, columns, names, scored, world)


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
        sizes = config.typed(Sizes if name == "toxicity" else TaskSizes, values["sizes"], f"{key}.sizes")
        if isinstance(sizes, TaskSizes):
            known_themes(name, 0, sizes.known)  # refuses more than there are
        common = replace(
            config.synthesis_settings(cfg), max_new_tokens=config.value(cfg, f"{key}.max_new_tokens", PositiveInt)
        )
        seeds = tuple(config.value(cfg, f"{key}.seeds", list[int]))
        if not seeds or len(set(seeds)) < len(seeds):
            raise FacError(f"{key}.seeds needs at least one seed, and each only once.")
        plans.append(
            TaskPlan(
                task,
                Prompts(values["prompts"]),
                common,
                config.value(cfg, f"{key}.budget", PositiveInt),
                sizes,
                config.typed(task.settings, values["train"], f"{key}.train"),
                seeds,
                config.read_settings(cfg),
            )
        )
    return plans


def material_for(plan: TaskPlan, mined: Mined, writer: ChatModel, data: TaskData) -> Material:
    return material_of(
        mined, writer, plan.prompts, plan.task.form, plan.synthesis, data.seed_rows, data.human_rows, plan.budget
    )


def write_row(store: Store, name: str, material: Material, plan: TaskPlan, mined: Mined, writer: ChatModel) -> Row:
    """Let one method write; its rows, finished where the task finishes them, and what they cover."""
    outcome = METHODS[name](material)
    added = None
    if outcome.rows:
        rows = plan.task.finish(store, outcome.rows, writer, plan.synthesis) if plan.task.finish else outcome.rows
        added = rows_artifact(store, plan.task.form, rows)
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
) -> list[Job]:
    """One job per seed."""
    train = data.base if row.added is None else (*data.base, row.added)
    trained = base if plan.task.from_base and base else model
    return [
        Job(plan.task.name, row.name, seed, store.root, trained, plan.train, train, data.test, others, group, model)
        for seed in plan.seeds
    ]


def _finish(
    session: Session, columns: Sequence[Column], names: Sequence[str], scored: Sequence[tuple[Scored, str]], world: int
) -> Path:
    table = _table(session, columns, names, scored, world)
    details = _details(session, columns, names, scored)
    facts = [
        (
            f"{c.plan.task.title}: relevant features on the anchor, missing in the seed data",
            f"{int(c.mined.gap.active().sum())}, {int(c.mined.gap.missing().sum())}",
        )
        for c in columns
    ]
    facts += [
        (f"{c.plan.task.title}, {ROW_NAMES[row]}: samples kept", kept) for c in columns for row, kept in c.kept.items()
    ]
    page = Page(
        title=table.title,
        subtitle="Table 1 of the paper: what each method's data teach, task by task.",
        tables=[table, details],
        facts=facts,
        figures=[_figure(table, columns, names)],
        stage_seconds=[(t.name, t.seconds) for t in session.times()],
    )
    path = session.out / f"{details.experiment}.json"
    path.write_text(details.to_json())
    for t in session.times():
        session.say(
            f"{t.name:12s} {t.built:3d} built in {t.seconds:7.1f} s ({t.cpu_seconds:.1f} CPU s), {t.reused} reused"
        )
    metrics = {f"{cell.column}/{cell.row}": cell.mean for cell in table.cells}
    return session.finish(table, render(page), metrics, [path])


def _table(
    session: Session, columns: Sequence[Column], names: Sequence[str], scored: Sequence[tuple[Scored, str]], world: int
) -> Table:
    paper = paper_table("table1")
    cells: list[Cell] = []
    for column in columns:
        task = column.plan.task
        by_row = {}
        for name in names:
            found = [(c, run) for c, run in scored if c.job.task == task.name and c.job.row == name]
            values = {c.job.seed: 100 * c.metrics[task.metric] for c, _ in found}
            by_row[name] = measured(
                name, task.name, values, unit=task.unit, paper=paper.get(name, task.column),
                run_ids=[run for _, run in sorted(found, key=lambda f: f[0].job.seed) if run],
            )  # fmt: skip
        cells += by_row.values()
        for metric in task.also:
            for name in names:
                found = [c for c, _ in scored if c.job.task == task.name and c.job.row == name]
                cells.append(
                    measured(name, f"{task.name}_{metric}", {c.job.seed: 100 * c.metrics[metric] for c in found})
                )
        if "baseline" in by_row:
            cells += [
                replace(paired(cell, by_row["baseline"], name), column=f"{task.name}_gain")
                for name, cell in by_row.items()
                if name != "baseline"
            ]
        for row in column.rows:
            if row.any is not None:
                share = {column.plan.synthesis.seed: 100 * row.any.binary}
                cells.append(measured(row.name, f"{task.name}_fac", share))
    tasks = [column.plan.task for column in columns]
    return Table(
        experiment="main_results",
        scale=session.cfg.scale.name,
        title=f"Main results, {session.cfg.model.name}, world {world}",
        rows=tuple(names),
        columns=tuple(f"{t.name}{kind}" for t in tasks for kind in ("", "_gain", *(f"_{m}" for m in t.also), "_fac")),
        cells=tuple(cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        names=ROW_NAMES
        | {task.name: task.title for task in tasks}
        | {f"{task.name}_gain": "minus Baseline" for task in tasks}
        | {f"{task.name}_{metric}": title for task in tasks for metric, title in task.also.items()}
        | {f"{task.name}_fac": "FAC of missing" for task in tasks},
        notes=(
            "Every row trains on the seed data and what it adds; differences are paired by seed.",
            "FAC of missing: share of the missing features that the added rows activate.",
            f"Scored on the {session.cfg.experiment.test} set of the world.",
            *(f"{task.title}: {task.note}" for task in tasks if task.note),
        ),
    )


def _details(
    session: Session, columns: Sequence[Column], names: Sequence[str], scored: Sequence[tuple[Scored, str]]
) -> Table:
    """Every metric that the cells returned, not only the one of Table 1."""
    cells = []
    shown: dict[str, str] = {}
    for column in columns:
        task = column.plan.task
        found = [c for c, _ in scored if c.job.task == task.name]
        for metric in found[0].metrics if found else ():
            key = f"{task.name}_{metric}"
            shown[key] = f"{task.title}: {metric}"
            unit = "count" if metric == "n" else "percent"
            for name in names:
                values = {
                    c.job.seed: c.metrics[metric] * (1 if metric == "n" else 100) for c in found if c.job.row == name
                }
                cells.append(measured(name, key, values, unit=unit))
    return Table(
        experiment="all_metrics",
        scale=session.cfg.scale.name,
        title="Every metric",
        rows=tuple(shown),
        columns=tuple(names),
        cells=tuple(replace(cell, row=cell.column, column=cell.row) for cell in cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        names=ROW_NAMES | shown,
    )


def _figure(table: Table, columns: Sequence[Column], names: Sequence[str]) -> Figure:
    tasks = [column.plan.task for column in columns]
    series = []
    for task in tasks:
        found = [table.cell(name, task.name) for name in names]
        series.append(Series(task.title, list(range(len(names))), [cell.mean if cell else 0.0 for cell in found]))
    return Figure(title="Each task by method", x_label="method, in the table's order", y_label="percent", series=series)
