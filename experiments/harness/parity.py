"""Which ways of the released code a run copied: the notes below its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from experiments.harness.config import RunConfig
from experiments.tasks import TASKS

# key -> (is it on?, what it does); {} is the value
QUIRKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "features.rule": (lambda rule: rule == "official", "Top-K off when texts are measured"),
    "features.shift": (lambda shift: shift is not None, "every token from index {} on is content"),
    "features.double_bos": (bool, "two BOS before a measured text"),
    "features.span_end": (lambda end: end == "before", "spans end before the activating token"),
    "interpret.span_tokens": (lambda tokens: tokens == 10, "spans of {} tokens shown"),
    "interpret.verified": (bool, "relevant features need a verified explanation"),
    "interpret.missing": (lambda rule: rule == "annotation", "the seed side judged by annotation"),
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
        for task in TASKS
        if TASKS[task].added_in_paper
    },
}

GROUPS = ("features", "interpret", "synthesis")


def notes(
    run: RunConfig, tasks: Iterable[str], groups: Iterable[str] = GROUPS, with_protocols: bool = True
) -> tuple[str, ...]:
    """One note that names what was on, of a run that works on these tasks and reads these groups; none if none was.

    Not `with_protocols`: the run has others than the tasks' own.
    """
    tasks, groups = tuple(tasks), {*groups, *(("tasks",) if with_protocols else ())}
    read = [key for key in QUIRKS if not key.startswith("tasks.") or key.split(".")[1] in tasks]
    read = [key for key in read if key.split(".")[0] in groups]
    on = [
        f"{says.format(value)} ({key})"
        for key in read
        for is_on, says in [QUIRKS[key]]
        if is_on(value := run.value(key))
    ]
    trained = [run.tasks[task].train for task in tasks]
    if any(getattr(settings, "positions", None) == "all" for settings in trained):
        on.append("steering vectors added at all positions (positions=all)")
    return (f"Ways of the released code that were on: {'; '.join(on)}.",) if on else ()
