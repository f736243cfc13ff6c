"""What `experiments.annotation` shows: the sheet to rate, and the shares and the agreement of two raters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eval.annotation import LABELS, Item, Place, agreement, sheet_csv
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import table
from experiments.steps.annotation import load_ratings, load_sheet
from experiments.tasks import TASKS
from fac.store import Step

if TYPE_CHECKING:
    from experiments.annotation import Options

SHARES = ("relevant", "irrelevant", "unclear", "differing")
NAMES = {
    "features": "features",
    "relevant": "relevant, both say",
    "irrelevant": "irrelevant, both say",
    "unclear": "unclear",
    "differing": "of those, the raters differ",
    "kappa": "Cohen's kappa",
}
DRAWN_FROM = {"relevant": "found relevant", "judged": "judged, whatever the verdict"}


def page(run: RunConfig, sheet: Step, ratings: Step | None, results: Results) -> Page:
    """The table, and the sheet as a form and as CSV."""
    items = load_sheet(results.folder(sheet))
    rated = None if ratings is None else load_ratings(results.folder(ratings))
    main = _table(run, items, rated)
    what = "Open sheet.html, or fill in the column label of sheet.csv" if rated is None else "Rated by two people"
    return Page(
        title=main.title,
        subtitle="Table 5 of the paper: what people say of features on which an LLM has given its verdict.",
        tables=[main],
        facts=[(what, f"{len(items)} features; labels are {', '.join(LABELS)}")],
        files={
            "sheet.csv": sheet_csv(items),
            "sheet.html": form(items, main.config_hash, marked=run.features.span_end == "at"),
        },
    )


def form(items: Sequence[Item], name: str, marked: bool = True) -> str:
    """The sheet as one HTML file that works from a folder, the last word of every span `marked`.

    `name` tells the sheet from others in a browser's memory.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    shown = [(item, [span.rpartition(" ") for span in item.spans]) for item in items]
    titles = {item.task: TASKS[item.task].title for item in items}
    template = environment.get_template("annotation.html.jinja")
    return template.render(items=shown, labels=LABELS, titles=titles, name=name, marked=marked)


def _table(run: RunConfig, items: Sequence[Item], rated: Sequence[dict[Place, str]] | None) -> Table:
    o: Options = run.experiment
    cells: list[Cell] = []
    kinds: list[labels.Kind] = [labels.kind_of(run, task, [run.model.name]) for task in o.tasks]
    notes = [
        f"Features are drawn at random (seed {o.seed}) from those that the annotator {DRAWN_FROM[o.of]}; which ones "
        "the paper draws from it does not say. " + run.llms.note(run.model.ref),
        *(f"{TASKS[task].title}: there are only {count}." for task, count in _short(o, items).items()),
    ]
    if rated is None:
        notes.append("Nobody has rated them yet: give two raters sheet.html, then set experiment.raters=[A.csv,B.csv].")
    else:
        notes.append(
            "Relevant and irrelevant: both raters say so. Unclear: the two differ, or say so. Kappa is over the three "
            "labels."
        )
    for task, kind in zip(o.tasks, kinds, strict=True):
        places = [item.place for item in items if item.task == task]
        beside = labels.stands_beside(kind, run.model.name)
        cells += _cells(task, places, rated, beside)
    names = {**NAMES, **{task: TASKS[task].title for task in o.tasks}}
    aid = "In brackets: 95 % interval of kappa over resampled features." if rated else ""
    return table(
        run,
        "annotation",
        "Do people agree with the verdicts?",
        o.tasks,
        list(NAMES),
        cells,
        names,
        notes,
        kinds,
        aid=aid,
    )


def _short(o: Options, items: Sequence[Item]) -> dict[str, int]:
    """Tasks that have fewer features than were asked for."""
    counts = {task: sum(item.task == task for item in items) for task in o.tasks}
    return {task: count for task, count in counts.items() if count < o.features}


def _cells(task: str, places: Sequence[Place], rated: Sequence[dict[Place, str]] | None, beside: bool) -> list[Cell]:
    def paper(column: str) -> PaperNumber | None:
        return paper_table("table5").get(task, column) if beside else None

    cells = [observed(task, "features", len(places), unit="count", paper=paper("features"))]
    if rated is None or not places:
        return cells
    first, second = ([given[place] for place in places] for given in rated)
    found = agreement(first, second)
    cells += [observed(task, share, 100 * getattr(found, share), paper=paper(share)) for share in SHARES]
    if found.kappa is not None:
        kappa = observed(task, "kappa", found.kappa, unit="correlation")
        cells.append(replace(kappa, interval=found.kappa_interval))
    return cells
