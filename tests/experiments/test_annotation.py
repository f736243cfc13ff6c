"""experiments.annotation: the sheet of the reduced lab, rated in a browser and by file, and the table of two raters."""

import csv
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.cli import Finished, fac_here
from support.reduced import measured

from eval.annotation import Item
from experiments.harness.results import Table
from experiments.pages.annotation import form

ITEMS = [
    Item("toxicity", 3, "<b>steal</b>", ("how to steal", "a"), "Yes"),
    Item("reward", 4, "polite", ("thanks",), "No"),
]


def annotation(folder: Path, *settings: str) -> Finished:
    fixed = ["experiment=annotation", "experiment.tasks=[toxicity]", "experiment.features=20", "tracking.enabled=false"]
    return fac_here(*fixed, *measured("toxicity"), *settings, cwd=folder)


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotation")
    done = annotation(folder, "out=sheet")
    assert done.code == 0, done.err
    return folder


def rate(folder: Path, name: str, seed: int) -> list[str]:
    """A rater who says irrelevant about every fourth feature, each their own."""
    rows = list(csv.DictReader((folder / "sheet/sheet.csv").open(newline="")))
    given = [random.Random(f"{seed}{row['feature']}").choice(["relevant"] * 3 + ["irrelevant"]) for row in rows]
    lines = [f"{row['task']},{row['feature']},{label}" for row, label in zip(rows, given, strict=True)]
    (folder / name).write_text("\n".join(["task,feature,label", *lines]))
    return given


@pytest.mark.slow
def test_the_sheet_has_twenty_features_with_spans_and_the_table_says_that_nobody_rated_them(sheet: Path):
    rows = list(csv.DictReader((sheet / "sheet/sheet.csv").open(newline="")))
    assert len({row["feature"] for row in rows}) == 20
    assert all(row["explanation"] and row["spans"] and not row["label"] for row in rows)
    shown = (sheet / "sheet/sheet.html").read_text()
    assert shown.count("<fieldset") == 20
    assert rows[0]["explanation"] in shown
    assert "http" not in shown
    table = Table.from_json((sheet / "sheet/table.json").read_text())
    assert table.columns == ("features",)
    assert "Nobody has rated them yet" in (sheet / "sheet/table.md").read_text()


@pytest.mark.slow
def test_two_raters_make_the_paper_s_table(sheet: Path):
    first, second = rate(sheet, "a.csv", 1), rate(sheet, "b.csv", 2)
    done = annotation(sheet, "experiment.raters=[a.csv,b.csv]", "out=rated")
    assert done.code == 0, done.err
    table = Table.from_json((sheet / "rated/table.json").read_text())
    both = sum(a == b == "relevant" for a, b in zip(first, second, strict=True))
    assert (cell := table.cell("toxicity", "relevant")) is not None
    assert cell.mean == pytest.approx(100 * both / 20)
    assert cell.paper is not None
    assert cell.paper.mean == 84
    assert (kappa := table.cell("toxicity", "kappa")) is not None
    assert kappa.interval is not None
    assert kappa.interval[0] <= kappa.mean <= kappa.interval[1]
    assert "both raters say so" in (sheet / "rated/table.md").read_text()


@pytest.mark.slow
def test_a_row_that_a_rater_left_open_stops_the_run_by_its_line(sheet: Path):
    rate(sheet, "a.csv", 1)
    rows = (sheet / "a.csv").read_text().splitlines()
    (sheet / "open.csv").write_text("\n".join([*rows[:-1], re.sub(r",\w+$", ",", rows[-1])]))
    said = annotation(sheet, "experiment.raters=[a.csv,open.csv]", "out=open").failure
    assert "open.csv, line 21: there is no label" in said


def test_one_rater_is_refused(tmp_path: Path):
    assert "raters names two files" in annotation(tmp_path, "experiment.raters=[a.csv]", "out=one").failure


def test_the_form_is_rated_and_saved_in_a_browser(tmp_path: Path):
    """Clicks every first label, and reads what would be saved."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium or google-chrome on PATH: install one to see the form in a real browser")
    clicks = """<script>
    const texts = []; const make = URL.createObjectURL;
    URL.createObjectURL = blob => { blob.text().then(t => { document.title = JSON.stringify(t); }); return "#"; };
    document.querySelectorAll("fieldset").forEach(f => f.querySelector("input").click());
    document.getElementById("save").click();
    </script></body>"""
    file = tmp_path / "form.html"
    file.write_text(form(ITEMS, "x").replace("</body>", clicks))
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom",
         f"--user-data-dir={tmp_path}/profile", file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    title = re.search("<title>(.*?)</title>", shown)
    assert title is not None
    assert json.loads(title[1]) == "task,feature,label\ntoxicity,3,relevant\nreward,4,relevant\n"
    assert "2 of 2 rated" in shown
    assert "&lt;b&gt;steal" in shown
    assert "<mark>steal</mark>" in shown


def test_a_span_that_ends_before_the_token_marks_no_word():
    assert "<mark>" not in form(ITEMS, "x", marked=False)
