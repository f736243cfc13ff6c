"""The lab's toxicity table: the whole method on the written world, beside the paper's numbers, and against the truth.

fac experiment=lab [seeds.data=1]     (= make lab)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments import lab_page
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Results, Trial, grid, possible, sweep
from experiments.harness.graph import Graph
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Page
from experiments.harness.results import Table
from experiments.harness.tables import BASELINE, TITLES, number, table, task_notes
from experiments.harness.views import Column, count, coverage, names_of, pivot
from experiments.tasks import TASKS
from fac.gap import missing_as_relevant_to, relevant_by_labels
from fac.store import Step

TASK = TASKS["toxicity"]
KEY = "tasks.toxicity.protocol"
OURS = "fac"
PRINTED = (
    "The paper prints one AUPRC per row and way of training: its text says synthetic data augment the seed data, its "
    "code trains on them alone, so its number stands beside both."
)
PAPER = {  # (method, kind of column) -> where the paper prints it: (table, row, column)
    ("baseline", "auprc"): ("table1", "baseline", "toxicity"),
    ("full", "auprc"): ("table1", "full", "toxicity"),
    ("random_features", "auprc"): ("table12", "random_features", "auprc"),
    ("random_features", "gain"): ("table12", "random_features", "gap"),
    ("fac", "auprc"): ("table1", "fac", "toxicity"),
    ("fac", "gain"): ("table12", "fac", "gap"),
    ("fac_one_step", "fac_any"): ("table10", "one_step@0.0", "toxicity"),
    ("fac", "fac_any"): ("table10", "two_step@0.0", "toxicity"),
}


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    methods: tuple[str, ...] = (BASELINE, "seed_twice", "full", "random_features", "fac_one_step", "fac")
    protocols: tuple[Literal["added", "alone"], ...] = ("added", "alone")
    test: Literal["test", "validation"] = "test"  # choices are made on validation, in a world of their own


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method under both protocols, one training per seed; and what is missing with Top-K off."""
    o: Options = run.experiment
    axes = sweep(KEY, o.protocols)
    trials = possible(run, grid(run, task=TASK.name, method=o.methods, settings=axes, test=o.test))
    diagnostics = beside(run, graph, trials[0])
    return Plan(trials, partial(page, run, diagnostics), list(diagnostics.values()))


def beside(run: RunConfig, graph: Graph, trial: Trial) -> dict[str, Step]:
    """What the page compares with: the released code's rule (Top-K off), and the judge that asks no LLM."""
    data = graph.data(run, TASK.name, trial.data_seed, trial.test)
    mining = graph.mining(run, TASK, data)
    official = graph.encoder(run.with_({"features.rule": "official"}), data.anchor)
    off = missing_as_relevant_to(official, data.anchor, data.seed, mining.missing, run.thresholds)
    assert data.labelled is not None
    statistical = relevant_by_labels(mining.encoder, data.labelled, run.interpret.fdr)
    return {"official": off, "statistical": statistical}


def page(run: RunConfig, diagnostics: dict[str, Step], results: Results) -> Page:
    """The table, and what `experiments.lab_page` shows beside it."""
    kind = labels.kind_of(run, TASK.name, [run.model.name])
    main = main_table(run, results, kind)
    return lab_page.page(run, results, main, kind, diagnostics)


def main_table(run: RunConfig, results: Results, kind: labels.Kind) -> Table:
    """AUPRC, gain over the baseline and what ours has more, under each protocol; coverage."""
    o: Options = run.experiment
    columns = []
    for protocol in o.protocols:
        holds, auprc = partial(_under, protocol), number(TASK)
        columns += [
            Column(f"auprc_{protocol}", f"AUPRC, {protocol}", auprc, holds, paper=paper(run, kind, "auprc")),
            Column(f"gain_{protocol}", f"minus Baseline, {protocol}", auprc, holds, BASELINE,
                   paper=paper(run, kind, "gain")),
            Column(f"fac_minus_{protocol}", f"FAC minus this row, {protocol}", auprc, _but(BASELINE, holds), lead=OURS),
        ]  # fmt: skip
    columns += [
        Column("rows", "rows added", count("added")),
        Column("fac_any", "FAC of missing, any sample", coverage("any"), paper=paper(run, kind, "fac_any")),
        Column("fac_own", "FAC of missing, own samples", coverage("own")),
        Column("fac_ratio", "FAC ratio", coverage("ratio")),
    ]
    cells = pivot(results.records, o.methods, columns)
    return table(
        run,
        "lab",
        f"Toxicity detection, {run.model.name}, world {run.seeds.data}",
        o.methods,
        [column.name for column in columns],
        cells,
        {**TITLES, **names_of(columns)},
        [
            *task_notes(run, results.records, [TASK.name], o.protocols),
            f"Scored on the {o.test} set of the world.",
            *([PRINTED] if labels.stands_beside(kind, run.model.name, o.test) else []),
        ],
        [kind],
    )


def _under(protocol: str, trial: Trial) -> bool:
    return trial.setting(KEY) == protocol


def _but(method: str, holds: Callable[[Trial], bool]) -> Callable[[Trial], bool]:
    return lambda trial: holds(trial) and trial.method != method


def paper(run: RunConfig, kind: labels.Kind, column: str) -> Callable[[str], PaperNumber | None]:
    """Where the paper prints a method's number, if it may stand beside the run's; Table 13 is of heads alone."""

    def number_of(method: str) -> PaperNumber | None:
        place, train = PAPER.get((method, column)), run.tasks[TASK.name].train
        if place is None or not labels.stands_beside(kind, run.model.name, run.experiment.test):
            return None
        if column == "auprc":
            return labels.table_1(TASK, method, train)
        return None if column == "gain" and train.mode != "lora" else paper_table(place[0]).get(*place[1:])

    return number_of


EXPERIMENT = Experiment(
    "lab",
    "The lab's toxicity table: all methods under both protocols, against the ground truth (make lab)",
    plan,
    Options,
    settings={"seeds.training": (42, 43, 44, 45, 46)},
)
