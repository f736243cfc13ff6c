"""What can stand on a report page, as plain records. Every text is shown as it is: the renderer escapes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.harness.results import Table


@dataclass(frozen=True)
class Series:
    """One line (or, with `line=False`, one cloud of points) of a figure. All sequences have one entry per point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()  # with `high`: the band around y, such as a bootstrap interval
    high: Sequence[float] = ()
    labels: Sequence[str] = ()  # written beside the points
    line: bool = True
    dashed: bool = False  # for what was not measured here: the paper's numbers, a control


@dataclass(frozen=True)
class Figure:
    """A chart of one or more series over a common pair of axes, such as coverage by threshold."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    caption: str = ""


@dataclass(frozen=True)
class Span:
    """A stretch of a text around the token where a feature is strongest: `text[start:end]` is that token."""

    text: str
    start: int
    end: int
    value: float  # g_i there


@dataclass(frozen=True)
class Feature:
    """An SAE feature, what it was taken for, and how the corpora stand to it."""

    id: int
    explanation: str
    verdict: str  # do the spans fit the explanation: Yes, Probably, Maybe, No
    relevance: str  # does it matter for the task: Yes, Probably, Maybe, No
    spans: Sequence[Span]
    anchor_count: int  # texts of the anchor corpus that activate it
    seed_count: int  # texts of the seed data that activate it
    covered_own: bool | None = None  # by a sample written for it; None where nothing was written
    covered_any: bool | None = None  # by any sample


@dataclass(frozen=True)
class Sample:
    """A synthetic sample as the filter saw it."""

    feature: int | None  # that it was written for
    step: int
    text: str
    g: float | None  # activation of its own feature
    span: str  # the text around the token where that activation is
    kept: bool
    reason: str = ""  # why it was not kept


@dataclass(frozen=True)
class Page:
    """One report. Parts that are empty are left out of it."""

    title: str
    subtitle: str
    tables: Sequence[Table]
    answer: str = ""  # what was found, in one sentence; empty: what the first table's rows come to
    facts: Sequence[tuple[str, str]] = ()  # (name, value): the answer in a few numbers
    figures: Sequence[Figure] = ()
    truth: Sequence[tuple[str, str]] = ()  # (name, value): against the lab's ground truth
    features: Sequence[Feature] = ()
    samples: Sequence[Sample] = ()
    sample_note: str = ""  # such as a warning about what the samples say
    stage_seconds: Sequence[tuple[str, float]] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # more of the run's folder, by name: their text
    copies: Mapping[str, Path] = field(default_factory=dict)  # ... by place: folders of the store to copy there
    paper: Sequence[str] = ()  # what it makes of the paper, such as "table9" and "figure4"
    warnings: Mapping[str, str] = field(default_factory=dict)  # by task: what to know before its samples are read

    @property
    def labels(self) -> list[str]:
        """What the tables say has to be known before any number is read, each once."""
        return list(dict.fromkeys(told for table in self.tables if (told := table.told())))
