"""Parts of pages that any experiment with missing features can show: features, samples, curves of coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.harness.report.page import Feature, Figure, Sample, Series, Span
from fac.corpus_features import CorpusFeatures
from fac.coverage import counts, own_counts, rarefaction
from fac.data.schemas import Schema
from fac.gap import MissingFeatures
from fac.interpret import Interpretation
from fac.synthesis.generate import Generated

FEATURES_SHOWN, SAMPLES_SHOWN = 40, 60


def missing_features(
    found: MissingFeatures,
    told: Mapping[int, Interpretation],
    anchor: CorpusFeatures,
    written: Generated | None,
    schema: Schema[Any],
) -> list[Feature]:
    """The missing features that most anchor texts activate, with what was written for them."""
    at, threshold = found.chosen, found.grid.cuts[found.chosen : found.chosen + 1]
    covered: dict[str, NDArray[np.bool_]] = {}
    if written is not None and (held := written.written(schema)) is not None:
        covered = {"any": counts(held[0], threshold)[0] > 0, "own": own_counts(*held, threshold)[0] > 0}
    missing = np.flatnonzero(found.missing())
    ranked = missing[np.argsort(-found.anchor_counts[at][missing], kind="stable")][:FEATURES_SHOWN]
    cards = []
    for feature in ranked.tolist():
        about = told.get(feature)
        cards.append(
            Feature(
                id=feature,
                explanation=about.explanation if about else "",
                verdict=about.verification if about else "",
                relevance=about.relevance if about else "",
                spans=spans_of(about, anchor.tops.values[feature]) if about else [],
                anchor_count=int(found.anchor_counts[at][feature]),
                seed_count=int(found.seed_counts[at][feature]),
                covered_own=bool(covered["own"][feature]) if covered else None,
                covered_any=bool(covered["any"][feature]) if covered else None,
            )
        )
    return cards


def spans_of(about: Interpretation, values: NDArray[np.float32], tokens: Sequence[int] = ()) -> list[Span]:
    """The spans that the annotator read, with the activating token: so many characters at their end, or the last word.

    `tokens` are of `fac.gap.load_tokens`: none of a step that did not keep them.
    """
    found = []
    for i, (text, value) in enumerate(zip(about.spans, values, strict=False)):
        start = len(text) - tokens[i] if tokens else text.rfind(" ") + 1
        found.append(Span(text, start, len(text), float(value)))
    return found


def samples(written: Generated | None) -> list[Sample]:
    """Some samples that were added, and some that were not, with why."""
    if written is None:
        return []
    chosen = [Sample(s.feature, s.step, s.text, s.activation, s.span, True) for s in written.chosen]
    dropped = [
        Sample(s.feature, s.step, s.text or s.reply, s.activation, s.span, False, s.rejected_because)
        for s in written.samples
        if not s.kept
    ]
    return [*chosen[: SAMPLES_SHOWN // 2], *dropped[: SAMPLES_SHOWN // 2]]


def rarefaction_figure(found: MissingFeatures, added: Mapping[str, Path]) -> Figure:
    """Expected share of the missing features that a random part of each set of added texts activates.

    `added` are folders of the features of what was added, by the name of their curve.
    """
    threshold, missing = found.grid.cuts[found.chosen : found.chosen + 1], found.missing()
    curves = []
    for name, folder in added.items():
        pooled = CorpusFeatures.load(folder).pooled
        tally = counts(pooled, threshold)[0][missing]
        sizes = np.unique(np.linspace(0, pooled.n_texts, 21).astype(int))
        share = 100 * rarefaction(tally, pooled.n_texts, sizes) / missing.sum()
        curves.append(Series(name, sizes.tolist(), share.tolist()))
    caption = "Expected share of the missing features that a random part of the added texts activates."
    return Figure("Coverage by number of texts (rarefaction)", "texts", "% of F_miss", curves, caption)


def missing_figure(gaps: Mapping[str, MissingFeatures]) -> Figure:
    """Number of missing features by relative threshold, a line for each way of finding them."""
    series = []
    for name, found in gaps.items():
        rows = [row for row, threshold in enumerate(found.grid.thresholds) if threshold.relative]
        x = [found.grid.thresholds[row].value for row in rows]
        series.append(Series(name, x, [float(found.missing(row).sum()) for row in rows]))
    return Figure("Missing features by threshold", "δ as a share of the feature's anchor maximum", "features", series)


def covered_figure(lines: Mapping[str, Mapping[str, float]], thresholds: Sequence[float], dashed: str) -> Figure:
    """Shares of the missing features covered, in percent, by relative threshold.

    `lines` hold a share for every threshold "0.5×max"; those whose name ends with `dashed` are drawn so.
    """
    series = [
        Series(name, list(thresholds), [shares[f"{x}×max"] for x in thresholds], dashed=name.endswith(dashed))
        for name, shares in lines.items()
    ]
    axis = "δ as a share of the feature's anchor maximum"
    return Figure("Missing features covered", axis, "% of F_miss", series)
