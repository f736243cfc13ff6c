"""What writing for one's own data starts from, and what became of every feature that was missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.chat import as_chat
from fac.coverage import counts, fac_ratio
from fac.data.corpus import Corpus
from fac.data.example_set import EXAMPLES
from fac.data.examples import read_placed
from fac.data.held_out import HeldOut
from fac.data.schemas import TEXT, Query
from fac.data.source import Malformed, Source, lookup
from fac.gap import MissingFeatures
from fac.interpret import Interpretation, load_interpretations
from fac.pooled import Pooled
from fac.store import Step
from fac.synthesis.generate import Generated
from fac.synthesis.samples import CUT_OFF, HELD_OUT, INACTIVE, REFUSAL, REPEATED, UNREADABLE, Sample

# Why a feature is still missing, in the order in which it is looked for.
BUDGET, NEVER, COPIES, REFUSED, UNREAD = (
    "the budget was spent on others",
    "written for, never activated",
    "copied from the anchor, the seed or each other",
    "refused",
    "unreadable",
)


def own_texts(seed: Step, anchor: Step, told: Step) -> Step:
    """The seed's texts as examples, and what no sample may repeat: a text of either corpus, or a span it was shown."""
    return Step("own_texts", _own_texts, {}, (seed, anchor, told))


def _own_texts(folder: Path, seed: Path, anchor: Path, told: Path) -> None:
    corpora = [Corpus.load(place) for place in (seed, anchor)]
    with (folder / EXAMPLES).open("w", encoding="utf-8") as stream:
        stream.writelines(TEXT.line(Query(example.text)) + "\n" for example in corpora[0])
    spans = (span for about in load_interpretations(told).values() for span in about.spans)
    HeldOut.of([*spans, *(example.text for corpus in corpora for example in corpus)]).save(folder)


@dataclass(frozen=True)
class Form:
    """How the seed's rows hold their texts, so that written ones can stand beside them."""

    columns: tuple[str, ...]  # the first holds the text, the others are empty in what is written
    chat: bool = False  # a list of messages

    def row(self, text: str) -> dict[str, Any]:
        """A row with the text."""
        if self.chat:
            return {"messages": as_chat(text)}
        return {column: text if place == 0 else "" for place, column in enumerate(self.columns)}


def form_of(source: Source) -> Form:
    """The form of a data set's first row: messages, or a text in a column of its name (prompt, instruction, text).

    A transcript (HH-RLHF's `chosen`) and a nested column are no form for a single text: that is a prompt.
    """
    first = next(iter(read_placed(source)))
    assert not isinstance(first.row.values, Malformed)
    if isinstance(lookup(first.row.values, first.columns[0]), list):
        return Form(("messages",), chat=True)
    plain = all("." not in column and column not in ("chosen", "rejected", "transcript") for column in first.columns)
    return Form(first.columns if plain else ("prompt",))


@dataclass(frozen=True)
class Covered:
    """Coverage at one threshold, before and after."""

    active: int  # features F that the anchor activates
    missing: int  # of these, not active in the seed
    left: int  # of these, not active in what was added either
    before: float  # |F(Q)| / |F(P)|, Q the seed
    after: float  # ... Q the seed and what was added


def covered(found: MissingFeatures, added: Pooled, relevant: NDArray[np.bool_] | None = None) -> list[Covered | None]:
    """Coverage at every threshold; None where no feature of F is active on the anchor. F: `relevant`, or what is known.

    F(Q) is counted among the features of F(P), so that nothing exceeds one.
    """
    wanted = found.relevant if relevant is None else relevant
    tally = counts(added, found.grid.cuts)
    told: list[Covered | None] = []
    for row in range(len(found.grid.thresholds)):
        active = wanted & (found.anchor_counts[row] > 0)
        if not active.any():
            told.append(None)
            continue
        seen, more = found.seed_counts[row], tally[row]
        shares = [fac_ratio(found.anchor_counts[row], q, active, found.anchor_mean).binary for q in (seen, seen + more)]
        lacking = active & (seen == 0)
        told.append(Covered(int(active.sum()), int(lacking.sum()), int((lacking & (more == 0)).sum()), *shares))
    return told


def still_missing(
    found: MissingFeatures, wanted: MissingFeatures, added: Pooled, generated: Generated
) -> dict[int, str]:
    """Why each relevant feature that nothing added activates is still missing, at the threshold that is used."""
    active = counts(added, found.grid.cuts[found.chosen : found.chosen + 1])[0] > 0
    by_feature: dict[int, list[Sample]] = {}
    for sample in generated.samples:
        if sample.feature is not None:
            by_feature.setdefault(sample.feature, []).append(sample)
    left = np.flatnonzero(found.missing() & ~active).tolist()
    return {feature: why_left(by_feature.get(feature, ()), bool(wanted.relevant[feature])) for feature in left}


def why_left(samples: Sequence[Sample], written_for: bool) -> str:
    """What stood in the way of the sample that came furthest."""
    reasons = {sample.rejected_because for sample in samples if not sample.kept}
    if not written_for or any(sample.kept for sample in samples):
        return BUDGET
    if INACTIVE in reasons:
        return NEVER
    if reasons & {HELD_OUT, REPEATED}:
        return COPIES
    return REFUSED if REFUSAL in reasons else UNREAD


def rows_of(
    generated: Generated, told: Mapping[int, Interpretation], form: Form, label: int | str | None
) -> list[dict[str, Any]]:
    """What was added, a row each: the text as the seed has it, its label if one is wanted, and where it came from."""
    rows = []
    for sample in generated.chosen:
        row = form.row(sample.example.text if sample.example else "")
        row |= {} if label is None else {"label": label}
        rows.append({**row, **_origin(sample, told)})
    return rows


def rejected(generated: Generated, told: Mapping[int, Interpretation]) -> list[dict[str, Any]]:
    """Every other sample of the last step, with what was said and why it was not added."""
    chosen = {(sample.feature, sample.step, sample.attempt) for sample in generated.chosen}
    left = [s for s in generated.samples if (s.feature, s.step, s.attempt) not in chosen]
    return [{"why": reason(s), "reply": s.reply, "text": s.text, **_origin(s, told)} for s in left]


def reason(sample: Sample) -> str:
    """Why a sample was not added, in words that fit one's own data."""
    return {HELD_OUT: "copies a text or span", UNREADABLE: UNREAD, CUT_OFF: "cut off"}.get(
        sample.rejected_because, sample.rejected_because or "over the budget"
    )


def _origin(sample: Sample, told: Mapping[int, Interpretation]) -> dict[str, Any]:
    about = told.get(sample.feature) if sample.feature is not None else None
    return {
        "feature": sample.feature,
        "explanation": about.explanation if about else "",
        "span": sample.span,
        "activation": sample.activation,
        "relative_activation": sample.relative_activation,
        "step": sample.step,
        "attempt": sample.attempt,
        "writer": sample.model,
        "prompt_digest": sample.prompt,
        "request_seed": sample.seed,
    }


def jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
