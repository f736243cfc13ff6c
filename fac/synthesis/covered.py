"""How much of what the seed data miss is activated by what a method adds, at every threshold, as a step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fac.corpus_features import CorpusFeatures
from fac.coverage import Fac, counts, covered_missing, fac_ratio, own_counts
from fac.data.schemas import Schema
from fac.gap import Mining, MissingFeatures
from fac.store import Step
from fac.synthesis.generate import Generated
from fac.synthesis.samples import written_for

COVERAGE = "coverage.json"
AT_CHOSEN = "chosen"  # the threshold that synthesis used
WEIGHTS = {"": "binary", "_frequency": "frequency", "_magnitude": "magnitude"}  # ends of names: weights of the features

Shares = dict[str, dict[str, float]]


def coverage(mining: Mining, schema: Schema[Any], added: Step | None, generated: Step | None = None) -> Step:
    """Shares of features at each threshold (`load_coverage`); `added` None: of nothing.

    any: of the missing features, those that any added example activates (what the paper's tables print); own: ... by an
    example written for them; written_any, written_own: ... of all samples of the last step's first round, kept or not;
    ratio: |F(Q)| / |F(P)|, Q the seed data with what is added (the definition, eq. 5). Each also weighted by frequency
    and magnitude on the anchor (Table 11). `generated` is the synthesis behind `added`, if another.
    """
    if added is None:
        return Step("coverage", partial(_measure, schema), {"schema": schema.name}, (mining.missing,))
    inputs = (mining.missing, added, mining.encoder.features(added), generated or added)
    return Step("coverage", partial(_measure, schema), {"schema": schema.name}, inputs)


def load_coverage(folder: Path) -> Mapping[str, Mapping[str, float]]:
    """Shares by threshold ("chosen" is the one that synthesis used) and name."""
    return json.loads((folder / COVERAGE).read_text(encoding="utf-8"))


def _measure(
    schema: Schema[Any],
    folder: Path,
    missing: Path,
    added: Path | None = None,
    features: Path | None = None,
    generated: Path | None = None,
) -> None:
    found = MissingFeatures.load(missing)
    cuts, lacking = found.grid.cuts, found.missing()
    tallies = {"any": np.zeros_like(found.seed_counts)}
    if added is not None and features is not None and generated is not None:
        pooled = CorpusFeatures.load(features).pooled
        tallies["any"] = counts(pooled, cuts)
        chosen = Generated.load(schema, added).chosen
        if chosen and all(sample.feature is not None for sample in chosen):
            tallies["own"] = own_counts(pooled, written_for(chosen), cuts)
        if (written := Generated.load(schema, generated).written(schema)) is not None:
            tallies["written_any"] = counts(written[0], cuts)
            tallies["written_own"] = own_counts(*written, cuts)
    shares: Shares = {}
    for row, threshold in enumerate(found.grid.thresholds):
        at = found.anchor_counts[row]
        held = {name: covered_missing(lacking, tally[row], at, found.anchor_mean) for name, tally in tallies.items()}
        if (found.relevant & (at > 0)).any():
            seen = found.seed_counts[row] + tallies["any"][row]
            held["ratio"] = fac_ratio(at, seen, found.relevant, found.anchor_mean)
        shares[str(threshold)] = _weighted(held)
    shares[AT_CHOSEN] = shares[str(found.grid.thresholds[found.chosen])]
    (folder / COVERAGE).write_text(json.dumps(shares), encoding="utf-8")


def _weighted(shares: Mapping[str, Fac]) -> dict[str, float]:
    return {f"{name}{end}": getattr(share, weight) for name, share in shares.items() for end, weight in WEIGHTS.items()}
