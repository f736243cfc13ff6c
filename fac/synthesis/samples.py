"""Synthetic samples: one record each, with all about where it came from, and how samples are chosen.

Knows: the record, ranking. Does not know: reply formats (`fac.synthesis.forms`), prompts, models, where activations
come from.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path


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
    why: str = ""  # why it was not kept


def verify(samples: Sequence[Sample], cut: Sequence[float]) -> list[Sample]:
    """Decide which samples are kept: readable, new, and g_i > cut[i] (the filter after eq. 9)."""
    seen: set[str] = set()
    judged = []
    for sample in samples:
        why = ""
        if not sample.row:
            why = "unreadable reply"
        elif not sample.g > cut[sample.feature]:
            why = f"g {sample.g:.3g} does not exceed {cut[sample.feature]:.3g}"
        elif sample.row in seen:
            why = "repeats another sample"
        else:
            seen.add(sample.row)
        judged.append(replace(sample, kept=not why, why=why))
    return judged


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
