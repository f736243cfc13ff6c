"""Table 6: annotation noise. Features mislabelled, summaries cut short or exchanged: how much of FAC's gain is left?

fac experiment=noise
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Record, Repeated, Results, Trial, grid
from experiments.harness.graph import Graph
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Page
from experiments.harness.tables import BASELINE, TITLES, of_task
from experiments.harness.views import Column, Value, bars
from experiments.pages import rows
from fac.corpus_features import CorpusFeatures
from fac.coverage import counts, overlap
from fac.gap import MissingFeatures

KIND, SHARE = "interpret.noise", "interpret.noise_share"
ORIGINAL = "original"
SETTINGS = {  # rows of Table 6
    ORIGINAL: {},
    "mislabel_10": {KIND: "mislabel", SHARE: 0.1},
    "mislabel_20": {KIND: "mislabel", SHARE: 0.2},
    "truncation_20": {KIND: "truncate", SHARE: 0.2},
    "mismatch_20": {KIND: "mismatch", SHARE: 0.2},
}


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)


def row_of(trial: Trial) -> str:
    if trial.method == BASELINE:
        return BASELINE
    return next(name for name, changed in SETTINGS.items() if dict(trial.settings) == changed)


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline, FAC as in Table 1, and FAC by spoilt interpretations."""
    o: Options = run.experiment
    written = grid(run, task=o.tasks, method="fac", settings=list(SETTINGS.values()), **o.axes)
    return Plan([*grid(run, task=o.tasks, method=BASELINE, **o.axes), *written], partial(page, run))


def page(run: RunConfig, results: Results) -> Page:
    """Each noise beside the paper's, compared with none."""
    o: Options = run.experiment

    printed = partial(rows.of_toxicity, "table6")

    def columns(task: str) -> list[Column]:
        held, kind = of_task(task), rows.kind_of(run, task, results.records)
        beside = rows.is_beside(run, task, kind, "lora", o.test)

        def column(name: str, title: str, of: Callable[[Record], float], printed_as: str) -> Column:
            value = Value(of, seed=lambda trial: trial.generation)
            paper = partial(printed(printed_as), task) if beside else (lambda row: None)
            return Column(f"{task}_{name}", title, value, lambda t: held(t) and t.method == "fac", paper=paper)

        return [
            column("jaccard", "Jaccard of the missing sets", partial(jaccard, results), "jaccard"),
            column("really", "FAC of what is really missing", partial(really_covered, results), "fac"),
        ]

    shown = rows.Shown(
        "Annotation noise",
        "Table 6 of the paper: what the annotator says, spoilt on purpose for a share of the missing features.",
        columns=columns,
        notes=[
            "Mislabel exchanges a share of the missing features for as many irrelevant ones that the seed does not "
            "activate, which gives the paper's Jaccard indices; a truncated summary loses the second half of its "
            "words, and a mismatched one is that of another missing feature (how the paper does either is not known). "
            "What is really missing is so by the interpretations without noise."
        ],
        figures=lambda main: [bars(main, list(SETTINGS), o.tasks, "By noise")],
    )
    names = {BASELINE: TITLES[BASELINE], **{row: paper_table("table6").names[row] for row in SETTINGS}}
    pairs = [(row, ORIGINAL) for row in SETTINGS if row != ORIGINAL]
    made = rows.Rows(names=names, of=row_of, pairs=pairs, paper=printed("auprc"), mode="lora")
    return rows.page(run, results, "noise", o.tasks, made, shown)


def _missing(results: Results, trial: Trial) -> MissingFeatures:
    mining = results.trials[trial].mining
    assert mining is not None
    return MissingFeatures.load(results.folder(mining.missing))


def _original(results: Results, trial: Trial) -> MissingFeatures:
    """What is missing without noise in the same world."""
    same = {"task": trial.task, "method": "fac", "data_seed": trial.data_seed, "generation": trial.generation}
    return _missing(results, next(t for t in results.trials if not t.settings and same.items() <= vars(t).items()))


def jaccard(results: Results, record: Record) -> float:
    """Of a trial's missing features and those without noise, in percent."""
    trial = record.trial
    return 100 * overlap(_missing(results, trial).missing(), _original(results, trial).missing()).jaccard


def really_covered(results: Results, record: Record) -> float:
    """Share of the features missing without noise that a trial's added rows activate, in percent."""
    steps, found = results.trials[record.trial], _original(results, record.trial)
    assert steps.mining is not None
    assert steps.added is not None
    pooled = CorpusFeatures.load(results.folder(steps.mining.encoder.features(steps.added))).pooled
    tally = counts(pooled, found.grid.cuts[found.chosen : found.chosen + 1])[0]
    return 100 * float((tally > 0)[found.missing()].mean())


EXPERIMENT = Experiment("noise", "Table 6: what annotation noise costs", plan, Options, paper="table6")
