"""The lab's table: AUPRC under each protocol, its differences, and coverage, beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results, Trial
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.results import Table
from experiments.harness.tables import BASELINE, TITLES, number, table, task_notes
from experiments.harness.views import Column, count, coverage, names_of, pivot
from experiments.tasks import TASKS

if TYPE_CHECKING:
    from experiments.lab import Options

TASK = TASKS["toxicity"]
PROTOCOL = f"tasks.{TASK.name}.protocol"
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
    return trial.setting(PROTOCOL) == protocol


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
