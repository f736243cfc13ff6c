"""The site in a real browser: it opens from a folder, sorts, filters and searches, and runs nothing that data say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import fac_here
from support.run_folders import Mined, curve, scores, table_of, write_run

from experiments.harness.paper_numbers import paper_table
from experiments.harness.site.write import write
from fac.errors import FacError
from fac.provenance import REPOSITORY

NASTY = "<img src=x onerror=\"document.title='pwned'\"></script><script>document.title='pwned'</script> & lock"
N = 1200  # more than lie in one file, and than are shown at once
HIGH, LOW = (90, 90.2, 90.4), (70, 70.3, 70.1)
WIDTHS = (1280, 390)


def plainly(items: Iterator[Any], total: int) -> Iterator[Any]:
    return items


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, and the store of one of them, in which every text is hostile."""
    root = tmp_path_factory.mktemp("outputs")
    mined = Mined(root / "store", N, text=NASTY, explanation=NASTY)
    samples = [mined.sample(4, NASTY), mined.sample(6, NASTY)]
    record = mined.write("fac", samples, np.eye(N)[[4, 6]])
    other = mined.write("a_method_whose_name_is_longer_than_a_phone_is_wide", [], np.zeros((1, N)))
    printed = paper_table("table1").get("fac", "toxicity")
    cells = scores(baseline=LOW, full=(80, 80.1, 80.3), fac=HIGH)
    cells = [replace(c, paper=printed) if (c.row, c.column) == ("fac", "toxicity") else c for c in cells]
    table = table_of(cells, title=f"Main {NASTY}", notes=(NASTY,))
    write_run(
        root / "main",
        [table],
        mined.root,
        [record, other],
        paper=("table1", "figure10"),
        figures=[curve()],
        warnings={"toxicity": f"Harmful. {NASTY}"},
    )
    write_run(root / "other", [table_of(scores(baseline=HIGH, fac=LOW), "mine", "Other")], answer=f"It lost. {NASTY}")
    (root / "begun").mkdir()
    return root


@pytest.fixture(scope="module")
def site(outputs: Path) -> Path:
    out = outputs / "site"
    write([outputs], out, plainly)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip(
            "no chromium or google-chrome on PATH: install one (apt-get install chromium) to see the site in it"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=WIDTHS)
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A window of a width; fails if the page said anything on the console, asked for anything else or ran a text."""
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda asked: None if asked.url.startswith("file:") else said.append(asked.url))
    yield opened
    assert said == []
    assert opened.title() != "pwned"
    assert opened.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert opened.evaluate("document.documentElement.scrollWidth") <= request.param
    opened.close()


def test_the_index_says_first_what_was_found(page: Any, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    assert page.locator(".answer").inner_text().startswith("Toxicity AUPRC: FAC, two steps (ours) is first with 90.2")
    rows = page.locator(".sites tbody tr")
    assert rows.count() == 2
    first = rows.nth(0).inner_text()
    for told in ("Table 1, Figure 10", "90.2 ± 0.2", "62.60 ± 4.41", "+27.6", "LAB RESULT", "lab_llama"):
        assert told in first
    assert "It lost. <img" in rows.nth(1).inner_text()
    left = page.get_by_text("begun is left out")
    assert left.count() == 1
    page.locator("[data-filter]").fill("it lost")
    assert [rows.nth(i).is_visible() for i in range(2)] == [False, True]


def test_every_table_of_the_paper_without_a_run_is_named_with_its_command(page: Any, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    told = page.locator("dl.pairs").inner_text()
    assert "Table 3" in told
    assert "fac experiment=table3" in told
    assert "Table 1\n" not in told


def test_a_runs_page_has_its_tables_figures_and_answer_and_sorts(page: Any, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="main", exact=True).first.click()
    assert page.locator("svg.chart").count() == 1
    assert "difference +27.6" in page.locator("table").inner_text()
    assert page.locator(".answer").first.inner_text().startswith("Toxicity AUPRC:")
    head = page.get_by_role("button", name="Toxicity AUPRC (%)")
    orders = []
    for _ in range(2):
        head.click()
        orders.append([row.split("\n")[0].split("\t")[0] for row in page.locator("tbody tr th").all_inner_texts()])
    assert orders[0] == orders[1][::-1]
    assert orders[0][0].startswith("FAC, two steps")


def test_claims_are_filtered_by_verdict_and_by_word(page: Any, site: Path) -> None:
    page.goto((site / "claims.html").as_uri())
    claims = page.locator(".claim")
    total = claims.count()
    page.locator("[data-choose]").select_option("no run yet")
    shown = page.locator(".claim:visible")
    assert 0 < shown.count() < total
    assert all("no run yet" in text for text in shown.all_inner_texts())
    page.locator("[data-choose]").select_option("")
    page.locator("[data-filter]").fill("toxicity")
    assert 0 < page.locator(".claim:visible").count() < total
    assert "FAC, two steps (ours) less Full (human data): +10.1" in page.locator("#best-toxicity").inner_text()


def test_features_are_searched_sorted_and_filtered_and_open_with_what_is_known(page: Any, site: Path) -> None:
    page.goto((site / "features.html").as_uri())
    entries, count = page.locator(".entry"), page.locator("#count")
    page.wait_for_selector(".entry")
    assert page.locator("#warning").inner_text().startswith("Harmful. <img")
    page.locator("#status").select_option("")
    assert count.inner_text().startswith("1,200 of 1,200 features")
    assert entries.count() == 50
    page.locator("#more").click()
    assert entries.count() == 100
    assert entries.first.get_attribute("data-feature") == "1199"  # the strongest
    page.locator("#turn").click()
    assert entries.first.get_attribute("data-feature") == "0"
    page.locator("#relevance").select_option("No")
    assert count.inner_text().startswith("300 of 1,200")
    page.locator("#relevance").select_option("all")
    page.locator("#status").select_option("2")
    assert count.inner_text().startswith("600 of 1,200")
    page.locator("#covered").select_option("yes")
    assert [entry.get_attribute("data-feature") for entry in entries.all()] == ["4", "6"]
    page.locator("#search").fill("lock 6")
    assert [entry.get_attribute("data-feature") for entry in entries.all()] == ["6"]
    page.locator(".opener").click()
    page.wait_for_selector(".detail")
    detail = page.locator(".detail").inner_text()
    assert "FAC, two steps (ours)" in detail
    assert "1, of them 1 written for it" in detail
    assert "kept" in detail
    assert page.locator(".detail mark").all_inner_texts() == ["lock", "words", "lock"]
    page.locator(".opener").click()
    assert page.locator(".detail").count() == 0


def test_an_address_leads_to_a_feature_of_a_later_file(page: Any, site: Path) -> None:
    page.goto((site / "features.html").as_uri() + "#0/1100")
    page.wait_for_selector("#feature-1100 .detail")
    page.goto((site / "features.html").as_uri() + "#0/11")
    page.wait_for_selector("#feature-11 .detail")
    assert page.locator("#count").inner_text().startswith("1 of 1,200")


def test_a_site_is_a_function_of_its_runs_and_replaces_an_earlier_one(outputs: Path, tmp_path: Path) -> None:
    write([outputs], tmp_path / "a", plainly)
    write([outputs], tmp_path / "b", plainly)
    (tmp_path / "b" / "runs" / "gone.html").write_text("of a run that is gone")
    write([outputs], tmp_path / "b", plainly)

    def files(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_data_are_scripts_that_hand_over_json_in_ascii(site: Path) -> None:
    for file in (site / "features").rglob("*.js"):
        text = file.read_text(encoding="ascii")
        name, _, rest = text.partition("(")
        assert name in ("facSets", "facList", "facChunk")
        json.loads(f"[{rest.removesuffix(');' + chr(10))}]")


def test_a_folder_with_something_else_is_not_overwritten(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(FacError, match="choose another folder with out=DIR"):
        write([outputs], tmp_path, plainly)
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_the_command_writes_it_and_says_what_was_left_out(outputs: Path, tmp_path: Path) -> None:
    done = fac_here("report", f"outputs={outputs}", f"out={tmp_path / 'site'}", cwd=tmp_path)
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("2 runs, 1,200 features, ")
    assert done.out.splitlines()[1] == f"site: {tmp_path / 'site' / 'index.html'}"
    assert "fac: begun is left out: it has no table.json" in done.err


def test_the_command_loads_no_library_of_models() -> None:
    script = "import sys, experiments.harness.site.command; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {"torch", "transformers", "sklearn", "datasets", "matplotlib", "mlflow"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["experiment=lab"], "leave out experiment=lab"),
        (["outputs"], "leave out outputs"),
        (["outputs=nowhere"], "no folder nowhere"),
        (["out=a", "out=b"], "out=DIR, once"),
        (["outputs=."], "No run has finished below ."),
    ],
)
def test_wrong_settings_are_said_in_a_sentence(tmp_path: Path, arguments: list[str], told: str) -> None:
    assert told in fac_here("report", *arguments, cwd=tmp_path).failure
    assert list(tmp_path.iterdir()) == []
