"""The lab's toxicity table: the whole method on the written world, beside the paper's numbers.

    fac experiment=lab [lab.seed=1]

The ground truth is only read by `experiments.lab_truth`, after the fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from pydantic import PositiveInt

from experiments import config, lab_page, labels, parity
from experiments.cells import Cells, Scored, default_workers, percent_cell, track
from experiments.job import Job
from experiments.lab_page import Findings, Row, budget_note, coverage_of
from experiments.results import PaperNumber, Table, measured, observed, paired, paper_table, provenance, versions
from experiments.session import Session
from experiments.tasks import TASKS
from experiments.tasks.base import Protocol, TaskData, examples_artifact, trained_on
from experiments.tasks.data import lab_data
from fac.data.schemas import QUERY
from fac.errors import FacError, closest
from fac.interpret import interpretation_note
from fac.lab.world.corpora import Sizes
from fac.pipeline import Workshop, find_gap, measure, mine, relevant_features, synthesis_of
from fac.prompts import Prompts
from fac.store import Artifact, Store
from fac.synthesis.methods import METHODS

PROTOCOLS = {
    "added": "synthetic texts added to the seed's positives",
    "alone": "synthetic texts in place of the seed's positives, as the released scripts train",
}
ROW_NAMES = {method.name: method.title for method in METHODS.values()}
PRINTED = (
    "The paper prints one AUPRC per row and way of training: its text says synthetic data augment the seed data, its "
    "code trains on them alone, so its number stands beside both."
)
PAPER = {  # (row, kind of column) -> where the paper prints it: (table, row, column)
    ("baseline", "auprc"): ("table1", "baseline", "toxicity"),
    ("full", "auprc"): ("table1", "full", "toxicity"),
    ("random_features", "auprc"): ("table12", "random_features", "auprc"),
    ("random_features", "gain"): ("table12", "random_features", "gap"),
    ("fac", "auprc"): ("table1", "fac", "toxicity"),
    ("fac", "gain"): ("table12", "fac", "gap"),
    ("fac_one_step", "fac_any"): ("table10", "one_step@0.0", "toxicity"),
    ("fac", "fac_any"): ("table10", "two_step@0.0", "toxicity"),
}


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    plan = _Plan(cfg)
    plan.engines.check()
    torch.set_num_threads(1)  # the other core trains classifiers
    with Session.open(cfg) as session, Cells(plan.workers) as cells:
        data = lab_data(session.store, TASKS["toxicity"], plan.world_seed, plan.sizes, plan.test)
        rows: list[Row] = []
        model = plan.model
        shop = Workshop(session.store, model, plan.sae, plan.layer, plan.features, data.anchor, session.sae_curve())
        prompts = Prompts(plan.prompts)
        with plan.engines.open(model, session.say) as crew:
            mined = mine(
                shop, data.anchor, data.known, crew.annotators, prompts, plan.read, plan.thresholds, data.labelled
            )
            gap = mined.gap
            session.say(interpretation_note(gap.interpretations.values()))
            for note in gap.notes():
                session.say(note)
            session.say(
                f"{int(gap.active().sum())} relevant features on the anchor, {int(gap.missing().sum())} missing in seed"
            )
            given, writer = synthesis_of(
                mined,
                crew.writer,
                prompts,
                QUERY,
                plan.synthesis,
                data.seed_examples,
                data.human_examples,
                plan.budget,
                data.held_out,
            )
            for name in plan.rows:
                outcome = METHODS[name].run(given, writer)
                added = examples_artifact(session.store, QUERY, outcome.examples) if outcome.examples else None
                if outcome.samples:
                    session.say(f"{name}: {outcome.counts}")
                cells.submit(_jobs(plan, session.store, data, name, added))
                rows.append(coverage_of(shop, gap, Row(name, outcome, added)))
        official_shop = Workshop(session.store, model, shop.sae, shop.layer, replace(plan.features, rule="official"))
        official = find_gap(
            measure(official_shop, data.anchor),
            measure(official_shop, data.known),
            gap.relevant,
            plan.thresholds,
        )
        judge = replace(plan.read, judge="statistical")
        labelled = measure(shop, data.labelled) if data.labelled else None
        judged = relevant_features(gap.anchor.pooled.n_features, {}, judge, labelled)
        for used in (shop, official_shop):
            used.release()
        scored = [track(session, cell) for cell in cells.results()]
        table = _table(plan, session, rows, scored, [crew.note, *gap.notes(), *(f"{loss}." for loss in data.losses)])
        return lab_page.finish(
            Findings(plan.sizes, plan.world_seed, gap, official, rows, table, judged, session, shop, plan.beside)
        )


class _Plan:
    """The typed configuration of this experiment; everything in it is checked before anything is computed."""

    def __init__(self, cfg: DictConfig) -> None:
        self.world_seed: int = config.value(cfg, "lab.seed", int)
        sizes = config.group(cfg, "lab")
        sizes["seed"] = sizes.pop("seed_positives", None)
        self.sizes = config.typed(Sizes, sizes, "lab")
        self.rows: list[str] = config.value(cfg, "experiment.rows", list[str])
        self.protocols: list[Protocol] = config.value(cfg, "experiment.protocols", list[Protocol])
        self.test = config.tested_on(cfg)
        for name in self.rows:
            if name not in METHODS:
                raise FacError(f"experiment.rows cannot be {name}{closest(name, METHODS)}.")
        self.model, self.engines = config.model_ref(cfg), config.engines(cfg)
        self.sae, self.layer = config.sae_of(cfg), config.sae_layer(cfg)
        self.features, self.read = config.feature_settings(cfg), config.read_settings(cfg)
        self.thresholds, self.synthesis = config.thresholds(cfg), config.synthesis_settings(cfg)
        self.train = config.classifier_settings(cfg)
        self.seeds: list[int] = config.value(cfg, "train.seeds", list[int])
        self.prompts: str = config.value(cfg, "synthesis.prompts", str)
        self.budget: int = config.value(cfg, "synthesis.budget", PositiveInt)
        self.workers: int = config.value(cfg, "workers", PositiveInt | None) or default_workers()
        lists = {"experiment.rows": self.rows, "experiment.protocols": self.protocols, "train.seeds": self.seeds}
        for key, entries in lists.items():
            if not entries or len(set(entries)) < len(entries):
                raise FacError(f"{key} needs at least one entry, and each only once.")
        self.scale = cfg.scale.name
        self.kind: labels.Kind = labels.kind_of("lab", {cfg.model.name: self.model}, self.engines)
        self.beside = labels.stands_beside(self.kind, cfg.model.name, self.test)

    def paper(self, row: str, kind: str) -> PaperNumber | None:
        """What the paper prints for this row in this kind of column; head-only training has a table of its own."""
        table, printed, column = PAPER.get((row, kind), ("", "", ""))
        if not table or not self.beside:
            return None
        if kind in ("auprc", "gain") and self.train.mode != "lora":
            auprc = self.train.mode == "head" and kind == "auprc"
            return paper_table("table13").get(printed, "toxicity") if auprc else None
        return paper_table(table).get(printed, column)


def _jobs(plan: _Plan, store: Store, data: TaskData, row: str, added: Artifact | None) -> list[Job]:
    """All classifiers of one row. A row without texts of its own is the same in every protocol, and trained once."""
    jobs = []
    for protocol in plan.protocols if added else plan.protocols[:1]:
        if row == "seed_twice" and protocol == "alone":
            continue  # the seed's positives in place of the seed's positives: the baseline
        parts = trained_on(data, added, protocol)
        jobs += [
            Job("toxicity", row, seed, store.root, plan.model, plan.train, data.test, **parts, group=protocol)
            for seed in plan.seeds
        ]
    return jobs


def _table(
    plan: _Plan, session: Session, rows: Sequence[Row], scored: Sequence[tuple[Scored, str]], said: Sequence[str]
) -> Table:
    groups: dict[tuple[str, str], list[tuple[Scored, str]]] = {}
    for cell, run_id in scored:
        job = cell.job
        shared = job.row == "baseline"  # the same in every protocol
        for protocol in plan.protocols if shared else [job.group]:
            groups.setdefault((job.row, protocol), []).append((cell, run_id))
    cells = {
        (row, protocol): percent_cell(found, "auprc", row, f"auprc_{protocol}", plan.paper(row, "auprc"))
        for (row, protocol), found in groups.items()
    }
    differences = []
    for (row, protocol), cell in cells.items():
        base, ours = cells.get(("baseline", protocol)), cells.get(("fac", protocol))
        if base and row != "baseline":
            gain = paired(cell, base, row, plan.paper(row, "gain"))
            differences.append(replace(gain, column=f"gain_{protocol}"))
        if ours and row not in ("baseline", "fac"):
            differences.append(replace(paired(ours, cell, row), column=f"fac_minus_{protocol}"))
    coverage = [observed(row.name, "rows", len(row.outcome.examples), unit="count") for row in rows]
    for row in rows:
        for column, value in (("fac_any", row.any), ("fac_own", row.own), ("fac_ratio", row.ratio)):
            if value is not None:
                share = {plan.synthesis.seed: 100 * value.binary}
                coverage.append(measured(row.name, column, share, paper=plan.paper(row.name, column)))
    columns = [f"{kind}_{p}" for p in plan.protocols for kind in ("auprc", "gain", "fac_minus")]
    return Table(
        experiment="lab",
        scale=plan.scale,
        title=f"Toxicity detection, {session.cfg.model.name}, world {plan.world_seed}",
        rows=tuple(plan.rows),
        columns=(*columns, "rows", "fac_any", "fac_own", "fac_ratio"),
        cells=(*cells.values(), *differences, *coverage),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        label=labels.label([plan.kind]),
        names=ROW_NAMES
        | {f"auprc_{p}": f"AUPRC, {p}" for p in plan.protocols}
        | {f"gain_{p}": f"minus Baseline, {p}" for p in plan.protocols}
        | {f"fac_minus_{p}": f"FAC minus this row, {p}" for p in plan.protocols}
        | {
            "rows": "rows added",
            "fac_any": "FAC of missing, any sample",
            "fac_own": "FAC of missing, own samples",
            "fac_ratio": "FAC ratio",
        },
        notes=(
            *(f"{name}: {PROTOCOLS[name]}." for name in plan.protocols),
            *([PRINTED] if plan.beside else []),
            *([note] if (note := budget_note("Toxicity detection", plan.budget, rows, ROW_NAMES)) else []),
            "Differences are taken seed by seed (same seed, same safe texts, same test).",
            "FAC of missing: share of missing features that the added texts activate (what the paper's tables print); "
            "FAC ratio: |F(Q)| / |F(P)| of seed data and added texts (its definition).",
            f"Scored on the {plan.test} set of the world.",
            *said,
            *parity.notes(session.cfg, ("features", "interpret", "missing", "synthesis")),
        ),
    )
