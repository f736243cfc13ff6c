"""What `experiments.coverage` shows: FAC by threshold, the diversity of both data sets, missing features and spans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from experiments.harness import labels, parity
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.report import Feature, Figure, Page, Series, Span
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import table
from fac.coverage import bootstrap, counts, fac_ratio, rarefaction
from fac.data.corpus import Corpus, load_report
from fac.data.examples import LoadReport, left_out
from fac.diversity import lacking
from fac.diversity.measured import load_diversity
from fac.diversity.metrics import METRICS
from fac.encoder import CorpusFeatures, FeatureEncoder
from fac.gap import MissingFeatures, Thresholds, find_missing
from fac.store import Step

ROLES = ("anchor", "seed")
SPAN_TOKENS = 32  # longest span that is shown
COLUMNS = {
    "active": "active on the anchor",
    "missing": "missing from the seed data",
    "ratio": "FAC",
    "low": "low",
    "high": "high",
    "frequency": "FAC, frequency",
    "magnitude": "FAC, magnitude",
}


@dataclass(frozen=True)
class Steps:
    """What the page is made of, by role."""

    encoder: FeatureEncoder
    corpora: Mapping[str, Step]
    features: Mapping[str, Step]
    diversity: Mapping[str, Step]


@dataclass(frozen=True)
class Measured:
    """Both data sets, and what the second misses."""

    anchor: CorpusFeatures
    seed: CorpusFeatures
    found: MissingFeatures  # every feature is relevant

    @property
    def named(self) -> dict[str, CorpusFeatures]:
        return {"anchor": self.anchor, "seed": self.seed}


def page(run: RunConfig, thresholds: Thresholds, say: Callable[[str], None], steps: Steps, results: Results) -> Page:
    """FAC by threshold, the diversity of both data sets, and the missing features with their spans."""
    reports = {role: load_report(results.folder(corpus)) for role, corpus in steps.corpora.items()}
    anchor, seed = (CorpusFeatures.load(results.folder(steps.features[role])) for role in ROLES)
    found = find_missing(anchor, seed, np.ones(anchor.pooled.n_features, np.bool_), thresholds)
    measured = Measured(anchor, seed, found)
    cuts = [note for role, corpus in measured.named.items() if (note := corpus.note(role))]
    for line in [*(f"{role}: {report}" for role, report in reports.items()), *cuts]:
        say(line)
    notes = [*left_out(reports), *cuts]
    diverse = diversity_table(run, steps, results).noting(left_out(reports))
    return Page(
        title=f"Feature coverage: {run.data['seed'].title} against {run.data['anchor'].title}",
        subtitle=f"Which features of the anchor, measured with {run.model.name}, do the seed data activate?",
        tables=[coverage_table(run, measured, notes), *([diverse] if diverse.cells else [])],
        facts=facts(found, reports),
        figures=[*by_threshold(found), rarefied(measured)],
        features=missing_features(run, measured, steps.encoder, Corpus.load(results.folder(steps.corpora["anchor"]))),
    )


def coverage_table(run: RunConfig, measured: Measured, more: list[str]) -> Table:
    """FAC by threshold. Thresholds that no feature of the anchor passes have no FAC, and say so."""
    found, options = measured.found, run.experiment
    cells: list[Cell] = []
    empty = []
    for index, threshold in enumerate(found.grid.thresholds):
        row = str(threshold)
        active, missing = found.active(index), found.missing(index)
        numbers = {"active": (float(active.sum()), "count"), "missing": (float(missing.sum()), "count")}
        if not active.any():
            empty.append(row)
        else:
            fac = fac_ratio(found.anchor_counts[index], found.seed_counts[index], active, found.anchor_mean)
            interval = bootstrap(
                measured.seed.pooled,
                found.grid.cuts[index],
                anchor=active,
                missing=missing if missing.any() else active,
                relevant=active,
                replicates=options.bootstrap,
            ).ratio
            shares = {"ratio": fac.binary, "frequency": fac.frequency, "magnitude": fac.magnitude}
            shares |= {"low": interval.low, "high": interval.high}
            numbers |= {name: (100 * share, "percent") for name, share in shares.items()}
        cells += [observed(row, name, value, unit=unit) for name, (value, unit) in numbers.items()]
    notes = [
        "FAC = |F(Q)| / |F(P)|: P the anchor, Q the seed data, F all features that the anchor activates above δ.",
        "Frequency and magnitude weigh features by the share of anchor texts that activate them and by their mean "
        "activation; low and high bound the binary FAC (95 % bootstrap over seed texts).",
    ]
    if empty:
        notes.append(f"No feature of the anchor passes {', '.join(empty)}: lower these thresholds.")
    if small := [name for name, corpus in measured.named.items() if corpus.pooled.n_texts < 2]:
        notes.append(f"One text has no diversity: that of the {' and '.join(small)} is left out.")
    notes += [*more, *parity.notes(run, (), ("features",))]
    title, rows = "Feature activation coverage by threshold δ", [str(t) for t in found.grid.thresholds]
    return table(run, "coverage", title, rows, list(COLUMNS), cells, COLUMNS, notes, [labels.own(run)])


def diversity_table(run: RunConfig, steps: Steps, results: Results) -> Table:
    """Text and embedding diversity of both data sets (paper Fig. 9), of those that are more than one text."""
    found = {role: load_diversity(results.folder(step)) for role, step in steps.diversity.items()}
    rows = list(dict.fromkeys(name for numbers in found.values() for name in numbers))
    cells = [
        observed(name, role, value, unit="")
        for role, numbers in found.items()
        for name, value in numbers.items()
        if math.isfinite(value)
    ]
    texts, layer = run.experiment.diversity_texts, steps.encoder.layer
    notes = [f"Of the first {texts} texts; embeddings are mean content residuals of layer {layer}.", lacking()]
    names = {name: METRICS[name].heading for name in rows}
    return table(run, "diversity", "Diversity of both data sets", rows, ROLES, cells, names, notes, [labels.own(run)])


def facts(found: MissingFeatures, reports: Mapping[str, LoadReport]) -> list[tuple[str, str]]:
    """The answer in a few numbers."""
    chosen = found.chosen
    fac = fac_ratio(found.anchor_counts[chosen], found.seed_counts[chosen], found.active(), found.anchor_mean)
    return [
        ("Anchor", str(reports["anchor"])),
        ("Seed data", str(reports["seed"])),
        ("Threshold used", str(found.grid.thresholds[chosen])),
        ("FAC", f"{fac.covered} of {fac.total} features, {100 * fac.binary:.1f} %"),
        ("Missing features", str(int(found.missing().sum()))),
    ]


def by_threshold(found: MissingFeatures) -> list[Figure]:
    """FAC over absolute thresholds, and over relative ones."""
    figures = []
    for relative, label in ((False, "δ, absolute"), (True, "δ as a share of the feature's anchor maximum")):
        rows = [i for i, t in enumerate(found.grid.thresholds) if t.relative == relative and found.active(i).any()]
        if rows:
            active = {i: found.active(i) for i in rows}
            share = [100 * float((active[i] & (found.seed_counts[i] > 0)).sum() / active[i].sum()) for i in rows]
            x = [found.grid.thresholds[i].value for i in rows]
            figures.append(Figure("Coverage by threshold", label, "FAC (%)", [Series("seed data", x, share)]))
    return figures


def rarefied(measured: Measured) -> Figure:
    """How many features parts of each data set activate."""
    found, curves = measured.found, []
    for name, corpus in (("anchor", measured.anchor), ("seed data", measured.seed)):
        tally = counts(corpus.pooled, found.grid.cuts[found.chosen : found.chosen + 1])[0][found.active()]
        sizes = np.unique(np.linspace(0, corpus.pooled.n_texts, 25).astype(int))
        curves.append(Series(name, sizes.tolist(), rarefaction(tally, corpus.pooled.n_texts, sizes).tolist()))
    caption = "Expected number of the anchor's features that a random part of each data set activates."
    return Figure("Features by number of texts (rarefaction)", "texts", "features", curves, caption)


def missing_features(run: RunConfig, measured: Measured, encoder: FeatureEncoder, anchor: Corpus) -> list[Feature]:
    """The missing features that most anchor texts activate, with their spans."""
    options = run.experiment
    return spanned(measured.found, measured.anchor, encoder, anchor, options.listed, options.spans)


def spanned(
    found: MissingFeatures, measured: CorpusFeatures, encoder: FeatureEncoder, anchor: Corpus, listed: int, count: int
) -> list[Feature]:
    """The `listed` missing features that most anchor texts activate, with `count` spans each; no LLM explains them."""
    missing, tally = np.flatnonzero(found.missing()), found.anchor_counts[found.chosen]
    ranked = missing[np.argsort(-tally[missing], kind="stable")][:listed].tolist()
    longest = min(encoder.settings.max_tokens, SPAN_TOKENS)
    spans = encoder.spans(anchor, measured.tops, ranked, count, longest)
    return [
        Feature(
            id=feature,
            explanation="",
            verdict="",
            relevance="",
            spans=[Span(place.text, place.start, len(place.text), place.value) for place in spans[feature]],
            anchor_count=int(tally[feature]),
            seed_count=int(found.seed_counts[found.chosen][feature]),
        )
        for feature in ranked
    ]
