"""From a `Page` to one HTML file that needs nothing else (no script, no font, no network), or to a page of a site.

Equal pages give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.harness.report.chart import draw
from experiments.harness.report.page import Page

HERE = Path(__file__).parent
SHORT = 28  # letters of a fact that is shown large; longer ones are sentences
SHOWN_AT_ONCE = 8  # of features and of samples; the rest unfolds


@dataclass(frozen=True)
class Site:
    """Where a page of a site stands in it."""

    here: str  # its own file, from the site's folder
    pages: Sequence[tuple[str, str]]  # name and file of the pages that all others lead to
    scripts: Sequence[str] = ("site.js",)

    @property
    def root(self) -> str:
        """The site's folder, from this page."""
        return "../" * self.here.count("/")


def render(
    page: Page,
    site: Site | None = None,
    answers: Sequence[str] = (),
    lacks: Sequence[str] = (),
    report: str = "",
) -> str:
    """The page as HTML. Text is escaped everywhere, so that samples may say what they like.

    On a page of a site: what was found, in sentences, what its folder lacks, and where its own page lies.
    """
    charts = [draw(figure) for figure in page.figures]
    times = [(stage, duration(seconds)) for stage, seconds in page.stage_seconds]
    if times:
        times.append(("all stages", duration(sum(seconds for _, seconds in page.stage_seconds))))
    return filled(
        "page.html.jinja", site, title=page.title, page=page, charts=charts, times=times, shown=SHOWN_AT_ONCE,
        figures=[fact for fact in page.facts if len(fact[1]) <= SHORT],
        sentences=[fact for fact in page.facts if len(fact[1]) > SHORT],
        answers=answers or filter(None, [page.answer]), lacks=lacks, report=report,
    )  # fmt: skip


def filled(template: str, site: Site | None, **values: Any) -> str:
    """One of the templates of report/ and site/ with its values, each escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([HERE, HERE.parent / "site"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values, site=site)


def duration(seconds: float) -> str:
    """A time for people: `3.2 s`, `12 min 04 s`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
