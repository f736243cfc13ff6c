"""What a page says beside its tables, kept in the run's folder: page.json, from which `fac report` shows it again.

Features, samples and files are not in it: they lie in the store and in files of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from experiments.harness.report.page import Figure, Page, Series

PAGE = "page.json"
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Kept:
    """What page.json holds; `page` makes a page of it again."""

    title: str = ""
    subtitle: str = ""
    answer: str = ""
    paper: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()  # names of their files, in the page's order
    facts: Pairs = ()
    truth: Pairs = ()
    figures: tuple[Figure, ...] = ()
    warnings: Mapping[str, str] | None = None  # None: of a run that did not say

    def page(self, tables: Sequence[Any], **more: Any) -> Page:
        """The page with its tables, without features and samples."""
        return Page(
            self.title or tables[0].title, self.subtitle, tables, self.answer, self.facts, self.figures, self.truth,
            paper=self.paper, **more,
        )  # fmt: skip


def dump(page: Page) -> str:
    """The text of page.json: the first table is table.json, the others are named after themselves."""
    tables = ["table", *(table.experiment for table in page.tables[1:])]
    figures = [asdict(figure) for figure in page.figures]
    told = {name: getattr(page, name) for name in ("title", "subtitle", "answer", "facts", "truth")}
    told |= {"paper": list(page.paper), "tables": tables, "figures": figures, "warnings": dict(page.warnings)}
    return json.dumps(told, indent=1, sort_keys=True, default=float) + "\n"


def load(text: str) -> Kept:
    """What `dump` gave. Raises ValueError, KeyError or TypeError for anything else."""
    told: dict[str, Any] = json.loads(text)
    for name in ("facts", "truth"):
        told[name] = tuple((str(key), str(value)) for key, value in told[name])
    told["tables"], told["paper"] = tuple(told["tables"]), tuple(told["paper"])
    told["figures"] = tuple(
        Figure(**{**figure, "series": [Series(**series) for series in figure["series"]]}) for figure in told["figures"]
    )
    return Kept(**{field.name: told[field.name] for field in fields(Kept)})
