"""The page: its structure, that texts stay texts, that it needs nothing else, and where the marks of a chart go."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Feature, Figure, Page, Sample, Series, Span, kept, render
from experiments.harness.report.chart import BOTTOM, DASHES, LEFT, MARKS, MARKS_OF_A_LINE, RIGHT, TOP, WIDTH, draw
from experiments.harness.report.render import SHOWN_AT_ONCE, duration
from experiments.harness.results import LAB_LABEL, Table, measured

VOID = {"meta", "img"}
NASTY = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> & \"q\""


class Outline(HTMLParser):
    """Elements, their texts and attributes; fails on a tag that is closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.counts: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data


def table(scale: str = "lab") -> Table:
    reported = paper_table("table1")
    cells = (
        measured("baseline", "toxicity", {42: 64.0, 43: 66.0}, paper=reported.get("baseline", "toxicity")),
        measured("fac", "toxicity", {42: 88.0, 43: 87.0}, paper=reported.get("fac", "toxicity")),
        measured("fac", "reward", {42: 70.0}),
    )
    return Table(
        experiment="table1",
        scale="lab" if scale == "lab" else "paper",
        label=LAB_LABEL if scale == "lab" else "",
        title="Main results",
        rows=("baseline", "fac"),
        columns=("toxicity", "reward"),
        cells=cells,
        config_hash="0123456789ab",
        versions={"torch": "2.13.0"},
        notes=(NASTY,),
        names=reported.names,
        provenance={"git_sha": "abcdef-dirty"},
    )


def full_page(scale: str = "lab") -> Page:
    thresholds = [0.0, 0.5, 1.0]
    spans = (Span(f"tell me how to pick the lock {NASTY}", 15, 19, 118.234),)
    return Page(
        title=f"Table 1 {NASTY}",
        subtitle="One budget, two seeds.",
        tables=[table(scale)],
        facts=[("AUPRC", "87.5 %"), ("missing", "148")],
        figures=[
            Figure(
                "Coverage by threshold",
                "threshold",
                "FAC (%)",
                [
                    Series("two steps", thresholds, [99, 90, 80], [97, 85, 75], [100, 95, 85]),
                    Series("paper", thresholds, [82, 46, 41], dashed=True),
                ],
                caption="Own samples.",
            ),
            Figure("Scatter", "FAC (%)", "AUPRC (%)", [Series("m", [0, 1], [2, 3], labels=["A", NASTY], line=False)]),
        ],
        truth=[("precision", "0.95")],
        features=[Feature(i, NASTY, "Yes", "Maybe", spans, 1234, 0, True, None) for i in range(SHOWN_AT_ONCE + 3)],
        samples=[
            Sample(7, 2, f"please pick the lock {NASTY}", 3.14159, "pick the", kept=True),
            Sample(7, 1, NASTY, 0.0, "elsewhere", kept=False, reason="g is not above the threshold"),
        ],
        sample_note="Some are meant to be harmful.",
        stage_seconds=[("features", 31.24), ("train", 480.0)],
    )


def test_a_full_page_has_every_part() -> None:
    outline = Outline(render(full_page()))
    assert outline.texts["h1"] == [f"Table 1 {NASTY}"]
    assert outline.texts["title"][0] == f"Table 1 {NASTY}"
    headings = ["Main results", "Figures", "Against the ground truth", "Features", "Samples", "Provenance"]
    assert outline.texts["h2"] == headings
    assert outline.counts["figure"] == 2
    assert outline.counts["polygon"] == 1  # the band
    assert outline.texts["summary"] == ["3 more features"]
    (page,) = outline.texts["main"]
    words = " ".join(page.split())
    for text in ["1 of 2 shown here were kept", "g 3.14 · kept", "not kept: g is not above the threshold"]:
        assert text in words
    assert "features31.2 s train8 min 00 s all stages8 min 31 s" in words
    assert "0123456789ab" in words
    assert "abcdef-dirty" in words
    assert "torch 2.13.0" in words


def test_the_papers_numbers_stand_beside_ours() -> None:
    cells = Outline(render(full_page())).texts["td"]
    assert cells == [
        "65.0 ± 1.4paper 38.97 ± 2.74difference +26.0",
        "–",
        "87.5 ± 0.7paper 62.60 ± 4.41difference +24.9",
        "70.0",
    ]


def test_tokens_and_spans_are_marked() -> None:
    marks = Outline(render(full_page())).texts["mark"]
    assert marks == ["pick"] * (SHOWN_AT_ONCE + 3) + ["pick the", "elsewhere"]


def test_texts_stay_texts_and_nothing_is_fetched() -> None:
    outline = Outline(render(full_page()))
    assert {"script", "img", "link", "iframe", "object"}.isdisjoint(outline.counts)
    assert not [name for name, _ in outline.attributes if name.startswith("on") or name in ("src", "href")]
    (style,) = outline.texts["style"]
    assert "url(" not in style
    assert "@import" not in style
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in outline.attributes
    assert outline.texts["main"][0].count(NASTY) >= SHOWN_AT_ONCE + 3


def test_only_the_lab_is_labelled_so() -> None:
    assert LAB_LABEL in render(full_page())
    assert LAB_LABEL not in render(full_page("paper"))


def test_equal_pages_are_equal_bytes() -> None:
    assert render(full_page()) == render(full_page())


def test_empty_parts_are_left_out() -> None:
    outline = Outline(render(Page("T", "", [table()])))
    assert outline.texts["h2"] == ["Main results", "Provenance"]
    assert outline.counts["svg"] == outline.counts["details"] == 0


def test_a_browser_runs_nothing_of_it(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium or google-chrome on PATH: install one to see the page in a real browser")
    path = tmp_path / "report.html"
    path.write_text(render(replace(full_page(), title="Table 1")), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync"
    command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert Outline(done.stdout).texts["title"][0] == "Table 1"
    assert "pwned" in done.stdout  # the text is there, but nobody ran it


# Charts --------------------------------------------------------------------------------------------------------------

numbers = st.floats(-1e5, 1e5).map(lambda x: round(x, 4))


@given(st.lists(st.tuples(numbers, numbers, st.floats(0, 50)), min_size=1, max_size=12))
def test_every_mark_lies_on_the_plot_in_the_order_of_the_data(points: list[tuple[float, float, float]]) -> None:
    xs, ys, spread = zip(*points, strict=True)
    low, high = [y - s for y, s in zip(ys, spread, strict=True)], [y + s for y, s in zip(ys, spread, strict=True)]
    chart = draw(Figure("f", "x", "y", [Series("s", xs, ys, low, high)]))
    (shape,) = chart.shapes
    assert all(LEFT <= m.x <= RIGHT and TOP <= m.y <= BOTTOM for m in shape.marks)
    corners = [tuple(map(float, corner.split(","))) for corner in shape.band.split()]
    assert len(corners) == 2 * len(points)
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in corners)
    by_x = sorted(zip(xs, shape.marks, strict=True), key=lambda pair: pair[0])
    assert [m.x for _, m in by_x] == sorted(m.x for m in shape.marks)
    by_y = sorted(zip(ys, shape.marks, strict=True), key=lambda pair: pair[0])
    assert [m.y for _, m in by_y] == sorted((m.y for m in shape.marks), reverse=True)


def test_ticks_sit_where_their_values_do() -> None:
    chart = draw(Figure("f", "x", "y", [Series("s", [0, 0.5], [40, 100])]))
    assert chart.x_ticks[0] == (LEFT, "0")
    assert chart.x_ticks[-1] == (RIGHT, "0.5")
    assert chart.y_ticks[0] == (BOTTOM, "40")
    assert chart.y_ticks[-1] == (TOP, "100")
    first, last = chart.shapes[0].marks
    assert (first.x, first.y, last.x, last.y) == (LEFT, BOTTOM, RIGHT, TOP)


def test_labels_keep_off_one_another_and_inside_the_drawing() -> None:
    names = ["FAC", "FAC one step", "Full Dataset", "Random features", "Alpaca"]
    series = Series("m", [100, 98, 96, 97, 0], [88.4, 88.0, 87.9, 88.2, 50], labels=names, line=False)
    (shape,) = draw(Figure("f", "x", "y", [series])).shapes
    boxes = [(m.label_x, m.label_x + 6.2 * len(m.label), m.label_y) for m in shape.marks]
    for i, (left, right, y) in enumerate(boxes):
        assert left >= 0
        assert right <= WIDTH + 0.1
        for other_left, other_right, other_y in boxes[:i]:
            assert right <= other_left or other_right <= left or abs(y - other_y) >= 11
    assert shape.line == ""


def test_series_are_told_apart_without_colours() -> None:
    series = [Series(str(i), [0, 1], [i, i + 1]) for i in range(len(MARKS) * len(DASHES))]
    chart = draw(Figure("f", "x", "y", series))
    assert len({(shape.mark, shape.dash) for shape in chart.shapes}) == len(series)
    html = render(Page("T", "", [table()], figures=[Figure("f", "x", "y", series[:2])]))
    assert html.count(f'stroke-dasharray="{DASHES[1]}"') == 2  # of its line, and in the legend
    assert html.count(f'd="{MARKS[1]}"') == 3


def test_what_was_not_measured_here_has_hollow_marks() -> None:
    lines = [Series("ours", [0, 1], [0, 1]), Series("paper", [0, 1], [1, 2], dashed=True)]
    html = render(Page("T", "", [table()], figures=[Figure("f", "x", "y", lines)]))
    assert html.count('class="s1 hollow"') == 2
    assert 's0 hollow"' not in html


def test_a_line_of_many_points_keeps_room_between_its_marks_and_every_tooltip() -> None:
    (shape,) = draw(Figure("f", "x", "y", [Series("s", range(101), range(101))])).shapes
    assert len(shape.marks) == 101
    assert sum(mark.drawn for mark in shape.marks) <= MARKS_OF_A_LINE
    cloud = Series("s", range(101), range(101), line=False)
    assert all(mark.drawn for mark in draw(Figure("f", "x", "y", [cloud])).shapes[0].marks)


def test_facts_in_figures_are_shown_large_and_sentences_as_a_list() -> None:
    told = "more: " * 10
    outline = Outline(render(Page("T", "", [table()], facts=[("missing", "148"), ("Toxicity", told)])))
    large, listed, *_ = outline.texts["dl"]
    assert ("148" in large, told in large, told.strip() in listed) == (True, False, True)
    many = Outline(render(Page("T", "", [table()], facts=[(str(i), told) for i in range(SHOWN_AT_ONCE)])))
    assert many.texts["summary"] == ["8 sentences on what was compared and written"]


def test_points_have_bars_where_a_line_has_a_band() -> None:
    points = Series("m", [0, 1], [50, 60], [40, 55], [60, 65], line=False)
    (shape,) = draw(Figure("f", "x", "y", [points])).shapes
    assert shape.band == ""
    assert [(x, low > high) for x, low, high in shape.bars] == [(LEFT, True), (RIGHT, True)]  # y grows downward
    assert [m.y < bar[1] and m.y > bar[2] for m, bar in zip(shape.marks, shape.bars, strict=True)] == [True, True]
    (line,) = draw(Figure("f", "x", "y", [replace(points, line=True)])).shapes
    assert (bool(line.band), line.bars) == (True, ())


def test_a_page_is_kept_with_all_that_is_no_table() -> None:
    page = replace(full_page(), answer="It won.", paper=("table1",), warnings={"toxicity": "Careful."})
    told = kept.load(kept.dump(page))
    again = told.page(page.tables, warnings=told.warnings or {})
    left_out = {"features": [], "samples": [], "sample_note": "", "stage_seconds": []}
    assert render(again) == render(replace(page, **left_out))
    assert (told.answer, told.paper, told.tables, told.warnings) == ("It won.", ("table1",), ("table",), page.warnings)


@pytest.mark.parametrize("text", ["{}", "[]", "", '{"title": 1}'])
def test_what_is_no_kept_page_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        kept.load(text)


def test_a_figure_without_points_or_with_half_a_band_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        draw(Figure("half", "x", "y", [Series("s", [0, 1], [0, 1], low=[0, 1])]))
    with pytest.raises(ValueError, match="'empty' has no point"):
        draw(Figure("empty", "x", "y", [Series("s", [], [])]))


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (59.96, "60.0 s"), (724, "12 min 04 s"), (11_100, "3 h 05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
