"""What `experiments.subsets` shows: how FAC, and what else a subset is, go with what is learned from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.correlation import Correlated, Points, centred, correlated, partial
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.correlations import COEFFICIENTS, cell
from experiments.harness.experiment import Results
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Cell, observed
from experiments.harness.tables import table
from experiments.steps.subsets import KINDS, load_subsets
from fac.gap import Mining, MissingFeatures
from fac.store import Step

if TYPE_CHECKING:
    from experiments.subsets import Options

TASK = "toxicity"
NUMBERS = {
    "fac": "FAC: missing features covered",
    "plain": "all features covered",
    "distinct_2": "Distinct-2",
    "active": "features that a text activates, mean",
    "length": "tokens of a text, mean",
}
WAYS = {"": "", "within": "within kinds", "partial": "features a text activates held constant"}


def page(run: RunConfig, mining: Mining, found: Step, results: Results) -> Page:
    """r and ρ of every number with AUPRC, how far each varies, and the figure."""
    o: Options = run.experiment
    subsets = load_subsets(results.folder(found))
    missing = MissingFeatures.load(results.folder(mining.wanted))
    kinds: list[labels.Kind] = [labels.kind_of(run, TASK, [run.model.name])]
    cells, rows = [], {}
    for name, title in NUMBERS.items():
        for way, called in WAYS.items():
            if way == "partial" and name == "active":
                continue
            row = f"{name}_{way}" if way else name
            rows[row] = f"{title}, {called}" if called else title
            cells += _cells(subsets, name, way, row, o.draws)
        cells += _spread(subsets, name)
    r, rho = (_found(subsets, "fac", "", which, o.draws) for which in COEFFICIENTS)
    score = [100 * one["auprc"] for one in subsets]
    notes = [
        f"{len(subsets)} subsets of {o.size} texts of the pool, {len(subsets) // len(KINDS)} of each kind, taken from "
        f"half of it: {'; '.join(KINDS.values())}. All have as many texts of each of eight strata of length.",
        "What is learned: AUPRC of a logistic regression (L2, C 1) on the model's last states, trained on the subset "
        "beside the fixed rows and the seed's. It has no seed of training.",
        f"AUPRC from {min(score):.1f} to {max(score):.1f}; {int(missing.missing().sum())} missing features of "
        f"{int(missing.active().sum())} relevant ones at δ = {missing.grid.thresholds[missing.chosen]}.",
        "Within kinds: every number less its mean over the subsets of its kind. A partial correlation is Pearson's.",
    ]
    main = table(
        run, "subsets", f"FAC and what is learned, over subsets of equal size and length, {run.model.name}",
        list(rows), [*COEFFICIENTS, "least", "most"], [made for made in cells if made is not None],
        {**rows, **{name: title for name, (title, _) in COEFFICIENTS.items()}, "least": "from", "most": "to"},
        notes, kinds, aid="In brackets: 95 % percentile interval of a bootstrap over the subsets.",
    )  # fmt: skip
    return Page(
        title=main.title,
        subtitle="The paper correlates FAC with a task over methods; subsets of one pool differ in what they hold.",
        tables=[main],
        facts=[("FAC and AUPRC", f"r {_told(r)}, ρ {_told(rho)}, over {len(subsets)} subsets")],
        figures=[_figure(subsets, name) for name in ("fac", "distinct_2", "active")],
        files={"subsets.json": json.dumps(subsets, indent=1)},
    )


def _told(found: Correlated) -> str:
    ends = f" [{found.interval.low:.2f}, {found.interval.high:.2f}]" if found.interval else ""
    return f"{found.value:.2f}{ends}"


def points(subsets: Sequence[Mapping[str, Any]], name: str, way: str) -> Points:
    """Each subset as a point of its own: `name` as x, AUPRC as y."""
    x, y, given = (np.array([one[key] for one in subsets], np.float64) for key in (name, "auprc", "active"))
    kinds = np.array([one["kind"] for one in subsets])
    if way == "within":
        x, y = centred(x, kinds), centred(y, kinds)
    return Points(x, y, np.zeros(len(x)), np.arange(len(x)), given if way == "partial" else None)


def _found(subsets: Sequence[Mapping[str, Any]], name: str, way: str, which: str, draws: int) -> Correlated:
    coefficient = partial if way == "partial" else COEFFICIENTS[which][1]
    return correlated(points(subsets, name, way), coefficient, draws)


def _cells(subsets: Sequence[Mapping[str, Any]], name: str, way: str, row: str, draws: int) -> list[Cell | None]:
    which = ["pearson"] if way == "partial" else list(COEFFICIENTS)
    return [cell(row, column, _found(subsets, name, way, column, draws)) for column in which]


def _spread(subsets: Sequence[Mapping[str, Any]], name: str) -> list[Cell]:
    values = [one[name] for one in subsets]
    share = name in ("fac", "plain", "distinct_2")
    unit = "percent" if share else "tokens" if name == "length" else "count"
    return [
        observed(name, column, (100 if share else 1) * value, unit=unit)
        for column, value in (("least", min(values)), ("most", max(values)))
    ]


def _figure(subsets: Sequence[Mapping[str, Any]], name: str) -> Figure:
    factor = 100 if name != "active" else 1
    series = []
    for kind, title in KINDS.items():
        held = [one for one in subsets if one["kind"] == kind]
        series.append(
            Series(title, [factor * one[name] for one in held], [100 * one["auprc"] for one in held], line=False)
        )
    return Figure(f"{NUMBERS[name]} and AUPRC", NUMBERS[name], "AUPRC (percent)", series)
