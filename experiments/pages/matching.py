"""What `experiments.matching` shows: how many features of one model have a counterpart in another, beside chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import table
from fac.coverage import overlap
from fac.data.corpus import Corpus, load_report
from fac.encoder import CorpusFeatures
from fac.errors import FacError
from fac.gap import associated_with
from fac.matching import Match, carry, load_match, mutual
from fac.store import Step

if TYPE_CHECKING:
    from experiments.matching import Options

Bools = NDArray[np.bool_]
COLUMNS = {
    "alive": "features that can be matched",
    "matched": "matched",
    "share": "matched",
    "median_r": "median best r",
    "chance_matched": "matched by chance",
    "chance_r": "median best r by chance",
    "relevant": "relevant",
    "relevant_share": "relevant, matched",
    "agreement": "relevant in both (Jaccard)",
}


@dataclass(frozen=True)
class Steps:
    """What the page is made of."""

    corpus: Step
    features: Mapping[str, Step]  # by model
    matches: Mapping[tuple[str, str], tuple[Step, Step]]  # by two models: matched, and by chance


@dataclass(frozen=True)
class Encoder:
    """One model on the shared texts."""

    name: str
    relevant: Bools | None  # None where the texts have no labels of two classes


@dataclass(frozen=True)
class Pair:
    """Two models matched, and the same with the texts of the second shuffled: what chance gives."""

    a: Encoder
    b: Encoder
    match: Match
    chance: Match

    @property
    def key(self) -> str:
        return f"{self.a.name}>{self.b.name}"

    def turned(self) -> Pair:
        return Pair(self.b, self.a, self.match.turned(), self.chance.turned())


def page(run: RunConfig, fdr: float, say: Callable[[str], None], steps: Steps, results: Results) -> Page:
    """The table with a row for each direction of each pair, and how many features have a counterpart by r."""
    options: Options = run.experiment
    corpus, own = Corpus.load(results.folder(steps.corpus)), "corpus" in run.data
    described = f"{len(corpus)} texts, the anchor corpus of world {run.seeds.data}"
    notes: list[str] = []
    if own:
        report = load_report(results.folder(steps.corpus))
        described, notes = str(report), list(report.notes("shared"))
    given = corpus.labels()
    classes = None if given is None or len(set((given > 0).tolist())) < 2 else given
    encoders = {}
    for name, step in steps.features.items():
        measured = CorpusFeatures.load(results.folder(step))
        if note := measured.note("shared"):
            notes.append(f"{name}: {note}")
            say(notes[-1])
        relevant = None if classes is None else associated_with(measured, classes, fdr, options.min_active)
        encoders[name] = Encoder(name, relevant)
    pairs = [
        matched(
            encoders[a], encoders[b], load_match(results.folder(match)), load_match(results.folder(chance)),
            options.min_active,
        )
        for (a, b), (match, chance) in steps.matches.items()
    ]  # fmt: skip
    kind = labels.kind("own" if own else "lab", {name: run.for_model(name).model.ref for name in encoders})
    main = matching_table(run, pairs, kind, notes)
    return Page(
        title=main.title,
        subtitle="Which features of one model fire on the same texts as a feature of another?",
        tables=[main],
        answer=answer(main),
        facts=[("Texts", described), ("A match", f"each other's best, r ≥ {options.at_least}")],
        figures=[figure(pair) for pair in pairs],
        files={
            "encoders.json": json.dumps({name: step.key for name, step in steps.features.items()}) + "\n",
            "matches.jsonl": "".join(json.dumps(r) + "\n" for p in pairs for r in records(p, options.at_least)),
        },
    )


def matched(a: Encoder, b: Encoder, match: Match, chance: Match, min_active: int) -> Pair:
    """Two models with their match. Raises FacError if no feature can be matched."""
    if np.isnan(match.r_ab).all():
        raise FacError(
            f"{a.name} or {b.name} has no feature that fires in at least {min_active} texts, and differently: "
            f"give more texts, or lower experiment.min_active."
        )
    return Pair(a, b, match, chance)


def records(pair: Pair, at_least: float) -> list[dict[str, object]]:
    """The matched features, the best first."""
    found = mutual(pair.match, at_least)
    r = pair.match.r_ab[found[:, 0]]
    return [
        {pair.a.name: int(found[i, 0]), pair.b.name: int(found[i, 1]), "r": round(float(r[i]), 6)}
        for i in np.argsort(-r, kind="stable")
    ]


def numbers(pair: Pair, at_least: float) -> dict[str, tuple[float, str]]:
    """One row of the table, from the side of `pair.a`: column -> (value, unit)."""
    alive = ~np.isnan(pair.match.r_ab)
    found = mutual(pair.match, at_least)
    row = {
        "alive": (float(alive.sum()), "count"),
        "matched": (float(len(found)), "count"),
        "share": (100 * len(found) / alive.sum(), "percent"),
        "median_r": (float(np.median(pair.match.r_ab[alive])), "correlation"),
        "chance_matched": (float(len(mutual(pair.chance, at_least))), "count"),
        "chance_r": (float(np.median(pair.chance.r_ab[alive])), "correlation"),
    }
    if pair.a.relevant is None or pair.b.relevant is None:
        return row
    relevant = pair.a.relevant & alive
    carried = carry(relevant, pair.match, at_least)
    theirs = carry(pair.b.relevant, pair.match.turned(), at_least)  # as features of a
    row["relevant"] = (float(relevant.sum()), "count")
    if relevant.any():
        row["relevant_share"] = (100 * carried.sum() / relevant.sum(), "percent")
    if carried.any() or theirs.any():
        both = overlap(carry(carried, pair.match.turned(), at_least), theirs)
        row["agreement"] = (100 * both.jaccard, "percent")
    return row


def matching_table(run: RunConfig, pairs: Sequence[Pair], kind: labels.Kind, more: Sequence[str]) -> Table:
    """A row for each direction of each pair."""
    options: Options = run.experiment
    rows = [side for pair in pairs for side in (pair, pair.turned())]
    cells: list[Cell] = [
        observed(side.key, column, value, unit=unit)
        for side in rows
        for column, (value, unit) in numbers(side, options.at_least).items()
    ]
    notes = [
        f"Row A → B: features of A against those of B. Matched: each other's best match, r ≥ {options.at_least} "
        f"(Pearson over texts of the pooled activations); only features that fire in at least {options.min_active} "
        "texts can be.",
        "By chance: the same with the texts of one model shuffled.",
        "Relevant: fires more on texts labelled 1 than on others of their length (statistical judge). In both: of "
        "the matched features that are relevant in A or B, the share that is so in both."
        if any(side.a.relevant is not None for side in rows)
        else "The texts have no labels of two classes, so no feature is relevant.",
    ]
    names = COLUMNS | {side.key: f"{side.a.name} → {side.b.name}" for side in rows}
    title, keys = "Features matched across models", [side.key for side in rows]
    return table(run, "matching", title, keys, list(COLUMNS), cells, names, [*notes, *more], [kind])


def answer(main: Table) -> str:
    """How many of the first model's features the second one has, beside chance."""
    row = main.rows[0]
    shown = {cell.column: cell.shown() for cell in main.cells if cell.row == row}
    a, b = main.name(row).split(" → ")
    return (
        f"{shown['matched']} of {shown['alive']} features of {a} ({shown['share']} %) have a counterpart in {b}; "
        f"by chance {shown['chance_matched']} would."
    )


def figure(pair: Pair) -> Figure:
    """How many features have a counterpart, by what r counts as one."""
    x = np.linspace(0, 1, 41)
    series = []
    for side in (pair, pair.turned()):
        for match, name in ((side.match, ""), (side.chance, ", by chance")):
            r = match.r_ab[~np.isnan(match.r_ab)]
            share = [100 * float((r >= least).mean()) for least in x]
            series.append(Series(f"{side.a.name} → {side.b.name}{name}", x.tolist(), share, dashed=bool(name)))
    caption = "Share of features whose best match, mutual or not, correlates at least so much."
    return Figure(f"Counterparts: {pair.a.name} and {pair.b.name}", "r", "features (%)", series, caption)
