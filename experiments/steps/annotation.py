"""The sheet that people rate, drawn from the features that the LLM judged, and what two raters made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from eval.annotation import Item, Of, Place, drawn, read_ratings
from fac.data.files import content_digest
from fac.errors import FacError
from fac.interpret import load_interpretations
from fac.store import Step

SHEET, RATINGS = "sheet.json", "ratings.json"


def sheet_step(interpretations: Mapping[str, Step], count: int, of: Of, seed: int) -> Step:
    """At most `count` features of each task (`load_sheet`); `interpretations` are by task."""
    tasks = tuple(interpretations)
    params = {"tasks": tasks, "count": count, "of": of, "seed": seed}
    return Step("rating_sheet", partial(_draw, tasks, count, of, seed), params, tuple(interpretations.values()))


def _draw(tasks: Sequence[str], count: int, of: Of, seed: int, folder: Path, *told: Path) -> None:
    items = [
        item
        for task, place in zip(tasks, told, strict=True)
        for item in drawn(task, load_interpretations(place), count, of, seed)
    ]
    if not items:
        raise FacError(
            f"The annotator judged no feature {'relevant' if of == 'relevant' else 'at all'}, so there is nothing to "
            f"rate: name another annotator."
        )
    (folder / SHEET).write_text(json.dumps([asdict(item) for item in items]), encoding="utf-8")


def load_sheet(folder: Path) -> list[Item]:
    """What `sheet_step` drew."""
    told = json.loads((folder / SHEET).read_text(encoding="utf-8"))
    return [Item(**{**item, "spans": tuple(item["spans"])}) for item in told]


def ratings_step(raters: Sequence[Path], sheet: Step) -> Step:
    """The labels that raters gave the sheet (`load_ratings`)."""
    params = {"raters": [partial(content_digest, file) for file in raters]}
    return Step("ratings", partial(_rate, tuple(raters)), params, (sheet,))


def _rate(raters: Sequence[Path], folder: Path, sheet: Path) -> None:
    items = load_sheet(sheet)
    given = [read_ratings(file, items) for file in raters]
    told = [[[*place, label] for place, label in labels.items()] for labels in given]
    (folder / RATINGS).write_text(json.dumps(told), encoding="utf-8")


def load_ratings(folder: Path) -> list[dict[Place, str]]:
    """The labels of each rater, by task and feature."""
    told = json.loads((folder / RATINGS).read_text(encoding="utf-8"))
    return [{(task, feature): label for task, feature, label in labels} for labels in told]
