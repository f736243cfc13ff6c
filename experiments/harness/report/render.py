"""From a `Page` to one HTML file that needs nothing else: no script, no font, no network.

Equal pages give equal bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.harness.report.chart import draw
from experiments.harness.report.page import Page

SHOWN_AT_ONCE = 8  # of features and of samples; the rest unfolds


def render(page: Page) -> str:
    """The page as HTML. Text is escaped everywhere, so that samples may say what they like."""
    charts = [draw(figure) for figure in page.figures]
    times = [(stage, duration(seconds)) for stage, seconds in page.stage_seconds]
    if times:
        times.append(("all stages", duration(sum(seconds for _, seconds in page.stage_seconds))))
    return filled("page.html.jinja", page=page, charts=charts, times=times, shown=SHOWN_AT_ONCE)


def filled(template: str, **values: Any) -> str:
    """One of the templates of this folder with its values, each escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def duration(seconds: float) -> str:
    """A time for people: `3.2 s`, `12 min 04 s`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
