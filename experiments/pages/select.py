"""What `experiments.select` shows: what every method covers of the missing features, row by row, and at what length."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.report import Feature, Figure, Page, Series
from experiments.harness.report.parts import FEATURES_SHOWN, missing_features
from experiments.harness.results import Cell, Table, measured, observed
from experiments.harness.tables import TITLES, table
from experiments.pages.coverage import spanned
from experiments.steps.own_data import OwnOptions, title_of
from experiments.steps.select import CHOSEN, CURVE, FOR_MISSING, Drawn, load_drawn
from fac.corpus_features import CorpusFeatures
from fac.data.corpus import Corpus, load_report
from fac.data.examples import LoadReport, left_out
from fac.data.schemas import TEXT
from fac.gap import MissingFeatures
from fac.interpret import Interpretation, interpretation_note, load_interpretations
from fac.own_gap import OwnGap
from fac.store import Step
from fac.synthesis.methods import METHODS

ROLES = ("anchor", "seed", "pool")
POINTS = 60  # of a curve
SPANS_SHOWN = 5
COLUMNS = {
    "rows": "rows",
    "tokens": "tokens per text",
    "features": "features per text",
    "covered": "missing features covered",
    "share": "of those that are missing",
    "reachable": "of those that the pool has",
    "fac": "FAC after",
}


@dataclass(frozen=True)
class Steps:
    """What the page is made of."""

    gap: OwnGap
    pool: Step
    features: Step  # of the pool
    chosen: Step


@dataclass(frozen=True)
class Found:
    """What was missing and what was chosen."""

    wanted: MissingFeatures
    drawn: Mapping[str, Sequence[Drawn]]  # by method, with a choice for each seed
    reachable: int  # missing features that some text of the pool activates

    @property
    def missing(self) -> int:
        return int(self.wanted.missing().sum())


def page(run: RunConfig, say: Callable[[str], None], steps: Steps, results: Results) -> Page:
    """The table of methods, their curves over rows and over tokens, and the missing features."""
    gap = steps.gap
    corpora = dict(zip(ROLES, (gap.anchor, gap.seed, steps.pool), strict=True))
    reports = {role: load_report(results.folder(step)) for role, step in corpora.items()}
    pool = CorpusFeatures.load(results.folder(steps.features))
    found = read_found(results, steps, pool)
    told = {} if gap.told is None else load_interpretations(results.folder(gap.told))
    cuts = [
        note for role, step in measured_roles(steps) if (note := CorpusFeatures.load(results.folder(step)).note(role))
    ]
    for line in [*(f"{role}: {report}" for role, report in reports.items()), *cuts]:
        say(line)
    main = selection_table(run, found, [*left_out(reports), *cuts, *asked_notes(run.experiment, told)])
    return Page(
        title=f"Selection from {run.data['pool'].title} for what {run.data['seed'].title} misses",
        subtitle=f"Which texts of the pool activate what the seed misses of {run.data['anchor'].title}?",
        tables=[main],
        answer=answer(run, found),
        facts=facts(found, reports),
        figures=[curves(found), curves(found, tokens=True)],
        features=shown_features(results, gap, told, found.wanted),
        files={CURVE: curve_file(found)},
        copies={CHOSEN: results.folder(steps.chosen) / CHOSEN},
    )


def measured_roles(steps: Steps) -> list[tuple[str, Step]]:
    """The features of each role."""
    return [("anchor", steps.gap.anchor_features), ("seed", steps.gap.seed_features), ("pool", steps.features)]


def read_found(results: Results, steps: Steps, pool: CorpusFeatures) -> Found:
    """What the steps left."""
    wanted = MissingFeatures.load(results.folder(steps.gap.wanted))
    drawn: dict[str, list[Drawn]] = {}
    for one in load_drawn(results.folder(steps.chosen)):
        drawn.setdefault(one.method, []).append(one)
    strongest = pool.pooled.maxima()
    return Found(wanted, drawn, int((wanted.missing() & (strongest > wanted.thresholds)).sum()))


def selection_table(run: RunConfig, found: Found, more: Sequence[str]) -> Table:
    """A row for each method; of those that draw at random, the mean over draws."""
    options, cells = run.experiment, [cell for name in found.drawn for cell in _cells(run, found, name)]
    notes = [
        f"Up to {options.budget} texts each, for the {found.missing:,} features that the seed misses at δ = "
        f"{found.wanted.grid.thresholds[found.wanted.chosen]}, of which {found.reachable:,} are active in the pool.",
        "Longer texts activate more features (arXiv 2502.14050: r = .92): compare with the row that is matched in "
        "length, and look at the curve over tokens.",
        *(f"{TITLES[name]}: {note_of(name)}" for name in found.drawn),
        *short_of(options.budget, found),
        *more,
    ]
    title = f"What is selected from {run.data['pool'].title}, {title_of(run)}"
    aid = f"Mean ± sample standard deviation (ddof 1) over {options.draws} draws, where a method draws at random."
    kinds: list[labels.Kind] = [labels.own(run)]
    return table(run, "select", title, list(found.drawn), list(COLUMNS), cells, COLUMNS, notes, kinds, aid=aid)


def note_of(name: str) -> str:
    """What a method says of itself, from whatever pool it chooses."""
    return METHODS[name].note.replace("Selection from human data", "selection from the pool")


def _cells(run: RunConfig, found: Found, name: str) -> list[Cell]:
    drawn = found.drawn[name]
    before = covered_before(found.wanted) if run.experiment.relevance != "llm" else None
    active = int(found.wanted.active().sum())

    def each(column: str, value: Callable[[Drawn], float], unit: str) -> Cell:
        numbers = {one.seed: value(one) for one in drawn}
        if METHODS[name].drawn:
            return measured(name, column, numbers, unit=unit)
        return observed(name, column, value(drawn[0]), unit=unit)

    cells = [
        each("rows", lambda one: len(one.rows), "count"),
        each("tokens", lambda one: float(np.mean(one.tokens)), "tokens"),
        each("features", lambda one: float(np.mean(one.active)), "features"),
        each("covered", lambda one: one.covered[-1], "count"),
        each("share", lambda one: 100 * one.covered[-1] / found.missing, "percent"),
        each("reachable", lambda one: 100 * one.covered[-1] / found.reachable, "percent"),
    ]
    if before is not None:
        cells.append(each("fac", lambda one: 100 * (before + one.covered[-1]) / active, "percent"))
    return cells


def covered_before(found: MissingFeatures) -> int:
    """Relevant features of the anchor that the seed activates."""
    return int((found.active() & ~found.missing()).sum())


def short_of(budget: int, found: Found) -> list[str]:
    """Which methods chose fewer rows than the budget, and why."""
    short = {TITLES[name]: len(drawn[0].rows) for name, drawn in found.drawn.items() if len(drawn[0].rows) < budget}
    told = ", ".join(f"{title} {count:,}" for title, count in short.items())
    return (
        [f"Fewer than the budget: {told}. Texts that activate none of the features in question are not chosen."]
        if short
        else []
    )


def asked_notes(options: OwnOptions, told: Mapping[int, Interpretation]) -> list[str]:
    """Who said which features matter."""
    if options.relevance == "all":
        return ["Every feature that the anchor activates counts (relevance=all)."]
    if options.relevance == "labels":
        return ["Features count that go with the labels of the anchor, among texts of equal length (relevance=labels)."]
    note = interpretation_note(told.values())
    return [f"Features count that the annotator holds for relevant to: {options.task.description}. {note}"]


def answer(run: RunConfig, found: Found) -> str:
    """The selection for missing features against its control."""
    ours, control = found.drawn[FOR_MISSING][0], found.drawn["select_length_matched"]
    matched = float(np.mean([one.covered[-1] for one in control]))
    return (
        f"{len(ours.rows)} texts selected for missing features cover {ours.covered[-1]:,} of the {found.missing:,} "
        f"that the seed misses; as many drawn at random, of the same lengths, cover {matched:,.0f}."
    )


def facts(found: Found, reports: Mapping[str, LoadReport]) -> list[tuple[str, str]]:
    """The data and the gap in a few numbers."""
    return [
        *((role.capitalize(), str(report)) for role, report in reports.items()),
        ("Threshold used", str(found.wanted.grid.thresholds[found.wanted.chosen])),
        ("Missing features", f"{found.missing:,}, of which the pool has {found.reachable:,}"),
    ]


def curves(found: Found, tokens: bool = False) -> Figure:
    """What the first rows of each method cover, over their number or over their tokens."""
    series = []
    for name, drawn in found.drawn.items():
        length = min(len(one.rows) for one in drawn)
        at = np.unique(np.linspace(0, length - 1, min(POINTS, length)).astype(int))
        shares = 100 * np.array([[one.covered[i] for i in at] for one in drawn]) / found.missing
        spent = np.mean([np.cumsum(one.tokens)[at] for one in drawn], axis=0)
        band = {} if len(drawn) < 2 else {"low": shares.min(axis=0).tolist(), "high": shares.max(axis=0).tolist()}
        x = spent.tolist() if tokens else (at + 1).tolist()
        series.append(Series(TITLES[name], x, shares.mean(axis=0).tolist(), **band, dashed=METHODS[name].drawn))
    over = "tokens" if tokens else "texts"
    caption = (
        "Share of the missing features that the first texts of each selection activate; bands are the range over draws."
    )
    return Figure(f"Coverage by number of {over}", over, "% of the missing features", series, caption)


def curve_file(found: Found) -> str:
    """Every curve in full, as JSON."""
    told = [vars(one) for drawn in found.drawn.values() for one in drawn]
    return json.dumps({"missing": found.missing, "reachable": found.reachable, "curves": told}) + "\n"


def shown_features(
    results: Results, gap: OwnGap, told: Mapping[int, Interpretation], found: MissingFeatures
) -> list[Feature]:
    """The missing features that most anchor texts activate, with what the annotator said of them if it was asked."""
    anchor = CorpusFeatures.load(results.folder(gap.anchor_features))
    if told:
        return missing_features(found, told, anchor, None, TEXT)
    return spanned(found, anchor, gap.encoder, Corpus.load(results.folder(gap.anchor)), FEATURES_SHOWN, SPANS_SHOWN)
