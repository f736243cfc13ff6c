"""Transfer between models: features mined with X, data written by Y, Z trained on it (Table 3, Figs. 16 to 18).

    fac experiment=cross_model [experiment.writers=[llama]]

In the lab, how far the families' gaps agree is read from the ground truth, after the fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import torch
from omegaconf import DictConfig
from pydantic import PositiveInt

from experiments import config, lab_truth, labels, parity
from experiments.cells import Cells, Scored, default_workers, percent_cell, track
from experiments.lab_page import Row, budget_note
from experiments.main_results import (
    COVERAGE,
    COVERAGE_NOTE,
    TaskPlan,
    coverage_cells,
    jobs_of,
    protocol_note,
    synthesis_for,
    task_plans,
    write_row,
)
from experiments.report import Page
from experiments.results import Cell, Table, observed, paired, paper_table, provenance, versions
from experiments.session import Session
from experiments.tasks.data import Sources, task_data
from fac.errors import FacError
from fac.interpret import interpretation_note
from fac.pipeline import Mined, Workshop, mine
from fac.synthesis.method import Outcome

PAPER_ROW = {"llama": "llama", "mistral": "mistral", "qwen": "qwen2"}  # of Table 3, by model
BASELINE = "baseline"


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    (plan,) = _one(task_plans(cfg))
    sources, writers, trained = (
        config.value(cfg, f"experiment.{role}", list[str]) for role in ("sources", "writers", "trained")
    )
    for role, names in (("sources", sources), ("writers", writers), ("trained", trained)):
        if not names or len(set(names)) < len(names):
            raise FacError(f"experiment.{role} needs at least one model, and each only once.")
    models = {name: config.model_named(cfg, name) for name in dict.fromkeys([*sources, *writers, *trained])}
    features, layer, thresholds = config.feature_settings(cfg), config.sae_layer(cfg), config.thresholds(cfg)
    world: int = config.value(cfg, "experiment.world", int)
    workers: int = config.value(cfg, "workers", PositiveInt | None) or default_workers()
    engines = config.engines(cfg)
    if not engines.writer.follows_run:
        raise FacError(
            "experiment.writers of cross_model names the models that write: leave out llm.path, and choose "
            "llm=transformers or llm=vllm."
        )
    engines.check()
    torch.set_num_threads(1)
    with Session.open(cfg) as session, Cells(workers) as cells:
        data = task_data(session.store, plan.task, world, plan.origin)
        for note in data.notes:
            session.say(note)
        for name in trained:
            start = Row(BASELINE, Outcome([]), None)
            cells.submit(jobs_of(plan, session.store, data, start, models[name][0], None, {}, group=name))
        mined: dict[str, Mined] = {}
        written: dict[str, Row] = {}
        for source in sources:
            model, sae = models[source]
            curve = session.sae_curve(f"sae_{source}")
            shop = Workshop(session.store, model, sae, layer, features, data.anchor, curve)
            with engines.open(model, session.say) as crew:
                mined[source] = mine(
                    shop, data.anchor, data.known, crew.annotators, plan.prompts, plan.read, thresholds, data.labelled
                )
            session.say(f"{source}: {interpretation_note(mined[source].gap.interpretations.values())}")
            for note in mined[source].gap.notes():
                session.say(f"{source}: {note}")
            session.say(f"{source}: {int(mined[source].gap.missing().sum())} features missing in seed")
            for writer in writers:
                with engines.open(models[writer][0], session.say) as crew:
                    given, wrote = synthesis_for(plan, mined[source], crew.writer, data)
                    row = write_row(session.store, "fac", given, wrote, plan, mined[source])
                name = f"{source}+{writer}"
                written[name] = row = replace(row, name=name)
                session.say(f"{name}: {row.outcome.counts}")
                session.say(f"{name}: {100 * (row.any.binary if row.any else 0):.0f} % of the missing features covered")
                for target in trained:
                    cells.submit(jobs_of(plan, session.store, data, row, models[target][0], None, {}, group=target))
            shop.release()
        scored = [track(session, cell) for cell in cells.results()]
        kind = labels.kind_of(
            labels.data_of(plan.task, plan.origin), {n: ref for n, (ref, _) in models.items()}, engines
        )
        found = Findings(plan, mined, written, trained, scored, world, kind, data.losses)
        return _finish(session, found)


def _one(plans: Sequence[TaskPlan]) -> Sequence[TaskPlan]:
    if len(plans) != 1 or plans[0].task.from_base or plans[0].task.others:
        raise FacError("experiment.tasks of cross_model names one task that trains the instruct model, such as reward.")
    return plans


@dataclass(frozen=True)
class Findings:
    """What the tables are made of."""

    plan: TaskPlan
    mined: Mapping[str, Mined]  # by source
    written: Mapping[str, Row]  # by SOURCE+WRITER
    trained: Sequence[str]
    scored: Sequence[tuple[Scored, str]]
    world: int
    kind: labels.Kind
    losses: Sequence[str]  # what was left out of the data sets


def _finish(session: Session, found: Findings) -> Path:
    plan, mined, written = found.plan, found.mined, found.written
    table = _table(session, found)
    tables = [table]
    if len(mined) > 1 and plan.task.name == "toxicity" and not isinstance(plan.origin, Sources):  # the truth is known
        tables.append(replace(_agreement(session, mined), label=table.label))
    page = Page(
        title=table.title,
        subtitle="Features mined with one model, data written by a second, a third one trained.",
        tables=tables,
        facts=[
            *((f"{name}: features missing in seed", str(int(m.gap.missing().sum()))) for name, m in mined.items()),
            *(
                (f"{name}: features read", interpretation_note(m.gap.interpretations.values()))
                for name, m in mined.items()
            ),
            *((f"{name}: written", str(row.outcome.counts)) for name, row in written.items()),
        ],
    )
    metrics = {f"{cell.column}/{cell.row}": cell.mean for cell in table.cells}
    return session.finish(page, metrics)


def _table(session: Session, findings: Findings) -> Table:
    plan, written, trained, scored = findings.plan, findings.written, findings.trained, findings.scored
    # Table 3 trains heads; beside LoRA's numbers it would mislead.
    beside = findings.kind != "own" and plan.task.name == "toxicity" and plan.train.mode == "head"
    table_3, cells = paper_table("table3"), list[Cell]()
    for target in trained:
        by_row = {}
        for name in (BASELINE, *written):
            found = [(c, run) for c, run in scored if (c.job.group, c.job.row) == (target, name)]
            printed = {BASELINE: "baseline", "llama+llama": "fine_tuned"}.get(name)
            number = table_3.get(PAPER_ROW.get(target, ""), printed) if beside and printed else None
            by_row[name] = percent_cell(found, plan.task.metric, name, target, number, unit=plan.task.unit)
        cells += by_row.values()
        cells += [
            replace(paired(cell, by_row[BASELINE], name), column=f"{target}_gain")
            for name, cell in by_row.items()
            if name != BASELINE
        ]
    for row in written.values():
        cells += coverage_cells(row, "", plan.synthesis.seed)
    return Table(
        experiment="cross_model",
        scale=session.cfg.scale.name,
        title=f"Transfer between models, {plan.task.title}, {plan.place} {findings.world}",
        rows=(BASELINE, *written),
        columns=(*(f"{target}{kind}" for target in trained for kind in ("", "_gain")), *COVERAGE),
        cells=tuple(cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        label=labels.label([findings.kind]),
        names={BASELINE: "Baseline (seed data)"}
        | {name: "features of {}, written by {}".format(*name.split("+")) for name in written}
        | {target: f"{target} trained" for target in trained}
        | {f"{target}_gain": "minus Baseline" for target in trained}
        | COVERAGE,
        notes=(
            protocol_note([plan]),
            COVERAGE_NOTE + " Both are of the source's features.",
            *([note] if (note := budget_note(plan.task.title, plan.budget, list(written.values()), {})) else []),
            "The paper's Table 3 (head-only, LLaMA's features and data) stands beside the cells that match it."
            if beside
            else "The paper's Table 3 trains heads only (train.mode=head), so it does not stand beside these numbers.",
            *(f"{loss}." for loss in findings.losses),
            *(f"{source}: {note}" for source, found in findings.mined.items() for note in found.gap.notes()),
            *parity.notes(session.cfg, parity.read_by([plan.task.name]), [plan.train]),
        ),
    )


def _agreement(session: Session, mined: Mapping[str, Mined]) -> Table:
    """How far two families miss the same concepts and wordings, by the lab's ground truth: Jaccard index."""
    named = {}
    for name, found in mined.items():
        gap = found.gap
        match = lab_truth.match_features(gap.anchor, gap.cut)
        named[name] = lab_truth.named_missing(gap, match, gap.at)
    cells = []
    for first, second in combinations(named, 2):
        for column, one, other in zip(("concepts", "wordings"), named[first], named[second], strict=True):
            share = 100 * len(one & other) / max(len(one | other), 1)
            cells.append(observed(f"{first}+{second}", column, share))
    return Table(
        experiment="agreement",
        scale=session.cfg.scale.name,
        title="What two families find missing alike (Jaccard index, ground truth)",
        rows=tuple(dict.fromkeys(cell.row for cell in cells)),
        columns=("concepts", "wordings"),
        cells=tuple(cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        names={cell.row: cell.row.replace("+", " and ") for cell in cells},
    )
