"""Where the marks of a figure go: data coordinates to the coordinates of a drawing `WIDTH` by `HEIGHT`.

Series differ by their marks and dashes, so that they can be told apart in black and white. Colours and SVG are the
template's. All positions are rounded to a tenth, so equal figures give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.harness.report.page import Figure, Series

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 446, 30, 258  # the plotting area; the y label stands above it
LABEL_HEIGHT, LETTER_WIDTH = 12, 6.2  # of point labels, in drawing units
MARKS_OF_A_LINE = 15  # a line of more points shows every so manyth: marks that touch hide its dashes
DASHES = ("none", "8 3", "2 3", "9 3 2 3")  # of lines, by series
MARKS = (  # paths around (0, 0), by series
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0Z",
    "M-2.9-2.9h5.8v5.8h-5.8Z",
    "M0-4L3.7 2.8H-3.7Z",
    "M0-4.3L4.3 0L0 4.3L-4.3 0Z",
    "M-3-3L3 3M-3 3L3-3",
    "M0 4L3.7-2.8H-3.7Z",
    "M-3.8 0H3.8M0-3.8V3.8",
)


@dataclass(frozen=True)
class Mark:
    """A point, its tooltip, and its label with the place where that starts."""

    x: float
    y: float
    tip: str
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    drawn: bool = True  # False: there for its tooltip only


@dataclass(frozen=True)
class Shape:
    """A drawn series: polyline and band as SVG point lists (empty where there is none); hollow marks if `dashed`."""

    name: str
    color: int
    line: str
    band: str
    dashed: bool
    marks: tuple[Mark, ...]
    bars: tuple[tuple[float, float, float], ...] = ()  # of points: x, and the ends of what would be a line's band
    mark: str = MARKS[0]  # the path of each
    dash: str = DASHES[0]  # as stroke-dasharray


@dataclass(frozen=True)
class Chart:
    """A drawn figure; ticks are (position, text)."""

    figure: Figure
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    shapes: tuple[Shape, ...]


def draw(figure: Figure) -> Chart:
    """Place every mark of a figure.

    Raises:
        ValueError: the figure has no point, or a series has sequences of different lengths.
    """
    xs = [x for s in figure.series for x in s.x]
    ys = [y for s in figure.series for part in (s.y, s.low, s.high) for y in part]
    if not xs:
        raise ValueError(f"figure {figure.title!r} has no point")
    x_ticks, y_ticks = _ticks(xs), _ticks(ys)
    to_x = _scale(x_ticks, LEFT, RIGHT)
    to_y = _scale(y_ticks, BOTTOM, TOP)
    # what labels must not cover, as (left, right, baseline): the points of labelled series, then each label placed
    taken = [
        (to_x(x) - 4, to_x(x) + 4, to_y(y) + 4)
        for s in figure.series
        if s.labels
        for x, y in zip(s.x, s.y, strict=True)
    ]
    shapes = tuple(_shape(s, i, to_x, to_y, figure, taken) for i, s in enumerate(figure.series))
    return Chart(
        figure,
        tuple((to_x(t), f"{t:g}") for t in x_ticks),
        tuple((to_y(t), f"{t:g}") for t in y_ticks),
        shapes,
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """About five round numbers whose ends enclose the values."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):  # one value only: room around it
        low, high = low - 0.5, high + 0.5
    found = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(tick), 10) + 0.0 for tick in found]


def _scale(ticks: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
    low, high = ticks[0], ticks[-1]
    return lambda value: round(start + (value - low) / (high - low) * (stop - start), 1)


def _shape(
    series: Series,
    color: int,
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    figure: Figure,
    taken: list[tuple[float, float, float]],
) -> Shape:
    xs, ys = [to_x(x) for x in series.x], [to_y(y) for y in series.y]
    banded = bool(series.low or series.high)
    upper = [f"{x},{to_y(y)}" for x, y in zip(xs, series.high, strict=banded)]
    lower = [f"{x},{to_y(y)}" for x, y in zip(xs, series.low, strict=banded)]
    marks, apart = [], max(1, -(-len(xs) // MARKS_OF_A_LINE))
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        label = series.labels[i] if series.labels else ""
        tip = f"{label or series.name}: {figure.x_label} {series.x[i]:g}, {figure.y_label} {series.y[i]:.4g}"
        drawn = not series.line or bool(label) or i % apart == color % apart
        marks.append(Mark(x, y, tip, label, *_label_place(x, y, label, taken), drawn))
    line = " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True)) if series.line else ""
    bars = [(x, to_y(a), to_y(b)) for x, a, b in zip(xs, series.low, series.high, strict=banded)]
    band = " ".join(upper + lower[::-1]) if series.line else ""
    mark, dash = MARKS[color % len(MARKS)], DASHES[color % len(DASHES)]
    return Shape(
        series.name, color, line, band, series.dashed, tuple(marks), () if series.line else tuple(bars), mark, dash
    )


def _label_place(x: float, y: float, label: str, taken: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Start of a label: right of its point, left of it near the edge, and moved up or down off labels already there."""
    if not label:
        return 0.0, 0.0
    width = len(label) * LETTER_WIDTH
    start = x + 7 if x + 7 + width <= WIDTH else x - 7 - width
    places = [y + 4 + step * LABEL_HEIGHT for step in (0, -1, 1, -2, 2, -3, 3)]
    near = [baseline for left, right, baseline in taken if start < right and left < start + width]
    free = (place for place in places if all(abs(place - baseline) >= LABEL_HEIGHT - 1 for baseline in near))
    place = next(free, places[0])
    taken.append((start, start + width, place))
    return round(start, 1), round(place, 1)
