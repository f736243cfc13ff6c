"""Table 11: the variants of FAC; samples that cover the missing features best, as each variant weights them.

    fac experiment=variants

All rows choose from the samples that the row `fac` of Table 1 wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Record, Repeated, Results, Trial, grid, sweep
from experiments.harness.graph import Graph
from experiments.harness.report import Page
from experiments.harness.tables import BASELINE, TITLES, of_task
from experiments.harness.views import Column, Value, bars, coverage
from experiments.pages import rows

CHOOSE = "synthesis.choose"
VARIANTS = {  # how samples are chosen: what the row is called, and the share that its FAC is
    "strongest": ("Each feature's strongest (Table 1)", "any"),
    "binary": ("Binary", "any"),
    "frequency": ("Frequency", "any_frequency"),
    "magnitude": ("Magnitude", "any_magnitude"),
}


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)
    variants: tuple[str, ...] = tuple(VARIANTS)


def row_of(trial: Trial) -> str:
    return BASELINE if trial.method == BASELINE else trial.setting(CHOOSE)


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline, and FAC with samples chosen in each way."""
    o: Options = run.experiment
    chosen = grid(run, task=o.tasks, method="fac", settings=sweep(CHOOSE, o.variants), **o.axes)
    return Plan([*grid(run, task=o.tasks, method=BASELINE, **o.axes), *chosen], partial(page, run))


def own_fac() -> Value:
    """FAC of the missing features, weighted as the samples were chosen."""

    def of(record: Record) -> float | None:
        return coverage(VARIANTS[record.trial.setting(CHOOSE)][1]).of(record)

    return Value(of, seed=lambda trial: trial.generation)


def page(run: RunConfig, results: Results) -> Page:
    """Each variant beside the paper's; binary coverage is compared with the others."""
    o: Options = run.experiment

    printed = partial(rows.of_toxicity, "table11")

    def columns(task: str) -> list[Column]:
        held, kind = of_task(task), rows.kind_of(run, task, results.records)
        beside = rows.is_beside(run, task, kind, "lora", o.test)
        paper = partial(printed("fac"), task) if beside else (lambda row: None)
        title = "FAC, weighted as chosen"
        return [Column(f"{task}_own", title, own_fac(), lambda t: held(t) and t.method == "fac", paper=paper)]

    shown = rows.Shown(
        "Variants of FAC",
        "Table 11 of the paper: samples chosen by what they cover, each feature weighted in one of three ways.",
        columns=columns,
        notes=[
            "Samples are chosen greedily: each adds most weight of missing features that none before it activates. The "
            "weights are a feature's share of the anchor's texts (frequency) and its mean activation there "
            "(magnitude); the paper gives no formula."
        ],
        figures=lambda main: [bars(main, [BASELINE, *o.variants], o.tasks, "By how samples are chosen")],
    )
    names = {BASELINE: TITLES[BASELINE], **{name: VARIANTS[name][0] for name in o.variants}}
    pairs = [(name, "binary") for name in o.variants if name != "binary" and "binary" in o.variants]
    made = rows.Rows(names=names, of=row_of, pairs=pairs, paper=printed("auprc"), gain=printed("gap"), mode="lora")
    return rows.page(run, results, "variants", o.tasks, made, shown)


EXPERIMENT = Experiment("variants", "Table 11: samples chosen by FAC's variants", plan, Options, paper="table11")
