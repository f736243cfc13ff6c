"""Which of the samples that were written are added, where it is not those that activate their own features most.

So many of each feature (paper Figs. 4 and 7), or those that cover the missing features best, weighted by one of FAC's
variants (Table 11). A step behind that of writing: tables that differ in it alone share what is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.corpus_features import CorpusFeatures
from fac.data.schemas import Schema
from fac.errors import FacError
from fac.gap import Mining, MissingFeatures
from fac.store import Step
from fac.synthesis.generate import Generated, save_outcome
from fac.synthesis.method import Outcome
from fac.synthesis.samples import Sample, choose
from fac.synthesis.settings import Settings


def selection(written: Step, mining: Mining, schema: Schema[Any], settings: Settings, budget: int | None) -> Step:
    """What is added of `written`, as the settings have it: that step itself, or a selection from all that it kept."""
    if settings.per_feature is not None:
        params = {"schema": schema.name, "per_feature": settings.per_feature}
        return Step("selection", partial(_first_of_each, schema, settings.per_feature), params, (written,))
    if settings.choose == "strongest":
        return written
    kept = Step("candidates", partial(_candidates, schema), {"schema": schema.name}, (written,))
    params = {"schema": schema.name, "weights": settings.choose, "budget": budget}
    inputs = (kept, mining.encoder.features(kept), mining.wanted)
    return Step("selection", partial(_covering, schema, settings.choose, budget), params, inputs)


def _first_of_each(schema: Schema[Any], per_feature: int, folder: Path, written: Path) -> None:
    """Each feature's `per_feature` best samples, however many that are."""
    generated = Generated.load(schema, written)
    kept = _kept(generated.samples)
    taken: dict[int | None, int] = {}
    chosen = []
    for sample in choose(kept, len(kept)):
        taken[sample.feature] = taken.get(sample.feature, 0) + 1
        if taken[sample.feature] <= per_feature:
            chosen.append(sample)
    features = {sample.feature for sample in generated.samples}
    _save(schema, generated, chosen, per_feature * len(features), folder)


def _candidates(schema: Schema[Any], folder: Path, written: Path) -> None:
    """Everything that was kept, as examples that can be measured; those that activate most come first."""
    generated = Generated.load(schema, written)
    kept = _kept(generated.samples)
    _save(schema, generated, choose(kept, len(kept)), generated.counts.budget, folder)


def _covering(
    schema: Schema[Any], weights: str, budget: int | None, folder: Path, kept: Path, features: Path, missing: Path
) -> None:
    generated, found = Generated.load(schema, kept), MissingFeatures.load(missing)
    lacking = found.missing()
    weight = {
        "binary": np.ones(lacking.sum()),
        "frequency": found.anchor_counts[found.chosen][lacking].astype(np.float64),
        "magnitude": found.anchor_mean[lacking],
    }[weights]
    active = activated(CorpusFeatures.load(features), generated.chosen, found.thresholds, lacking)
    most = len(generated.chosen) if budget is None else budget
    chosen = [generated.chosen[i] for i in covering(active, weight, most)]
    _save(schema, generated, chosen, most, folder)


def activated(
    measured: CorpusFeatures, samples: Sequence[Sample], thresholds: NDArray[np.float32], wanted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of the `wanted` features [n_features] each sample activates in one of its chats: [samples, wanted]."""
    column = np.cumsum(wanted) - 1  # of a wanted feature
    owner = np.repeat(np.arange(len(samples)), [sample.chats for sample in samples])
    found = np.zeros((len(samples), int(wanted.sum())), np.bool_)
    for rows in measured.pooled.chunks():
        at = wanted[rows.indices] & (rows.values > thresholds[rows.indices])
        found[owner[rows.row_of_entry()[at]], column[rows.indices[at]]] = True
    return found


def covering(active: NDArray[np.bool_], weights: NDArray[np.float64], budget: int) -> list[int]:
    """At most `budget` samples whose features weigh most together: rows of `active` [samples, features], in order.

    Greedily (Nemhauser, Wolsey and Fisher 1978), each time the sample that adds most weight; of several, the first.
    When none adds any, all features count as open again for those that are left, until the budget is full.
    """
    left, chosen = np.ones(len(active), np.bool_), []
    open_ones = np.ones(active.shape[1], np.bool_)
    while len(chosen) < min(budget, len(active)):
        gains = np.where(left, active @ (weights * open_ones), -1.0)
        best = int(gains.argmax())
        if gains[best] <= 0 and not open_ones.all():
            open_ones[:] = True
            continue
        chosen.append(best)
        left[best] = False
        open_ones &= ~active[best]
    return chosen


def _kept(samples: Sequence[Sample]) -> list[Sample]:
    kept = [sample for sample in samples if sample.kept]
    if any(sample.feature is None for sample in kept):
        raise FacError(
            "synthesis.per_feature and synthesis.choose select among samples that were written for features, and this "
            "method writes for none: leave them out, or the method."
        )
    return kept


def _save(schema: Schema[Any], generated: Generated, chosen: Sequence[Sample], budget: int, folder: Path) -> None:
    counts = replace(generated.counts, added=len(chosen), budget=budget)
    outcome = Outcome([sample.example for sample in chosen], generated.samples, list(chosen), counts=counts)
    save_outcome(schema, outcome, folder)
