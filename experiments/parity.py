"""Which ways of the released code a run copied: the notes below its table.

Knows: the switches of conf/parity and what each does, in words. Does not know: how they do it (fac.features,
fac.pipeline, fac.synthesis).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from omegaconf import DictConfig

from experiments.config import plain
from experiments.tasks.steering import SteeringSettings

# key -> (is it on?, what it does); {} is the value
QUIRKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "features.rule": (lambda rule: rule == "official", "Top-K off when texts are measured"),
    "features.shift": (lambda shift: shift is not None, "every token from index {} on is content"),
    "features.double_bos": (bool, "two BOS before a measured text"),
    "features.span_end": (lambda end: end == "before", "spans end before the activating token"),
    "interpret.span_tokens": (lambda tokens: tokens == 10, "spans of {} tokens shown"),
    "interpret.verified": (bool, "relevant features need a verified explanation"),
    "missing.rule": (lambda rule: rule == "annotation", "the seed side judged by annotation"),
    "synthesis.pair": (lambda pair: pair == "official", "pairs of the best and the second best candidate"),
    "synthesis.summary": (lambda summary: summary == "analysis", "the writer reads the judge's analysis"),
    "synthesis.spans": (lambda spans: spans == 0, "no spans in the step-1 prompt"),
    "synthesis.label_scored": (bool, "queries measured with their label"),
    "synthesis.ratio": (lambda ratio: ratio < 1, "a share of {} of the missing features written for"),
    "synthesis.top_up": (lambda rounds: rounds == 0, "no more requests where a method has fewer rows than its budget"),
    "synthesis.filter": (lambda kept: not kept, "samples neither filtered nor ranked"),
    **{
        f"tasks.{task}.protocol": (
            lambda protocol: protocol == "alone",
            f"{task} trained without the rows of the seed that synthetic ones match",
        )
        for task in ("toxicity", "reward", "sycophancy", "survival")  # instruction following is alone in the paper, too
    },
}


def read_by(tasks: Iterable[str]) -> tuple[str, ...]:
    """The keys of QUIRKS that an experiment on these tasks reads."""
    own = tuple(f"tasks.{task}." for task in tasks)
    return tuple(key for key in QUIRKS if not key.startswith("tasks.") or key.startswith(own))


def notes(cfg: DictConfig, reads: Iterable[str], trained: Iterable[object] = ()) -> tuple[str, ...]:
    """One note that names what was on of the keys that an experiment reads; none if nothing was.

    `reads` are groups or whole keys of QUIRKS; `trained` are the training settings of the run's tasks.
    """
    read = tuple(reads)
    on = [
        f"{says.format(held)} ({key})"
        for key, (is_on, says) in QUIRKS.items()
        if key.startswith(read) and is_on(held := plain(cfg, key))
    ]
    if any(isinstance(settings, SteeringSettings) and settings.positions == "all" for settings in trained):
        on.append("steering vectors added at all positions (positions=all)")
    return (f"Ways of the released code that were on: {'; '.join(on)}.",) if on else ()
