"""What `experiments.fill` shows and leaves: coverage before and after, what is still missing, a data set and card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.report import Figure, Page, Series
from experiments.harness.report import Sample as Shown
from experiments.harness.report.parts import SAMPLES_SHOWN, missing_features
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import table
from experiments.pages.data_card import CARD, card
from experiments.pages.select import asked_notes
from experiments.steps.fill import Covered, covered, form_of, jsonl, reason, rejected, rows_of, still_missing
from experiments.steps.own_data import is_harmful, title_of
from fac.corpus_features import CorpusFeatures
from fac.data.corpus import load_report
from fac.data.examples import LoadReport, left_out
from fac.data.schemas import TEXT
from fac.gap import MissingFeatures
from fac.interpret import Interpretation, load_interpretations
from fac.own_gap import OwnGap
from fac.pooled import Pooled
from fac.store import Step
from fac.synthesis.generate import Generated
from fac.synthesis.methods import METHODS
from fac.synthesis.samples import Counts

SAMPLES, REJECTED, LEFT, DATA = "samples.jsonl", "rejected.jsonl", "features_left.json", "dataset"
WARNING = (
    "These texts are harmful requests or may be, written by a model to train detectors of them and the like: they are "
    "not for use, and a label says what a text was written for, not what it is."
)
COLUMNS = {
    "active": "active on the anchor",
    "missing": "missing before",
    "left": "missing after",
    "share": "of the missing, covered",
    "before": "FAC before",
    "after": "FAC after",
}
COUNTED = {  # of `Counts`, as they are told of one's own data
    "candidates": "first step: samples asked for",
    "refused_candidates": "first step: refused",
    "one_sided": "features without a pair to contrast",
    "requested": "last step: samples asked for",
    "refused": "refused",
    "unreadable": "unreadable",
    "cut_off": "cut off",
    "in_the_test": "copies of a text of the anchor or seed, or of a span",
    "scaffold": "tell of the prompt in place of what it asks for",
    "repeated": "repeats of another sample",
    "inactive": "do not activate their feature",
    "kept": "kept",
    "added": "in the data set",
}


@dataclass(frozen=True)
class Steps:
    """What the page is made of."""

    gap: OwnGap
    written: Step
    added: Step  # of what was written, what is in the data set
    features: Step  # ... measured


@dataclass(frozen=True)
class Found:
    """What was missing, what was written, and what that activates."""

    known: MissingFeatures  # F: all that is known to be relevant
    wanted: MissingFeatures  # F: what was written for
    told: Mapping[int, Interpretation]
    generated: Generated
    added: Pooled
    why: Mapping[int, str]  # features that are still missing

    @classmethod
    def load(cls, steps: Steps, results: Results) -> Found:
        known, wanted = (MissingFeatures.load(results.folder(step)) for step in (steps.gap.known, steps.gap.wanted))
        assert steps.gap.told is not None
        told = load_interpretations(results.folder(steps.gap.told))
        generated = Generated.load(TEXT, results.folder(steps.added))
        added = CorpusFeatures.load(results.folder(steps.features)).pooled
        return cls(known, wanted, told, generated, added, still_missing(known, wanted, added, generated))

    @property
    def counts(self) -> Counts:
        return self.generated.counts

    @property
    def line(self) -> str:
        """What was asked for and what became of it, in a line; what is held out here are the user's own texts."""
        return str(self.counts).replace("in the test", "copies")

    def coverage(self, everything: bool = False) -> dict[str, Covered | None]:
        """By threshold, of F or of all features."""
        relevant = self.known.relevant | True if everything else None
        return dict(zip(map(str, self.known.grid.thresholds), covered(self.known, self.added, relevant), strict=True))

    @property
    def chosen(self) -> Covered:
        """At the threshold that was written for."""
        found = self.coverage()[str(self.known.grid.thresholds[self.known.chosen])]
        assert found is not None
        return found


def page(run: RunConfig, say: Callable[[str], None], steps: Steps, licence: str, results: Results) -> Page:
    """Coverage before and after, what is still missing and why, and the data set itself."""
    gap, found = steps.gap, Found.load(steps, results)
    reports = {r: load_report(results.folder(s)) for r, s in (("anchor", gap.anchor), ("seed", gap.seed))}
    anchor = CorpusFeatures.load(results.folder(gap.anchor_features))
    notes = [*left_out(reports), *(n for n in [anchor.note("anchor")] if n), *asked_notes(run.experiment, found.told)]
    tables = [coverage_table(run, found, notes)]
    if run.experiment.relevance != "all":
        tables.append(coverage_table(run, found, [], everything=True))
    tables += [left_table(run, found), counts_table(run, found)]
    for line in [*(f"{role}: {report}" for role, report in reports.items()), found.line]:
        say(line)
    rows = rows_of(found.generated, found.told, form_of(run.data["seed"]), run.experiment.label)
    harmful = is_harmful(run.experiment.task)
    return Page(
        title=f"What {run.data['seed'].title} misses, written",
        subtitle=f"For features of {run.data['anchor'].title} that the seed does not activate: "
        f"{run.experiment.task.description or 'texts like these'}.",
        tables=tables,
        answer=answer(found),
        facts=facts(found, reports),
        figures=before_and_after(found),
        features=missing_features(found.wanted, found.told, anchor, found.generated, TEXT),
        samples=shown_samples(found.generated),
        sample_note=WARNING if harmful else "",
        files={
            SAMPLES: jsonl(rows),
            REJECTED: jsonl(rejected(found.generated, found.told)),
            LEFT: json.dumps(left_file(found), indent=1, ensure_ascii=False) + "\n",
            f"{DATA}/data.jsonl": jsonl(rows),
            f"{DATA}/{CARD}": data_card(run, steps, found, reports, tables[:-1], rows, licence),
        },
    )


def coverage_table(run: RunConfig, found: Found, more: Sequence[str], everything: bool = False) -> Table:
    """Coverage by threshold, before and after what was written."""
    cells: list[Cell] = []
    told = found.coverage(everything)
    for row, one in told.items():
        if one is None:
            continue
        counts = {"active": one.active, "missing": one.missing, "left": one.left}
        cells += [observed(row, name, value, unit="count") for name, value in counts.items()]
        shares = {"before": one.before, "after": one.after}
        if one.missing:
            shares["share"] = 1 - one.left / one.missing
        cells += [observed(row, name, 100 * value, unit="percent") for name, value in shares.items()]
    name, of = ("coverage_of_all", "of all features, relevant or not") if everything else ("fill", "of what matters")
    notes = ["FAC = |F(Q)| / |F(P)|: P the anchor, Q the seed before, the seed with what was written after."]
    if not everything:
        notes += [at_chosen(found), *what_is_known(run, found), *budget_notes(run, found)]
        notes += [METHODS[run.experiment.method].note, run.llms.note(run.model.ref), *more]
    title = f"Coverage {of}, before and after, {title_of(run)}"
    return table(run, name, title, list(told), list(COLUMNS), cells, COLUMNS, notes, [labels.own(run)])


def at_chosen(found: Found) -> str:
    """Which row is the one that was written for."""
    return f"Texts were written for what is missing at δ = {found.known.grid.thresholds[found.known.chosen]}."


def what_is_known(run: RunConfig, found: Found) -> list[str]:
    """What F is, where it is not known of every feature."""
    if run.experiment.relevance != "llm":
        return []
    return [
        f"F: the {int(found.known.relevant.sum()):,} features held for relevant of the {len(found.told):,} missing "
        f"ones that the annotator was asked about, those first that most anchor texts activate (experiment.features). "
        f"What the seed has at that threshold was not asked about, so FAC is 0 before."
    ]


def budget_notes(run: RunConfig, found: Found) -> list[str]:
    """What was not reached."""
    budget, wanted = run.experiment.budget, int(found.wanted.missing().sum())
    notes = [f"Written for {wanted:,} missing features."]
    if found.counts.added < budget:
        notes.append(
            f"The budget is {budget:,} texts; {found.counts.added:,} could be kept, after {found.counts.rounds} more "
            f"rounds of requests: raise synthesis.top_up or synthesis.m for more."
        )
    return notes


def left_table(run: RunConfig, found: Found) -> Table:
    """Why features are still missing."""
    tally = Counter(found.why.values())
    cells = [observed(why, "features", count, unit="count") for why, count in tally.most_common()]
    covered = found.chosen.missing - found.chosen.left
    cells.append(observed("covered now", "features", covered, unit="count"))
    notes = [f"Of the {found.chosen.missing:,} missing features that matter; each by name in {LEFT}."]
    rows = [*(why for why, _ in tally.most_common()), "covered now"]
    names = {"features": "missing features"}
    title = "What is still missing, and why"
    return table(run, "still_missing", title, rows, ["features"], cells, names, notes, [labels.own(run)])


def counts_table(run: RunConfig, found: Found) -> Table:
    """What was asked for, and what became of it."""
    cells = [observed(name, "samples", getattr(found.counts, name), unit="count") for name in COUNTED]
    title = "What was asked for, and what became of it"
    names = {**COUNTED, "samples": "number"}
    kinds: list[labels.Kind] = [labels.own(run)]
    return table(run, "samples", title, list(COUNTED), ["samples"], cells, names, [found.line], kinds)


def answer(found: Found) -> str:
    """What was reached, in a sentence."""
    at = found.chosen
    return (
        f"{found.counts.added:,} texts were written that activate {at.missing - at.left:,} of the {at.missing:,} "
        f"missing features that matter; {at.left:,} are still missing."
    )


def facts(found: Found, reports: Mapping[str, LoadReport]) -> list[tuple[str, str]]:
    """The answer in a few numbers."""
    at = found.chosen
    return [
        *((role.capitalize(), str(report)) for role, report in reports.items()),
        ("Threshold used", str(found.known.grid.thresholds[found.known.chosen])),
        ("Missing before, after", f"{at.missing:,}, {at.left:,}"),
        ("FAC before, after", f"{100 * at.before:.1f} %, {100 * at.after:.1f} %"),
        ("Texts in the data set", f"{found.counts.added:,}"),
    ]


def before_and_after(found: Found) -> list[Figure]:
    """FAC over absolute thresholds, and over relative ones."""
    figures, told = [], list(found.coverage().values())
    for relative, label in ((False, "δ, absolute"), (True, "δ as a share of the feature's anchor maximum")):
        held = [
            (threshold.value, one)
            for threshold, one in zip(found.known.grid.thresholds, told, strict=True)
            if threshold.relative == relative and one is not None
        ]
        if held:
            x = [value for value, _ in held]
            lines = [
                Series("seed", x, [100 * one.before for _, one in held], dashed=True),
                Series("seed and what was written", x, [100 * one.after for _, one in held]),
            ]
            figures.append(Figure("Coverage by threshold", label, "FAC (%)", lines))
    return figures


def shown_samples(generated: Generated) -> list[Shown]:
    """Some of the data set, and some that are not in it."""
    kept = [Shown(s.feature, s.step, s.text, s.activation, s.span, True) for s in generated.chosen]
    dropped = [
        Shown(s.feature, s.step, s.text or s.reply, s.activation, s.span, False, reason(s))
        for s in generated.samples
        if not s.kept
    ]
    return [*kept[: SAMPLES_SHOWN // 2], *dropped[: SAMPLES_SHOWN // 2]]


def left_file(found: Found) -> list[dict[str, Any]]:
    """Every feature that is still missing, those first that most anchor texts activate."""
    often = found.known.anchor_counts[found.known.chosen]
    ranked = sorted(found.why, key=lambda feature: (-int(often[feature]), feature))
    return [
        {
            "feature": feature,
            "why": found.why[feature],
            "explanation": found.told[feature].explanation if feature in found.told else "",
            "anchor_texts": int(often[feature]),
        }
        for feature in ranked
    ]


def data_card(
    run: RunConfig,
    steps: Steps,
    found: Found,
    reports: Mapping[str, LoadReport],
    tables: Sequence[Table],
    rows: Sequence[Mapping[str, Any]],
    licence: str,
) -> str:
    """The card of the data set."""
    encoder = steps.gap.encoder
    made_with = {
        "Features": f"{run.model.name}, {encoder.model.identity()}, layer {encoder.layer}, SAE {encoder.sae}, "
        f"Top-K rule `{encoder.settings.rule}`",
        "Language models": run.llms.note(run.model.ref),
        "Written": f"method `{run.experiment.method}`, temperature {run.writing(1).temperature:g}, seed "
        f"{run.seeds.generation}",
        "Relevance": asked_notes(run.experiment, found.told)[0],
        "Threshold": at_chosen(found),
    }
    return card(run, made_with, reports, tables, rows, found.counts, COUNTED, found.chosen, WARNING, licence)
