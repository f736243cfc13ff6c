"""What `experiments.correlation` shows: r and ρ of FAC with each task's number, what is behind them, and the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eval.correlation import Correlated, correlated
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.correlations import (
    COEFFICIENTS,
    READINGS,
    UNCERTAIN,
    Point,
    cell,
    of_adding,
    pairs,
    points_of,
    scatter,
    told,
)
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Figure, Page
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import place, table, task_notes

if TYPE_CHECKING:
    from experiments.correlation import Options

HEADLINE = "any"  # the reading that the paper's tables print
WAYS = {  # of taking the points, beside all of them as they are
    "adding": "without Baseline",
    "within": "within {place}s",
    "within_adding": "within {place}s, without Baseline",
}
Kinds = Mapping[str, labels.Kind]
Found = Mapping[tuple[str, str, str, str], Correlated]  # by task, reading, way ("" or of WAYS) and coefficient


def page(run: RunConfig, results: Results) -> Page:
    """The table as the paper has it, what becomes of it when points are left out, and a figure for each task."""
    o: Options = run.experiment
    points = {name: points_of(results.records, run.task(name)) for name in o.tasks}
    kinds: dict[str, labels.Kind] = {name: labels.kind_of(run, name, [run.model.name]) for name in o.tasks}
    found = _found(points, o.draws)
    both = {name: told(*(found[name, HEADLINE, "", which] for which in COEFFICIENTS)) for name in o.tasks}
    main = _main(run, results, found, kinds)
    return Page(
        title=main.title,
        subtitle="Table 8 and Figure 3 of the paper: does FAC tell how well what a method adds teaches?",
        tables=[main, _behind(run, found, kinds)],
        facts=[(run.task(name).title, sentence) for name, sentence in both.items()],
        figures=[_figure(run, name, points[name], both[name]) for name in o.tasks if points[name]],
    )


def _found(points: Mapping[str, Sequence[Point]], draws: int) -> Found:
    found = {}
    for task, everything in points.items():
        for reading in READINGS:
            of_all, of_some = pairs(everything, reading), pairs(of_adding(everything), reading)
            taken = (of_all, of_some, of_all.within_worlds(), of_some.within_worlds())
            for way, held in zip(("", *WAYS), taken, strict=True):
                for which, (_, coefficient) in COEFFICIENTS.items():
                    found[task, reading, way, which] = correlated(held, coefficient, draws)
    return found


def _main(run: RunConfig, results: Results, found: Found, kinds: Kinds) -> Table:
    """Rows: r and ρ of each reading; columns: tasks."""
    o: Options = run.experiment
    rows, cells = {}, []
    for reading, title in READINGS.items():
        for which, (coefficient, _) in COEFFICIENTS.items():
            row = f"{reading}_{which}"
            rows[row] = f"{title}: {coefficient}"
            for name in o.tasks:
                paper = _paper(run, name, which, kinds[name]) if reading == HEADLINE else None
                cells.append(cell(row, name, found[name, reading, "", which], paper))
    at = place(run, o.tasks)
    worlds, generations, seeds = (", ".join(map(str, v)) for v in (o.worlds, o.generations, run.seeds.training))
    notes = [
        f"A point is a method in one {at} ({worlds}) and generation ({generations}); its number is the mean over "
        f"training seeds {seeds}. What no generation changes is one point.",
        "By samples written for them: of the methods that write for features.",
        *task_notes(run, results.records, o.tasks),
    ]
    return _table(run, "correlation", f"FAC and what is learned, {run.model.name}", rows, cells, notes, kinds)


def _behind(run: RunConfig, found: Found, kinds: Kinds) -> Table:
    """The same without the seed data alone, and within worlds; and how many points there are."""
    o: Options = run.experiment
    at, rows, cells = place(run, o.tasks), {}, list[Cell | None]()
    for reading, title in READINGS.items():
        for way in _telling(o, found, reading):
            for which, (coefficient, _) in COEFFICIENTS.items():
                row = f"{reading}_{way}_{which}"
                rows[row] = f"{title}, {WAYS[way].format(place=at)}: {coefficient}"
                cells += [cell(row, name, found[name, reading, way, which]) for name in o.tasks]
        for what, called in {"points": "points", "rows": "methods"}.items():
            rows[f"{reading}_{what}"] = f"{title}: {called}"
            counts = {name: getattr(found[name, reading, "", "pearson"], what) for name in o.tasks}
            cells += [observed(f"{reading}_{what}", name, count, unit="count") for name, count in counts.items()]
    notes = [
        "The seed data alone cover nothing of what they miss, by definition: a point apart from all others, which can "
        "make a correlation by itself.",
        f"Within {at}s: each number less its mean over the methods of its {at}.",
    ]
    return _table(run, "correlation_behind", "What is behind it", rows, cells, notes, kinds)


def _telling(o: Options, found: Found, reading: str) -> list[str]:
    """The ways in which points are left out, or worlds brought to one level, where there are such."""

    def points(way: str) -> list[int]:
        return [found[name, reading, way, "pearson"].points for name in o.tasks]

    ways = [way for way in WAYS if len(o.worlds) > 1 or "within" not in way]
    return [way for way in ways if "adding" not in way or points(way) != points("")]


def _table(
    run: RunConfig,
    name: str,
    title: str,
    rows: Mapping[str, str],
    cells: Sequence[Cell | None],
    notes: Sequence[str],
    kinds: Kinds,
) -> Table:
    o: Options = run.experiment
    there = [made for made in cells if made is not None]
    held = {made.row for made in there}
    columns = {task: f"{run.task(task).title} {run.task(task).metric_title}" for task in o.tasks}
    aid = UNCERTAIN.format(worlds=f"{place(run, o.tasks)}s, and within them " if len(o.worlds) > 1 else "")
    shown = [row for row in rows if row in held]
    return table(run, name, title, shown, o.tasks, there, {**rows, **columns}, notes, kinds.values(), aid=aid)


def _paper(run: RunConfig, task: str, which: str, kind: labels.Kind) -> PaperNumber | None:
    o: Options = run.experiment
    column = run.task(task).paper.get("table8")
    if column is None or not labels.stands_beside(kind, run.model.name, o.test):
        return None
    return paper_table("table8").get(which, column)


def _figure(run: RunConfig, name: str, points: Sequence[Point], caption: str) -> Figure:
    task = run.task(name)
    title, y_label = f"{task.title}: FAC and {task.metric_title}", f"{task.metric_title} ({task.unit})"
    return scatter(points, HEADLINE, title, "FAC of missing (percent)", y_label, caption)
