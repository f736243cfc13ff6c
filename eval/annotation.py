"""What people say of the LLM's verdicts on features (paper Table 5): a sheet to rate, and how far two raters agree.

A sheet is a list of `Item`; a rater gives each of them one of LABELS.
"""

from __future__ import annotations

import csv
import io
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from eval.statistics import Interval, interval, resampled
from fac.data.files import file_format, read_rows
from fac.data.source import Malformed, Source
from fac.errors import FacError
from fac.interpret import RELEVANT, Interpretation

RELEVANT_TO_TASK, IRRELEVANT, UNCLEAR = LABELS = ("relevant", "irrelevant", "unclear")
COLUMNS = ("task", "feature", "explanation", "spans", "label")  # of a sheet as CSV
Of = Literal["relevant", "judged"]
"""Which features are drawn from: those that the LLM judged relevant, or all that it judged."""

Place = tuple[str, int]  # task and feature


@dataclass(frozen=True)
class Item:
    """One feature to rate. The LLM's verdict is kept from the rater."""

    task: str
    feature: int
    explanation: str
    spans: tuple[str, ...]  # strongest first
    verdict: str  # the LLM's, on the scale of `fac.interpret`

    @property
    def place(self) -> Place:
        return self.task, self.feature


def drawn(task: str, told: Mapping[int, Interpretation], count: int, of: Of, seed: int) -> list[Item]:
    """At most `count` of the features on which there is a verdict, drawn by `seed` and shuffled."""
    judged = [said for _, said in sorted(told.items()) if said.explanation and said.relevance]
    held = [said for said in judged if of == "judged" or said.relevance in RELEVANT]
    chosen = random.Random(f"{seed}/{task}").sample(held, min(count, len(held)))
    return [Item(task, said.feature, said.explanation, said.spans, said.relevance) for said in chosen]


def sheet_csv(items: Iterable[Item]) -> str:
    """The sheet as CSV; its last column is the rater's to fill."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([item.task, item.feature, item.explanation, "\n".join(item.spans), ""] for item in items)
    return text.getvalue()


def read_ratings(file: Path, items: Sequence[Item]) -> dict[Place, str]:
    """A rater's labels of all items.

    The file is a .csv or .tsv with the columns task, feature and label. Raises FacError, naming the row, for a label
    that is none of LABELS, a feature that is not on the sheet or comes twice, and for items without a label.
    """
    if not file.is_file() or file_format(file) not in (".csv", ".tsv"):
        raise FacError(f"experiment.raters names {file}, which is no CSV file: give the two that raters filled in.")
    asked, found = {item.place for item in items}, {}
    for row in read_rows(Source(file, name="raters", quotes="csv")):
        try:
            if isinstance(row.values, Malformed):
                raise row.values
            place, label = _rated(row.values)
            if place not in asked:
                raise Malformed(f"feature {place[1]} of {place[0]} is not on this sheet; rate the sheet of this run")
            if place in found:
                raise Malformed(f"feature {place[1]} of {place[0]} was rated before; keep one of the two rows")
        except Malformed as reason:
            raise FacError(f"{row.place}: {reason}.") from None
        found[place] = label
    if lacking := [item.place for item in items if item.place not in found]:
        named = ", ".join(f"{task} {feature}" for task, feature in lacking[:5]) + (", …" if len(lacking) > 5 else "")
        raise FacError(f"{file} rates {len(found)} of {len(items)} features; rate also {named}.")
    return found


def _rated(values: Mapping[str, object]) -> tuple[Place, str]:
    for name in ("task", "feature", "label"):
        if not str(values.get(name) or "").strip():
            raise Malformed(f"there is no {name}; a rated sheet has task, feature and label in every row")
    feature, label = str(values["feature"]).strip(), str(values["label"]).strip().lower()
    if not feature.isdecimal():
        raise Malformed(f"the feature {feature!r} is no number; keep the sheet's own")
    if label not in LABELS:
        raise Malformed(f"the label {label!r} is none of {', '.join(LABELS)}")
    return (str(values["task"]).strip(), int(feature)), label


@dataclass(frozen=True)
class Agreement:
    """What two raters say of the same features. Shares are fractions and add up to 1."""

    n: int
    relevant: float  # both say so
    irrelevant: float  # both say so
    unclear: float  # one says so, or the two differ
    differing: float  # the two differ; a part of `unclear`
    kappa: float | None  # Cohen's, over the three labels; None where both give all features one and the same label
    kappa_interval: Interval | None  # 95 %, over resampled features


def agreement(first: Sequence[str], second: Sequence[str], seed: int = 0) -> Agreement:
    """Two raters' labels of the same features, in the same order. Raises ValueError if there are none."""
    if not first or len(first) != len(second):
        raise ValueError("two raters label the same features, of which there is at least one")
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    both = {label: sum(a == b == label for a, b in pairs) / n for label in LABELS}
    kappa, bounds = _kappa(first, second, seed)
    agreed = both[RELEVANT_TO_TASK] + both[IRRELEVANT]
    return Agreement(
        n,
        both[RELEVANT_TO_TASK],
        both[IRRELEVANT],
        1 - agreed,
        1 - agreed - both[UNCLEAR],
        kappa,
        bounds,
    )


def _kappa(first: Sequence[str], second: Sequence[str], seed: int) -> tuple[float | None, Interval | None]:
    """Cohen's kappa with its bootstrap interval; a draw in which all labels are one and the same has none."""
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) == 1:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of draws without kappa
        found = float(cohen_kappa_score(first, second))
        draws = [cohen_kappa_score(first, second, sample_weight=c) for c in resampled([0] * len(first), seed=seed)]
    known = np.asarray(draws, np.float64)
    return found, interval(known[np.isfinite(known)])
