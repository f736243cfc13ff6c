"""What holds beyond one world: the main table's rows over worlds x generations x training seeds.

    fac experiment=worlds [experiment.worlds=[0,1,2]] [experiment.generations=[42,43]]

The unit of replication is the world (or draw of the data): its own texts, test set, generations and training seeds.
Intervals are Student's t over the worlds' means (`eval.statistics.nested_mean`), claims are worded after Holm's
correction over all comparisons of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from pydantic import PositiveInt

from eval.statistics import Estimate, holm, nested_mean, verdict
from experiments import config, labels, unread
from experiments.cells import Cells, Scored, default_workers, track
from experiments.main_results import ROW_NAMES, TaskPlan, Tools, task_plans, write_column
from experiments.report import Page
from experiments.results import Cell, Table, provenance, versions
from experiments.session import Session
from experiments.tasks.data import task_data
from experiments.walk import current_walk
from fac.errors import FacError, closest
from fac.interpret import ROLES
from fac.synthesis.methods import METHODS

Place = tuple[int, int, int]  # world, generation, training seed
LEVELS = ("world", "generation", "seed")
VERDICTS = {"more": "{ours} more than {other}", "less": "{ours} less than {other}", "not told apart": "not told apart"}


@dataclass(frozen=True)
class Comparison:
    """Our row less another one, on one task, in points."""

    task: str
    other: str
    estimate: Estimate
    corrected: float  # p after Holm's correction over all comparisons


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    names, ours = config.value(cfg, "experiment.rows", list[str]), config.value(cfg, "experiment.ours", str)
    worlds, generations = (_several(cfg, f"experiment.{key}") for key in ("worlds", "generations"))
    for name in (*names, ours):
        if name not in METHODS:
            raise FacError(f"experiment.rows cannot be {name}{closest(name, METHODS)}.")
    if ours not in names or len(set(names)) < max(len(names), 2):
        raise FacError(f"experiment.rows needs {ours} (experiment.ours) and at least one other row, each only once.")
    if len(worlds) < 2 and current_walk() is None:  # a dry run goes world by world
        raise FacError("An interval over worlds needs at least two: set experiment.worlds=[0,1,2].")
    plans, test = task_plans(cfg), config.tested_on(cfg)
    unread.replaced("synthesis.seed", "experiment.generations")
    model, base = config.model_ref(cfg), config.base_ref(cfg)
    tools = Tools.of(cfg, model, base)
    tools.engines.check(ROLES)
    refs = {config.plain(cfg, "model.name"): model}
    kinds: dict[str, labels.Kind] = {
        p.task.name: labels.kind_of(labels.data_of(p.task, p.origin), refs, tools.engines) for p in plans
    }
    workers: int = config.value(cfg, "workers", PositiveInt | None) or default_workers()
    torch.set_num_threads(1)
    with Session.open(cfg) as session, Cells(workers) as cells:
        with tools.engines.open(model, session.say) as crew:
            for plan in plans:
                for world in worlds:
                    data = task_data(session.store, plan.task, world, plan.origin, test)
                    for generation in generations:
                        session.say(f"{plan.task.name}: world {world}, generation {generation}")
                        drawn = replace(plan, synthesis=replace(plan.synthesis, seed=generation))
                        write_column(session, cells, tools, crew, drawn, data, names, f"{world}/{generation}")
            note = crew.note
        scored = [track(session, cell) for cell in cells.results()]
        values = {plan.task.name: by_row(scored, plan) for plan in plans}
        compared = comparisons(values, ours)
        table = _table(session, plans, values, compared, names, kinds.values(), note)
        claims = _claims(session, plans, compared, ours, kinds.values())
        page = Page(
            title=table.title,
            subtitle="Every row over worlds, generations and training seeds.",
            tables=[table, claims],
            facts=[(f"{c.task}: {ROW_NAMES[ours]} and {ROW_NAMES[c.other]}", sentence(c, ours)) for c in compared],
            figures=[],
        )
        return session.finish(page, {f"{cell.column}/{cell.row}": cell.mean for cell in table.cells})


def _several(cfg: DictConfig, key: str) -> list[int]:
    found: list[int] = config.value(cfg, key, list[int])
    if not found or len(set(found)) < len(found):
        raise FacError(f"{key} needs at least one entry, and each only once.")
    return found


def by_row(scored: Sequence[tuple[Scored, str]], plan: TaskPlan) -> dict[str, dict[Place, float]]:
    """The task's number of every row by world, generation and training seed, in percent."""
    found: dict[str, dict[Place, float]] = {}
    for cell, _ in scored:
        if cell.job.task == plan.task.name:
            world, generation = map(int, cell.job.group.split("/"))
            place = (world, generation, cell.job.seed)
            found.setdefault(cell.job.row, {})[place] = 100 * cell.metrics[plan.task.metric]
    return found


def comparisons(values: Mapping[str, Mapping[str, Mapping[Place, float]]], ours: str) -> list[Comparison]:
    """`ours` less every other row of each task, with Holm's correction over all of them.

    `values` are numbers by task, row and place.
    """
    estimates = {
        (task, other): nested_mean({place: rows[ours][place] - value for place, value in numbers.items()})
        for task, rows in values.items()
        for other, numbers in rows.items()
        if other != ours
    }
    corrected = holm([estimate.p for estimate in estimates.values()])
    return [
        Comparison(task, other, estimate, p)
        for ((task, other), estimate), p in zip(estimates.items(), corrected, strict=True)
    ]


def sentence(compared: Comparison, ours: str) -> str:
    """What a comparison allows to say."""
    found, (low, high) = compared.estimate, compared.estimate.interval
    said = VERDICTS[verdict(found, compared.corrected)].format(ours=ROW_NAMES[ours], other=ROW_NAMES[compared.other])
    spread = ", ".join(f"{level} {found.spread[level]:.1f}" for level in LEVELS)
    return (
        f"{said}: {found.mean:+.1f} [{low:+.1f}, {high:+.1f}], p {found.p:.3f}, after Holm {compared.corrected:.3f}; "
        f"spread by {spread}"
    )


def cell_of(row: str, column: str, values: Mapping[Place, float], unit: str = "percent") -> Cell:
    """The mean over worlds with its interval; the values are the worlds' means."""
    found = nested_mean(values)
    worlds = tuple(sorted({world for world, _, _ in values}))
    means = []
    for world in worlds:
        own = [value for (at, _, _), value in values.items() if at == world]
        means.append(sum(own) / len(own))
    spread = float(torch.tensor(means, dtype=torch.float64).std())
    return Cell(row, column, found.mean, spread, len(worlds), worlds, tuple(means), unit, interval=found.interval)


def _table(
    session: Session,
    plans: Sequence[TaskPlan],
    values: Mapping[str, Mapping[str, Mapping[Place, float]]],
    compared: Sequence[Comparison],
    names: Sequence[str],
    kinds: Iterable[labels.Kind],
    crew: str,
) -> Table:
    cells = [cell_of(row, task, numbers) for task, rows in values.items() for row, numbers in rows.items()]
    for task, rows in values.items():
        if "baseline" in rows:
            for row in (row for row in rows if row != "baseline"):
                gain = {place: value - rows["baseline"][place] for place, value in rows[row].items()}
                cells.append(cell_of(row, f"{task}_gain", gain, "points"))
    ours: str = session.cfg.experiment.ours
    for c in compared:
        less = {place: values[c.task][ours][place] - value for place, value in values[c.task][c.other].items()}
        cells.append(cell_of(c.other, f"{c.task}_minus", less, "points"))
    worlds, generations = (tuple(session.cfg.experiment[key]) for key in ("worlds", "generations"))
    seeds = {plan.task.name: plan.seeds for plan in plans}
    return Table(
        experiment="worlds",
        scale=session.cfg.scale.name,
        title=f"Main results over {len(worlds)} {plans[0].place}s, {session.cfg.model.name}",
        rows=tuple(names),
        columns=tuple(f"{task}{kind}" for task in values for kind in ("", "_gain", "_minus")),
        cells=tuple(cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        label=labels.label(kinds),
        names=ROW_NAMES
        | {plan.task.name: f"{plan.task.title}, {plan.protocol}" for plan in plans}
        | {f"{task}_gain": "minus Baseline" for task in values}
        | {f"{task}_minus": f"{ROW_NAMES[ours]} minus this row" for task in values},
        aid=f"Mean ± sample standard deviation over the means of {plans[0].place}s {', '.join(map(str, worlds))}; in "
        "brackets its 95 % interval, Student's t with the world as the unit.",
        notes=(
            f"A world's mean is over generations {', '.join(map(str, generations))} and training seeds "
            f"{'; '.join(f'{task}: ' + ', '.join(map(str, of)) for task, of in seeds.items())}.",
            f"Scored on the {session.cfg.experiment.test} set of each.",
            crew,
            *(f"{c.task}, against {ROW_NAMES[c.other]}: {sentence(c, ours)}." for c in compared),
        ),
    )


def _claims(
    session: Session,
    plans: Sequence[TaskPlan],
    compared: Sequence[Comparison],
    ours: str,
    kinds: Iterable[labels.Kind],
) -> Table:
    """Every comparison as a row: difference, p, p after Holm, and what each level adds to the spread."""
    cells: list[Cell] = []
    for c in compared:
        row, found = f"{c.task}/{c.other}", c.estimate
        cells.append(
            Cell(
                row, "difference", found.mean, None, found.worlds, (), (found.mean,), "points", interval=found.interval
            )
        )
        numbers = {"p": found.p, "holm": c.corrected} | {level: found.spread[level] for level in LEVELS}
        for column, value in numbers.items():
            unit = "p" if column in ("p", "holm") else "points"
            cells.append(Cell(row, column, value, None, 1, (), (value,), unit))
    titles = {plan.task.name: plan.task.title for plan in plans}
    return Table(
        experiment="claims",
        scale=session.cfg.scale.name,
        title=f"{ROW_NAMES[ours]} against every other row",
        rows=tuple(f"{c.task}/{c.other}" for c in compared),
        columns=("difference", "p", "holm", *LEVELS),
        cells=tuple(cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        label=labels.label(kinds),
        names={f"{c.task}/{c.other}": f"{titles[c.task]}: minus {ROW_NAMES[c.other]}" for c in compared}
        | {"difference": "difference", "p": "p", "holm": "p after Holm"}
        | {level: f"spread by {level}" for level in LEVELS},
        aid="In brackets the 95 % interval over worlds. Spread: standard deviation that a level adds by itself.",
    )
