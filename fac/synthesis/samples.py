"""Synthetic samples: a record of each and where it came from, how they are chosen, how many fell out and why."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fac.synthesis.forms import plain

# Why a sample is not kept: what was said (decided when the reply is read), what it repeats, what it activates.
REFUSAL, UNREADABLE, CUT_OFF = "refusal", "unreadable", "cut off"
REPEATED, INACTIVE = "repeats another", "does not activate"
HELD_OUT = "stands in the test"
REASONS = (REFUSAL, UNREADABLE, CUT_OFF, HELD_OUT, REPEATED, INACTIVE)


@dataclass(frozen=True)
class Sample:
    """One written row and its provenance. Nothing that was generated is dropped: see `kept` and `why`."""

    feature: int  # the feature it was written for
    step: int  # 1: from the description alone; 2: from a contrastive pair
    attempt: int
    row: str  # see fac.synthesis.forms; "" if the reply could not be read
    reply: str  # what the model said, unread
    prompt: str  # digest of the prompt template
    model: str  # identity of the writer
    seed: int
    g: float = 0.0  # its own g_i: the largest over the row's chats
    share: float = 0.0  # g_i / anchor maximum of feature i
    span: str = ""  # content tokens up to and with the activating one
    text: str = ""  # the chat of the row that activates its feature most, as text
    chats: int = 1  # of the row: as many rows of the activation matrix
    kept: bool = False
    why: str = ""  # one of REASONS, unless it was kept


def verify(
    samples: Sequence[Sample], cut: Sequence[float], held_out: Callable[[str], bool] = lambda row: False
) -> list[Sample]:
    """Decide which samples are kept: readable, not `held_out` (row), active (g_i > cut[i], after eq. 9) and new.

    A text that differs in case, blanks and punctuation alone is none; of several, the first that is active is kept.
    """
    seen: set[str] = set()
    judged = []
    for sample in samples:
        why = ""
        if not sample.row:
            why = sample.why or UNREADABLE
        elif held_out(sample.row):
            why = HELD_OUT
        elif not sample.g > cut[sample.feature]:
            why = INACTIVE
        elif (text := plain(sample.row)) in seen:
            why = REPEATED
        else:
            seen.add(text)
        judged.append(replace(sample, kept=not why, why=why))
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
        return line + (f"; left out for their answers: {told}" if told else "")


LOST = ("refused", "unreadable", "cut_off", "in_the_test", "repeated", "inactive")  # of Counts, in the order of REASONS


def count(samples: Sequence[Sample]) -> Counts:
    """How many were kept, and how many not for which reason. `samples` are judged."""
    reasons = Counter(sample.why for sample in samples if not sample.kept)
    lost = {name: reasons[why] for name, why in zip(LOST, REASONS, strict=True)}
    return Counts(requested=len(samples), kept=sum(sample.kept for sample in samples), **lost)


def choose(samples: Sequence[Sample], budget: int) -> list[Sample]:
    """At most `budget` kept samples: each feature's best, then each feature's second best, and so on.

    Within a round the samples that activate their feature most (relative to its anchor maximum) come first.
    """
    by_feature: dict[int, list[Sample]] = {}
    for sample in sorted((s for s in samples if s.kept), key=lambda s: (-s.share, s.feature, s.step, s.attempt)):
        by_feature.setdefault(sample.feature, []).append(sample)
    ranked = [(rank, -s.share, s.feature, s) for group in by_feature.values() for rank, s in enumerate(group)]
    return [sample for *_, sample in sorted(ranked, key=lambda entry: entry[:3])][:budget]


def draw(samples: Sequence[Sample], budget: int, seed: int) -> list[Sample]:
    """At most `budget` kept samples in an order drawn by the seed: the released code does not rank them."""
    kept = [sample for sample in samples if sample.kept]
    return random.Random(seed).sample(kept, min(budget, len(kept)))


def write_samples(samples: Iterable[Sample], file: Path) -> None:
    file.write_text("".join(json.dumps(asdict(s)) + "\n" for s in samples))


def load_samples(file: Path) -> list[Sample]:
    return [Sample(**json.loads(line)) for line in file.read_text().splitlines()]
