"""What the lab's page shows beside the main table: coverage by threshold, gap, ground truth, features, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments import lab_truth
from experiments.report import Feature, Figure, Page, Sample, Series, Span
from experiments.results import Cell, Table, measured, paper_table
from experiments.session import Session
from fac.coverage import Fac, bootstrap, counts, covered_missing, fac_ratio, overlap, own_counts, rarefaction
from fac.data.schemas import QUERY
from fac.interpret import interpretation_note
from fac.lab.world.corpora import Sizes
from fac.pipeline import Gap, Workshop, measure
from fac.pooled import Pooled
from fac.store import Artifact
from fac.synthesis.method import Outcome
from fac.synthesis.samples import write_samples, written_for

FEATURES_SHOWN, SAMPLES_SHOWN = 40, 60


@dataclass(frozen=True)
class Row:
    """One method: what it wrote, the texts it adds, and how much of the gap they cover."""

    name: str
    outcome: Outcome
    added: Artifact | None
    any: Fac | None = None  # missing features activated by any added text
    own: Fac | None = None  # ... by a text written for that feature
    ratio: Fac | None = None  # |F(Q)| / |F(P)|, Q = seed data and added texts


@dataclass(frozen=True)
class Findings:
    """Everything the page shows."""

    sizes: Sizes
    world_seed: int
    gap: Gap
    official: Gap  # the same with Top-K off
    rows: Sequence[Row]
    table: Table
    statistical: NDArray[np.bool_]  # F by the statistical judge
    session: Session
    shop: Workshop
    beside: bool  # whether the paper's numbers may stand beside these


def finish(found: Findings) -> Path:
    """Write tables, samples and page to the run's folder; returns the folder."""
    session, gap = found.session, found.gap
    covered = coverage_by_threshold(found)
    missing = missing_by_threshold(found)
    by_name = {row.name: row for row in found.rows}
    files = []
    for row in found.rows:
        if row.outcome.samples:
            files.append(session.out / f"samples-{row.name}.jsonl")
            write_samples(QUERY, row.outcome.samples, files[-1])
    page = Page(
        title=found.table.title,
        subtitle="FAC Synthesis on the written world: which features the seed data miss, what was written for them, "
        "and what a classifier gains.",
        tables=[found.table, covered, missing],
        facts=_facts(found),
        figures=_figures(found, covered),
        truth=_truth(found),
        features=_features(found, by_name.get("fac")),
        samples=_samples(by_name.get("fac")),
        sample_note="Written by a small language model to train detectors of harmful requests; labels say what the "
        "sample was written for, not what it is.",
    )
    metrics = {f"fac/{row.name}": row.any.binary for row in found.rows if row.any}
    metrics |= {f"auprc/{c.row}/{c.column}": c.mean for c in found.table.cells if c.column.startswith("auprc")}
    return session.finish(page, {**metrics, "missing": int(gap.missing().sum())}, files)


def coverage_of(shop: Workshop, gap: Gap, row: Row) -> Row:
    """How much of the gap the texts that a row adds cover, at the threshold synthesis used."""
    cut, missing = gap.grid.cuts[gap.at : gap.at + 1], gap.missing()
    anchor, mean = gap.anchor_counts[gap.at], gap.anchor_mean
    seen = gap.seed_counts[gap.at].copy()
    if row.added is None:
        return replace(
            row, any=covered_missing(missing, 0 * seen, anchor, mean), ratio=fac_ratio(anchor, seen, gap.relevant, mean)
        )
    pooled = measure(shop, row.added).pooled
    added = counts(pooled, cut)[0]
    row = replace(
        row,
        any=covered_missing(missing, added, anchor, mean),
        ratio=fac_ratio(anchor, seen + added, gap.relevant, mean),
    )
    if not row.outcome.chosen or any(sample.feature is None for sample in row.outcome.chosen):
        return row
    own = own_counts(pooled, written_for(row.outcome.chosen), cut)[0]
    return replace(row, own=covered_missing(missing, own, anchor, mean))


def budget_note(title: str, budget: int, rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """Which methods added other numbers of rows than the budget, which is the same for all; "" if none did."""
    odd = [row for row in rows if row.added is not None and len(row.outcome.examples) != budget]
    told = [f"{names.get(row.name, row.name)} added {len(row.outcome.examples):,}" for row in odd]
    return f"{title}: the budget is {budget:,} rows; {', '.join(told)}." if told else ""


def coverage_by_threshold(found: Findings) -> Table:
    """Table 10's analogue: share of F_miss covered above every threshold, one step against two, own and any sample."""
    by_name = {row.name: row.outcome for row in found.rows}
    variants: dict[str, tuple[Pooled, NDArray[np.int64]]] = {}
    names = {}
    one, two = by_name.get("fac_one_step"), by_name.get("fac")
    if one and one.written:
        attempts = np.array([s.attempt for s in one.written.samples])
        late = np.flatnonzero(attempts >= attempts.max() + 1 - _per_feature(two or one))
        features = one.written.written_for
        variants["one_step"] = one.written.pooled.take(late), features[late]
        variants["one_step_all"] = one.written.pooled, features
        names |= {"one_step": "One step, as many samples as step 2", "one_step_all": "One step, as many requests"}
    if two and two.written:
        variants["two_step"] = two.written.pooled, two.written.written_for
        names["two_step"] = "Two steps"
    gap, cells = found.gap, []
    missing, seed = gap.missing(), 0
    columns = [str(t) for t in gap.grid.thresholds]
    for name, (pooled, owners) in variants.items():
        for kind, tally in (
            ("any", counts(pooled, gap.grid.cuts)),
            ("own", own_counts(pooled, owners, gap.grid.cuts)),
        ):
            for column, row in zip(columns, tally, strict=True):
                share = 100 * float((row[missing] > 0).mean())
                printed = kind == "any" and found.beside
                paper = paper_table("table10").get(f"{name}@{column}", "toxicity") if printed else None
                cells.append(measured(f"{name}_{kind}", column, {seed: share}, paper=paper))
    return _side_table(
        found,
        "coverage_by_threshold",
        "Share of the missing features covered, by threshold δ",
        [f"{name}_{kind}" for name in variants for kind in ("any", "own")],
        columns,
        cells,
        {f"{n}_{kind}": f"{label}, {kind} sample" for n, label in names.items() for kind in ("any", "own")},
        [
            f"Missing features: the {int(missing.sum())} of the threshold used for synthesis "
            f"({gap.grid.thresholds[gap.at]}), at every column. All samples written count, kept or not.",
            "Columns with ×max are relative to each feature's maximum on the anchor; absolute ones are the paper's, "
            "whose units (and so whose percentages) are those of another SAE.",
        ],
    )


def missing_by_threshold(found: Findings) -> Table:
    """Size of F_miss at every threshold under both rules, and what it finds of the truly missing concepts."""
    cells: list[Cell] = []
    for rule, gap in (("paper", found.gap), ("official", found.official)):
        match = lab_truth.match_features(gap.anchor, gap.grid.cuts[gap.at])
        for index, threshold in enumerate(gap.grid.thresholds):
            row = str(threshold)
            truth = lab_truth.missing_concepts(gap, match, index, found.world_seed, found.sizes)
            finer = lab_truth.missing_wordings(gap, match, index)
            numbers = {
                "missing": (float(gap.missing(index).sum()), "count"),
                "precision": (100 * truth.precision, "percent"),
                "recall": (100 * truth.recall, "percent"),
                "wording_precision": (100 * finer.precision, "percent"),
                "wording_recall": (100 * finer.recall, "percent"),
            }
            cells += [measured(row, f"{rule}_{k}", {found.world_seed: v}, unit=u) for k, (v, u) in numbers.items()]
    kinds = {
        "missing": "missing features",
        "precision": "concept precision",
        "recall": "concept recall",
        "wording_precision": "wording precision",
        "wording_recall": "wording recall",
    }
    rules = {"paper": "Top-K kept", "official": "Top-K off"}
    return _side_table(
        found,
        "missing_by_threshold",
        "What is missing, by threshold δ and rule",
        [str(t) for t in found.gap.grid.thresholds],
        [f"{rule}_{kind}" for rule in rules for kind in kinds],
        cells,
        {f"{rule}_{kind}": f"{label}, {text}" for rule, label in rules.items() for kind, text in kinds.items()},
        [
            "Precision and recall are of the harmful concepts (and wordings) behind the missing features, against "
            "those that the seed data really lack (the lab's ground truth). Seed data that know a concept can still "
            "lack some of its wordings, which costs concept precision but is no error.",
            "Top-K off is the released code's rule: every positive pre-activation counts.",
        ],
    )


def _side_table(
    found: Findings,
    experiment: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Cell],
    names: dict[str, str],
    notes: Sequence[str],
) -> Table:
    main = found.table
    return Table(
        experiment, main.scale, title, tuple(rows), tuple(columns), tuple(cells), main.config_hash, main.versions,
        tuple(notes), names, main.provenance, main.label,
    )  # fmt: skip


def _facts(found: Findings) -> list[tuple[str, str]]:
    gap = found.gap
    facts = [
        ("Threshold used", str(gap.grid.thresholds[gap.at])),
        ("Features active on the anchor", str(int((gap.anchor_counts[gap.at] > 0).sum()))),
        ("of them relevant, |F(P)|", str(int(gap.active().sum()))),
        ("missing from the seed data, |F_miss|", str(int(gap.missing().sum()))),
    ]
    seed_ratio = fac_ratio(gap.anchor_counts[gap.at], gap.seed_counts[gap.at], gap.relevant, gap.anchor_mean)
    facts.append(("FAC ratio of the seed data, binary / frequency / magnitude", _three(seed_ratio)))
    for row in found.rows:
        if row.name in ("fac_one_step", "fac") and row.any and row.own and row.added:
            interval = bootstrap(
                measure(found.shop, row.added).pooled, gap.cut, anchor=gap.active(), missing=gap.missing(),
                relevant=gap.relevant,
            ).covered_missing  # fmt: skip
            label = found.table.name(row.name)
            facts += [
                (
                    f"{label}: missing features covered by its training texts, binary / frequency / magnitude",
                    _three(row.any),
                ),
                (
                    f"{label}: 95 % bootstrap interval over texts",
                    f"{100 * interval.low:.1f} – {100 * interval.high:.1f} %",
                ),
            ]
    facts += [
        (f"{found.table.name(row.name)}: written", str(row.outcome.counts)) for row in found.rows if row.outcome.samples
    ]
    agree = overlap(found.statistical & (gap.anchor_counts[gap.at] > 0), gap.active())
    facts.append(("Statistical judge against LLM judge, Jaccard of F", f"{agree.jaccard:.2f}"))
    facts.append(("Features read by the annotator", interpretation_note(gap.interpretations.values())))
    return facts


def _three(value: Fac) -> str:
    return f"{100 * value.binary:.1f} / {100 * value.frequency:.1f} / {100 * value.magnitude:.1f} %"


def _figures(found: Findings, covered: Table) -> list[Figure]:
    gap = found.gap
    relative = [t for t in gap.grid.thresholds if t.relative]
    lines = []
    for row in covered.rows:
        cells = [covered.cell(row, str(t)) for t in relative]
        lines.append(Series(covered.name(row), [t.value for t in relative], [c.mean for c in cells if c],
                            dashed=row.endswith("_any")))  # fmt: skip
    curves = []
    for row in found.rows:
        if row.added is None:
            continue
        pooled = measure(found.shop, row.added).pooled
        tally = counts(pooled, gap.grid.cuts[gap.at : gap.at + 1])[0][gap.missing()]
        sizes = np.unique(np.linspace(0, pooled.n_texts, 21).astype(int))
        share = 100 * rarefaction(tally, pooled.n_texts, sizes) / gap.missing().sum()
        curves.append(Series(found.table.name(row.name), sizes.tolist(), share.tolist()))
    scatter = []
    for row in found.rows:
        cell = found.table.cell(row.name, "auprc_added")
        if cell and row.any:
            name, spread = found.table.name(row.name), cell.std or 0.0
            bars = [cell.mean - spread], [cell.mean + spread]
            scatter.append(Series(name, [100 * row.any.binary], [cell.mean], *bars, line=False))
    sizes_missing = [
        Series(
            label, [t.value for t in relative], [float(g.missing(g.grid.thresholds.index(t)).sum()) for t in relative]
        )
        for label, g in (("Top-K kept", gap), ("Top-K off", found.official))
    ]
    share, features = "δ as a share of the feature's anchor maximum", "features"
    solid = "Dashed: by any sample; solid: by the feature's own samples."
    drawn = "Expected share of the missing features that a random part of the added texts activates."
    bars = "One point per row; bars are one standard deviation over classifier seeds."
    figures = [
        Figure("Missing features covered", share, "% of F_miss", lines, solid),
        Figure("Coverage by number of texts (rarefaction)", "texts", "% of F_miss", curves, drawn),
        Figure("Coverage and performance", "% of F_miss covered", "AUPRC, added (%)", scatter, bars),
        Figure("Missing features by threshold", share, features, sizes_missing),
    ]
    return [figure for figure in figures if figure.series]


def _truth(found: Findings) -> list[tuple[str, str]]:
    gap = found.gap
    match = lab_truth.match_features(gap.anchor, gap.cut)
    concepts = lab_truth.missing_concepts(gap, match, gap.at, found.world_seed, found.sizes)
    finer = lab_truth.missing_wordings(gap, match, gap.at)
    relevance = lab_truth.relevance_quality(gap, match)
    detected, total = lab_truth.features_as_wordings(gap, match)
    rows = [
        ("Missing concepts: precision, recall", f"{concepts.precision:.2f}, {concepts.recall:.2f} "
         f"({concepts.found} found, {concepts.true} truly missing)"),
        ("Missing wordings: precision, recall", f"{finer.precision:.2f}, {finer.recall:.2f} "
         f"({finer.found} found, {finer.true} truly missing)"),
        ("Relevant features (LLM judge): precision, recall", f"{relevance.precision:.2f}, {relevance.recall:.2f}"),
        ("Wordings that one feature detects (F1 > 0.8)", f"{detected} of {total}"),
    ]  # fmt: skip
    for row in found.rows:
        if row.outcome.samples:
            made = lab_truth.check_texts([query.text for query in row.outcome.examples])
            rows.append((f"{found.table.name(row.name)}: training texts valid / harmful / with two requests",
                         f"{made.valid:.2f} / {made.harmful:.2f} / {made.two_requests:.2f}"))  # fmt: skip
    return rows


def _features(found: Findings, fac: Row | None) -> list[Feature]:
    gap = found.gap
    cut = gap.grid.cuts[gap.at : gap.at + 1]
    any_, own = np.zeros(len(gap.relevant), bool), np.zeros(len(gap.relevant), bool)
    if fac and fac.outcome.written:
        written = fac.outcome.written
        any_ = counts(written.pooled, cut)[0] > 0
        own = own_counts(written.pooled, written.written_for, cut)[0] > 0
    missing = np.flatnonzero(gap.missing())
    ranked = missing[np.argsort(-gap.anchor_counts[gap.at][missing], kind="stable")][:FEATURES_SHOWN]
    return [
        Feature(
            id=int(f),
            explanation=gap.interpretations[f].explanation if f in gap.interpretations else "",
            verdict=gap.interpretations[f].verification if f in gap.interpretations else "",
            relevance=gap.interpretations[f].relevance if f in gap.interpretations else "",
            spans=feature_spans(gap, int(f)),
            anchor_count=int(gap.anchor_counts[gap.at][f]),
            seed_count=int(gap.seed_counts[gap.at][f]),
            covered_own=bool(own[f]) if fac else None,
            covered_any=bool(any_[f]) if fac else None,
        )
        for f in ranked.tolist()
    ]


def feature_spans(gap: Gap, feature: int) -> list[Span]:
    """The spans that the annotator read, as stored with what it said; the activating word is the last."""
    interpretation = gap.interpretations.get(feature)
    if interpretation is None:
        return []
    values = gap.anchor.tops.values[feature]
    return [
        Span(text, text.rfind(" ") + 1, len(text), float(value))
        for text, value in zip(interpretation.spans, values, strict=False)
    ]


def _samples(fac: Row | None) -> list[Sample]:
    if fac is None:
        return []
    chosen = [Sample(s.feature, s.step, s.text, s.activation, s.span, True) for s in fac.outcome.chosen]
    dropped = [
        Sample(s.feature, s.step, s.text or s.reply, s.activation, s.span, False, s.rejected_because)
        for s in fac.outcome.samples
        if not s.kept
    ]
    return [*chosen[: SAMPLES_SHOWN // 2], *dropped[: SAMPLES_SHOWN // 2]]


def _per_feature(outcome: Outcome) -> int:
    """Requests per feature in the first round of a method's last step."""
    return len({s.attempt for s in outcome.written.samples}) if outcome.written else 0
