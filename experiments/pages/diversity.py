"""What `experiments.diversity` shows: every metric by method, and how each goes with the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.correlation import correlated, partial, pearson, spearman
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.correlations import (
    READINGS,
    UNCERTAIN,
    Point,
    cell,
    coverage_of,
    pairs,
    points_of,
    scatter,
    told,
)
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell, Table, measured
from experiments.harness.tables import TITLES, place, table, task_notes
from fac.corpus_features import CorpusFeatures
from fac.diversity import lacking
from fac.diversity.equal_length import covered_at_length
from fac.diversity.metrics import METRICS
from fac.diversity.sample import Sampled, load_sampled
from fac.gap import MissingFeatures
from fac.store import Step

if TYPE_CHECKING:
    from experiments.diversity import Options

SCORE, EQUAL_LENGTH, LENGTH = "score", "equal_length", "mean_length"
COVERAGE = {
    **READINGS,
    "any_frequency": "FAC of missing, by frequency on the anchor",
    "any_magnitude": "FAC of missing, by mean activation on the anchor",
    "ratio_frequency": "FAC ratio, by frequency",
    "ratio_magnitude": "FAC ratio, by mean activation",
    EQUAL_LENGTH: "FAC of missing, at equal length",
}
PAPER = {"any": "fac"}  # names of rows of Figure 9 that are others there
Place = tuple[int, str, int]  # world, method and generation
Draws = dict[Place, dict[str, NDArray[np.float64]]]  # of each metric, [draws]


@dataclass(frozen=True)
class Measured:
    """What the page is made of."""

    points: Sequence[Point]  # with every metric as a mean over draws
    draws: Draws
    sizes: Mapping[Place, Sampled]
    tokens: int  # of a draw at equal length; 0: nothing was added


def page(run: RunConfig, steps: Mapping[Place, Step], results: Results) -> Page:
    """The table of metrics by method, that of correlations, and the points of FAC and the score."""
    o: Options = run.experiment
    task = run.task(o.task)
    found = _measured(run, steps, results)
    kind = labels.kind_of(run, o.task, [run.model.name])
    compared, left_out = comparable(found.points)
    headline = [correlated(pairs(compared, "any"), of, o.bootstrap) for of in (pearson, spearman)]
    by_method = _by_method(run, results, found, kind)
    figure = scatter(
        compared,
        "any",
        f"FAC and {task.metric_title}",
        "FAC of missing (percent)",
        f"{task.metric_title} ({task.unit})",
        told(*headline),
    )
    return Page(
        title=by_method.title,
        subtitle="Figure 9 of the paper: which measure of diversity tells what a method's data teach?",
        tables=[by_method, _correlations(run, compared, left_out, kind)],
        facts=[("FAC and the score", told(*headline))],
        figures=[figure] if compared else [],
    )


def comparable(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """The points that have every diversity metric that any has, over which all are correlated; and the others."""
    wanted = {name for point in points for name in point.numbers if name in METRICS}
    whole = [point for point in points if wanted and wanted <= point.numbers.keys()]
    return whole, [point for point in points if point not in whole]


def _measured(run: RunConfig, steps: Mapping[Place, Step], results: Results) -> Measured:
    """Everything by point; coverage at equal length is read from what was measured of the added rows."""
    o: Options = run.experiment
    sizes = {at: load_sampled(results.folder(step)) for at, step in steps.items()}
    draws: Draws = {at: {name: np.array(of) for name, of in found.draws.items()} for at, found in sizes.items()}
    adding: dict[Place, tuple[CorpusFeatures, MissingFeatures]] = {}
    for trial, of in results.trials.items():
        if of.added is not None and of.mining is not None:
            features = results.folder(of.mining.encoder.features(of.added))
            there = CorpusFeatures.load(features), MissingFeatures.load(results.folder(of.mining.missing))
            adding.setdefault((trial.data_seed, trial.method, trial.generation), there)
    tokens = min((int(measured.lengths.sum()) for measured, _ in adding.values()), default=0)
    for at, (measured_, missing) in adding.items():
        args = measured_.pooled, measured_.lengths, missing.thresholds, missing.missing(), tokens, o.draws
        draws.setdefault(at, {})[EQUAL_LENGTH] = 100 * covered_at_length(*args)
    for at in draws.keys() - adding.keys():
        draws[at][EQUAL_LENGTH] = np.zeros(o.draws)  # the seed data cover nothing of what they miss

    def numbers(record: Any) -> dict[str, float]:
        at = (record.trial.data_seed, record.trial.method, record.trial.generation)
        means = {name: float(of.mean()) for name, of in draws.get(at, {}).items()}
        return {name: share for name, share in coverage_of(record).items() if name in COVERAGE} | means

    return Measured(points_of(results.records, run.task(o.task), numbers), draws, sizes, tokens)


def _by_method(run: RunConfig, results: Results, found: Measured, kind: labels.Kind) -> Table:
    """Rows: methods; columns: the score, FAC and every metric, with the spread over worlds or generations."""
    o: Options = run.experiment
    task, at = run.task(o.task), place(run, [o.task])
    names = {SCORE: f"{task.title} {task.metric_title}", **COVERAGE}
    names |= {name: metric.heading for name, metric in METRICS.items()}
    cells = [
        made for method in o.methods for name in names if (made := _cell(found, method, name, task.unit)) is not None
    ]
    sizes = list(found.sizes.values())
    few = _few(found.sizes)
    notes = [
        f"Of what a method adds; of Baseline, which adds nothing, of the seed data. Means over {o.draws} draws of "
        f"{sizes[0].of_texts} texts; of metrics of words, over draws of as many words as {sizes[0].of_texts} texts of "
        f"the anchor have ({', '.join(sorted({f'{size.of_words:,}' for size in sizes}))})."
        if sizes
        else "",
        f"FAC at equal length: of {o.draws} random parts of {found.tokens:,} tokens, as many as the shortest set has.",
        "Embeddings: mean residuals of content tokens at the layer that features are read from, less the anchor's.",
        f"Less is more diverse: {', '.join(m.title for m in METRICS.values() if m.higher_is_diverse is False)}.",
        f"Too few texts or words for some metrics: {few}." if few else "",
        lacking(),
        f"Sources: {_sources()}.",
        *task_notes(run, results.records, [o.task]),
    ]
    spread = f"{at}s" if len(o.worlds) > 1 else "generations"
    aid = f"Mean ± sample standard deviation over {spread}; in brackets the middle 95 % of the draws."
    title = f"Diversity of what methods add, {task.title.lower()}, {run.model.name}"
    return table(run, "diversity", title, o.methods, list(names), cells, names, notes, [kind], aid=aid)


def _cell(found: Measured, method: str, name: str, unit: str) -> Cell | None:
    """A method's mean over worlds, each a mean over generations; over generations where there is one world."""
    held = [point for point in found.points if point.method == method and (name == SCORE or name in point.numbers)]
    if not held:
        return None
    worlds = {point.world for point in held}
    values: dict[int, list[float]] = {}
    draws: dict[int, list[NDArray[np.float64]]] = {}
    for point in held:
        key = point.world if len(worlds) > 1 else point.generation
        values.setdefault(key, []).append(point.score if name == SCORE else point.numbers[name])
        drawn = found.draws.get((point.world, point.method, point.generation), {}).get(name)
        if drawn is not None:
            draws.setdefault(key, []).append(drawn)
    unit = unit if name == SCORE else "percent" if name in COVERAGE else ""
    replicates = [np.mean(draws[key], axis=0) for key in sorted(draws)]
    return measured(method, name, {key: fmean(of) for key, of in values.items()}, unit=unit, replicates=replicates)


def _few(sizes: Mapping[Place, Sampled]) -> str:
    """Which sets are smaller than a draw."""
    told = dict.fromkeys(
        f"{TITLES[method]} ({size.texts:,} texts, {size.words:,} words)"
        for (_, method, _), size in sizes.items()
        if size.texts < size.of_texts or size.words < size.of_words
    )
    return ", ".join(told)


def _sources() -> str:
    """Who defined the metrics."""
    by_source: dict[str, list[str]] = {}
    for metric in METRICS.values():
        if metric.source:
            by_source.setdefault(metric.source, []).append(metric.title)
    return "; ".join(f"{', '.join(titles)}: {source}" for source, titles in by_source.items())


def _correlations(run: RunConfig, points: Sequence[Point], left_out: Sequence[Point], kind: labels.Kind) -> Table:
    """Rows: metrics; columns: r, ρ and r given the mean length of a text; within worlds, too, if there are several."""
    o: Options = run.experiment
    at = place(run, [o.task])
    columns = {"pearson": "Pearson r", "spearman": "Spearman ρ", "partial": "r given mean length"}
    if len({point.world for point in points}) > 1:
        columns |= {"within_pearson": f"r within {at}s", "within_spearman": f"ρ within {at}s"}
    rows = {**COVERAGE, **{name: metric.heading for name, metric in METRICS.items()}}
    cells: list[Cell | None] = []
    for name in rows:
        held, given = pairs(points, name), pairs(points, name, LENGTH)
        within = held.within_worlds()
        ways = {
            "pearson": (held, pearson),
            "spearman": (held, spearman),
            "partial": (given, partial),
            "within_pearson": (within, pearson),
            "within_spearman": (within, spearman),
        }
        cells += [
            cell(name, column, correlated(*ways[column], o.bootstrap), _paper(run, kind, name, column))
            for column in columns
        ]
    notes = [
        f"Over {len(points)} points: a method in one {at} and generation. What no generation changes is one point.",
        f"Without the points of {', '.join(dict.fromkeys(TITLES[point.method] for point in left_out))}, which lack "
        f"some metric." if left_out else "",
        "By samples written for them: of the methods that write for features.",
        "The paper's numbers are approximate, and of methods that are written otherwise: compare sign and size only.",
    ]  # fmt: skip
    aid = UNCERTAIN.format(worlds=f"{at}s, and within them " if len(o.worlds) > 1 else "")
    title, there = "Which of them goes with the score", [made for made in cells if made is not None]
    shown = [row for row in rows if row in {made.row for made in there}]
    return table(
        run, "metric_correlations", title, shown, list(columns), there, {**rows, **columns}, notes, [kind], aid=aid
    )


def _paper(run: RunConfig, kind: labels.Kind, name: str, column: str) -> PaperNumber | None:
    """Figure 9's number, where it is of this task and may stand beside the run's."""
    o: Options = run.experiment
    if o.task != "toxicity" or not labels.stands_beside(kind, run.model.name, o.test):
        return None
    return paper_table("figure9").get(PAPER.get(name, name), column)
