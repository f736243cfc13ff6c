"""Synthetic samples: a record of each and where it came from, how they are chosen, how many fell out and why."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.data.held_out import HeldOut
from fac.data.schemas import Schema

# Why a sample is not kept: what was said (decided when the reply is read), what it repeats, what it activates.
REFUSAL, UNREADABLE, CUT_OFF = "refusal", "unreadable", "cut off"
REPEATED, INACTIVE = "repeats another", "does not activate"
HELD_OUT = "stands in the test"
# ... and by the filters that a method has of its own:
SIMILAR, NO_GAIN, SCAFFOLD, UNFIT = "too like another", "no gain", "repeats its prompt", "fails its check"
REASONS = (REFUSAL, UNREADABLE, CUT_OFF, HELD_OUT, REPEATED, INACTIVE, SIMILAR, NO_GAIN, SCAFFOLD, UNFIT)


@dataclass(frozen=True)
class Sample:
    """One written example and its provenance. Nothing that was generated is dropped: see `kept`, `rejected_because`.

    A sample that was written for no feature has no activation of it: both are None then, and `span` is empty.
    """

    feature: int | None  # the feature it was written for
    step: int  # 1, or 2: from a contrastive pair of step 1
    attempt: int
    example: Any | None  # of the task's schema (`fac.data.schemas`); None if the reply could not be read
    reply: str  # what the model said, unread
    prompt: str  # digest of the rendered prompt
    model: str  # identity of the writer
    seed: int
    activation: float | None = 0.0  # g_i of its own feature i: the largest over the example's chats
    relative_activation: float | None = 0.0  # g_i / anchor maximum of feature i
    span: str = ""  # content tokens up to and with the activating one
    text: str = ""  # the chat of the example that activates its feature most (for no feature: the first), as text
    cluster: int | None = None  # of embeddings that it was written for, in the place of a feature
    chats: int = 1  # of the example: as many rows of the activation matrix
    kept: bool = False
    rejected_because: str = ""  # one of REASONS, unless it was kept

    def is_active(self, threshold: float) -> bool:
        """Whether it activates its feature: g_i > δ. Raises ValueError if it was written for none."""
        if self.activation is None:
            raise ValueError("a sample that was written for no feature activates none of its own")
        return self.activation > threshold


def written_for(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """The feature of each chat of the samples, in order. Raises ValueError if one was written for none."""
    if any(sample.feature is None for sample in samples):
        raise ValueError("samples that were written for no feature have no coverage of their own")
    return np.repeat(np.array([s.feature for s in samples], np.int64), [s.chats for s in samples])


def verify(
    schema: Schema[Any], samples: Sequence[Sample], thresholds: Sequence[float], held_out: HeldOut | None = None
) -> list[Sample]:
    """Decide which samples are kept: readable, asking nothing `held_out`, active (g_i > δ_i, after eq. 9) and new.

    `thresholds` are δ by feature; a sample for no feature need not be active. A text that differs in case, blanks and
    punctuation alone is not new; of several, the first that is active is kept.
    """
    held_out = held_out or HeldOut()
    seen: set[str] = set()
    judged = []
    for sample in samples:
        reason = ""
        if sample.example is None:
            reason = sample.rejected_because or UNREADABLE
        elif schema.asked(sample.example) in held_out:
            reason = HELD_OUT
        elif sample.feature is not None and not sample.is_active(thresholds[sample.feature]):
            reason = INACTIVE
        elif (text := schema.plain(sample.example)) in seen:
            reason = REPEATED
        else:
            seen.add(text)
        judged.append(replace(sample, kept=not reason, rejected_because=reason))
    return judged


@dataclass(frozen=True)
class Counts:
    """What a method asked for, and what became of it: `requested` is the sum of all up to `kept`."""

    requested: int = 0  # samples that could be added: those of the last step
    refused: int = 0
    unreadable: int = 0
    cut_off: int = 0
    in_the_test: int = 0  # a text of the test, the validation set or AlpacaEval
    repeated: int = 0
    inactive: int = 0
    kept: int = 0
    added: int = 0  # of those that were kept, as many as the budget has
    budget: int = 0
    candidates: int = 0  # requests of step 1, from which pairs were made
    refused_candidates: int = 0
    one_sided: int = 0  # features without a second text to contrast with
    rounds: int = 0  # rounds of further requests
    answers_refused: int = 0  # of written instructions, which are not added without an answer
    answers_cut_off: int = 0
    answers_empty: int = 0
    # What records from before these were counted do not have:
    similar: int = 0  # by ROUGE-L to a seed or to what is kept already
    no_gain: int = 0  # over what it was made from
    scaffold: int = 0  # words of its prompt
    unfit: int = 0  # by the method's own check: judgements or votes of the writer
    judged: int = 0  # pairs of answers that the writer ranked in both orders
    agreed: int = 0  # ... with the same verdict
    requests: int = 0  # all that were made of the writer for it; 0: not counted
    prompt_tokens: int = 0  # of all requests
    reply_tokens: int = 0
    refused_requests: int = 0  # of those that are no samples

    def __str__(self) -> str:
        """One line: "312 of 428 samples kept (refused 12.1 %, ...), 200 of 200 added; ..."."""
        lost = {name.replace("_", " "): getattr(self, name) for name in LOST}
        shares = ", ".join(f"{name} {100 * n / self.requested:.1f} %" for name, n in lost.items() if n)
        line = f"{self.kept} of {self.requested} samples kept{f' ({shares})' if shares else ''}"
        line += f", {self.added} of {self.budget} added"
        if self.rounds:
            line += f", after {self.rounds} more round{'s' if self.rounds > 1 else ''} of requests"
        if self.candidates:
            line += f"; {self.candidates} candidates before, {self.refused_candidates} refused"
        if self.one_sided:
            line += f"; {self.one_sided} features without a contrast"
        answers = {name: getattr(self, f"answers_{name.replace(' ', '_')}") for name in ("refused", "cut off", "empty")}
        told = ", ".join(f"{n} {name}" for name, n in answers.items() if n)
        line += f"; left out for their answers: {told}" if told else ""
        if self.judged:
            share = 100 * self.agreed / self.judged
            line += f"; of {self.judged} pairs of answers {share:.1f} % ranked alike in both orders"
        if self.requests:
            line += f"; {self.requests:,} requests"
            line += (
                f" ({self.refused_requests:,} of those that are no samples refused)" if self.refused_requests else ""
            )
            line += f" of {self.prompt_tokens:,} tokens, answered with {self.reply_tokens:,}"
        return line


LOST = (  # of Counts, in the order of REASONS
    "refused", "unreadable", "cut_off", "in_the_test", "repeated", "inactive",
    "similar", "no_gain", "scaffold", "unfit",
)  # fmt: skip


def count(samples: Sequence[Sample]) -> Counts:
    """How many were kept, and how many not for which reason. `samples` are judged."""
    reasons = Counter(sample.rejected_because for sample in samples if not sample.kept)
    lost = {name: reasons[reason] for name, reason in zip(LOST, REASONS, strict=True)}
    return Counts(requested=len(samples), kept=sum(sample.kept for sample in samples), **lost)


def choose(samples: Sequence[Sample], budget: int) -> list[Sample]:
    """At most `budget` kept samples: each feature's best, then each feature's second best, and so on.

    Within a round the samples that activate their feature most (relative to its anchor maximum) come first. What was
    written for no feature follows, in the order in which it was asked for.
    """
    kept = sorted((s for s in samples if s.kept), key=lambda s: (_strength(s), s.feature or 0, s.step, s.attempt))
    of_none = [sample for sample in kept if sample.feature is None]
    by_feature: dict[int, list[Sample]] = {}
    for sample in kept:
        if sample.feature is not None:
            by_feature.setdefault(sample.feature, []).append(sample)
    ranked = [(rank, _strength(s), feature, s) for feature, group in by_feature.items() for rank, s in enumerate(group)]
    best_first = [sample for *_, sample in sorted(ranked, key=lambda entry: entry[:3])]
    return [*best_first, *of_none][:budget]


def _strength(sample: Sample) -> float:
    """The smaller, the stronger; alike for all that were written for no feature."""
    return 0.0 if sample.relative_activation is None else -sample.relative_activation


def draw(samples: Sequence[Sample], budget: int, seed: int) -> list[Sample]:
    """At most `budget` kept samples in an order drawn by the seed: the released code does not rank them."""
    kept = [sample for sample in samples if sample.kept]
    return random.Random(seed).sample(kept, min(budget, len(kept)))


def write_samples(schema: Schema[Any], samples: Iterable[Sample], file: Path) -> None:
    """One sample a line, its example as the schema's JSON value."""
    with file.open("w") as stream:
        for sample in samples:
            values = {field.name: getattr(sample, field.name) for field in fields(sample)}
            example = None if sample.example is None else schema.dump(sample.example)
            stream.write(json.dumps({**values, "example": example}) + "\n")


def load_samples(schema: Schema[Any], file: Path) -> list[Sample]:
    """What `write_samples` wrote."""
    values = map(json.loads, file.read_text().splitlines())
    return [
        Sample(**{**value, "example": None if value["example"] is None else schema.load(value["example"])})
        for value in values
    ]
