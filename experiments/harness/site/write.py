"""The files of the site: an index, the claims, the features, and a page for each run."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import experiments
from experiments.harness import outputs
from experiments.harness.listing import DEFINES, PAPER_NAME, paper_order, title_of_paper
from experiments.harness.paper_numbers import names, paper_table
from experiments.harness.report import Site, filled, render
from experiments.harness.results import LAB_LABEL, Cell, Table
from experiments.harness.site import claims as paper_claims
from experiments.harness.site import features
from experiments.harness.site.answers import OURS, answer, judged, standings
from experiments.harness.site.claims import NO_RUN, NOT_SUPPORTED, SUPPORTED, UNDECIDED, VERDICTS, Decided
from experiments.harness.site.runs import REPORT, Run, find
from fac.errors import FacError

PAGES = (("Results", "index.html"), ("Claims", "claims.html"), ("Features", "features.html"))
SIGNS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", UNDECIDED: "?", NO_RUN: "–"}
SCRIPTS = ("site.js", "browser.js")
CHUNK = 500  # features whose spans and samples lie in one file
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A line of the index."""

    run: Run
    name: str
    order: str  # sorts by it
    answer: str
    column: str = ""  # of the numbers
    ours: str = ""
    ours_value: float | str = ""
    paper: str = ""
    difference: str = ""
    tags: tuple[str, ...] = ()


@dataclass
class Written:
    """What was written: for those who ran it."""

    out: Path
    runs: int = 0
    features: int = 0
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        size = sum(path.stat().st_size for path in self.out.rglob("*") if path.is_file())
        return f"{self.runs} runs, {self.features:,} features, {size / 1e6:.1f} MB"


def write(folders: Sequence[Path], out: Path, progress: Callable[[Iterator[Any], int], Iterator[Any]]) -> Written:
    """The site of all finished runs below the folders, in `out`, over what lies there; open its index.html.

    `progress` wraps what takes long, with its length. Raises FacError where no run has finished or `out` cannot be
    written.
    """
    runs, left_out = find(folders)
    if not runs:
        told = " ".join(left_out)
        raise FacError(f"No run has finished below {', '.join(map(str, folders))}: name others. {told}".rstrip())
    done = Written(out, len(runs), 0, left_out)
    _clear(out)
    decided = paper_claims.decide(paper_claims.load(), runs)
    sets = _features(runs, done, progress)
    texts = {script: (HERE / script).read_text(encoding="utf-8") for script in SCRIPTS}
    texts["claims.html"] = _claims(decided)
    texts["features.html"] = filled(
        "features.html.jinja", Site("features.html", PAGES, ("browser.js",)), title="Features", sets=sets
    )
    for run in runs:
        outputs.write_outputs(out / "runs", _run(run, out))
    texts["index.html"] = _index(runs, decided, len(sets), left_out)
    outputs.write_outputs(out, texts)
    return done


def _clear(out: Path) -> None:
    """Remove the parts of an earlier site. Raises FacError for a folder that holds something else."""
    outputs.check_writable(out)
    there = {path.name for path in out.iterdir()}
    if there and "site.js" not in there:
        raise FacError(f"{out} holds something else than a site of fac report: choose another folder with out=DIR.")
    for part in ("runs", "features"):
        shutil.rmtree(out / part, ignore_errors=True)


# Pages ---------------------------------------------------------------------------------------------------------------


def _run(run: Run, out: Path) -> dict[str, str]:
    """The page of a run, and, where its folder kept no figures, the page that it wrote itself."""
    files = {}
    report = ""
    if run.kept.warnings is None and (run.folder / REPORT).is_file():
        report = f"{run.slug}-report.html"
        files[report] = (run.folder / REPORT).read_text(encoding="utf-8")
    told = [run.kept.answer] if run.kept.answer else [str(standing) for standing in standings(run.tables[0], run.over)]
    site = Site(f"runs/{run.slug}.html", PAGES)
    page = run.kept.page(run.tables)
    return {**files, f"{run.slug}.html": render(page, site, told, run.lacks, report)}


def _claims(decided: Sequence[Decided]) -> str:
    ordered = sorted(decided, key=lambda one: one.verdict == NO_RUN)
    labels = [run.label for one in decided for run, _ in one.findings if run.label]
    return filled(
        "claims.html.jinja", Site("claims.html", PAGES), title="The paper's claims", decided=ordered, signs=SIGNS,
        verdicts=VERDICTS, counts=_counts(decided), labels=labels, lab=LAB_LABEL,
    )  # fmt: skip


def _counts(decided: Sequence[Decided]) -> list[str]:
    found = Counter(one.verdict for one in decided)
    return [f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict]]


def _index(runs: Sequence[Run], decided: Sequence[Decided], sets: int, left_out: Sequence[str]) -> str:
    results = [run for run in runs if not run.chooses]
    papers = sorted({name for run in results for name in run.paper}, key=paper_order)
    of_paper = sorted((_row(run) for run in results if run.paper), key=lambda row: (row.order, row.run.name))
    others = [_row(run) for run in results if not run.paper]
    weighing = next((run for one in decided for run, _ in one.findings), next(iter(results), runs[0]))
    named = sorted({*names(), *_declared()} - {*papers}, key=paper_order)
    return filled(
        "index.html.jinja", Site("index.html", PAGES), title="What the runs found", runs=len(runs), features=sets,
        counts=_counts(decided), labels=dict.fromkeys(run.label for run in results if run.label),
        sections=[("Tables and figures of the paper", of_paper), ("Other experiments", others)],
        not_run=[(title_of_paper(name), _what(name)) for name in named],
        headline=_row(weighing), choices=[_row(run) for run in runs if run.chooses], left_out=left_out,
    )  # fmt: skip


def _row(run: Run) -> Row:
    table = run.tables[0]
    found = standings(table, run.over)
    name = ", ".join(map(title_of_paper, run.paper)) or run.kept.title or table.title
    order = "{:d}{:03d}".format(*paper_order(run.paper[0])) if run.paper else name
    tags = [*([run.label.partition(":")[0]] if run.label else []), run.model]
    if len(run.commits) > 1 or any(commit.endswith("-dirty") for commit in run.commits):
        tags.append(f"commits {', '.join(run.commits)}")
    cell = _headline(table)
    told = answer(run.kept.answer, found, run.kept.facts)
    if cell is None:
        return Row(run, name, order, told, tags=tuple(tags))
    of = table.name(cell.column) if cell.row == OURS else f"{table.name(cell.row)}, {table.name(cell.column)}"
    return Row(
        run, name, order, told, of, cell.shown().partition(" [")[0],
        cell.mean, cell.paper_shown(), cell.from_paper(), tuple(tags),
    )  # fmt: skip


def _headline(table: Table) -> Cell | None:
    """Our method's number in the first column by which rows are judged, or else the last beside one of the paper's."""
    ours = [cell for column in judged(table) if (cell := table.cell(OURS, column)) is not None]
    printed = [cell for cell in table.cells if cell.paper is not None]
    return next((c for c in ours if c.paper), None) or next(iter(ours), None) or next(iter(reversed(printed)), None)


def _declared() -> set[str]:
    """What the experiments say they make of the paper, read from their text: to import them takes seconds."""
    found: set[str] = set()
    for folder in experiments.__path__:
        for path in Path(folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            if DEFINES.search(text):
                found |= {name for name in re.findall(r'"(\w+)"', text) if PAPER_NAME.fullmatch(name)}
    return found


def _what(name: str) -> str:
    title = f"{paper_table(name).title}: " if name in names() else ""
    return f"{title}fac experiment={name}" if name in _declared() else f"{title}no experiment makes it"


# Features ------------------------------------------------------------------------------------------------------------


def _features(
    runs: Sequence[Run], done: Written, progress: Callable[[Iterator[Any], int], Iterator[Any]]
) -> list[dict[str, Any]]:
    """Write the data of the browser: a list for each set, and what is shown of a feature in files of CHUNK features."""
    told: list[dict[str, Any]] = []
    ordered = sorted(runs, key=lambda run: run.chooses)
    for at, one in enumerate(progress(features.sets(ordered, done.left_out), features.number(runs))):
        ids = sorted(one.told)
        listed = {
            "rows": [features.row(one, feature) for feature in ids],
            "methods": [written.name for written in one.written],
            "threshold": str(one.found.grid.thresholds[one.found.chosen]),
            "warning": one.warning,
            "chunk": CHUNK,
        }
        files = {"list.js": _call("facList", at, listed)}
        for chunk, start in enumerate(range(0, len(ids), CHUNK)):
            details = {feature: features.detail(one, feature) for feature in ids[start : start + CHUNK]}
            files[f"{chunk}.js"] = _call("facChunk", at, chunk, details)
        outputs.write_outputs(done.out / "features" / str(at), files)
        told.append({"title": one.title, "model": one.model, "task": one.task, "n": len(ids), "runs": one.runs})
        done.features += len(ids)
    outputs.write_outputs(done.out / "features", {"sets.js": _call("facSets", told)})
    return told


def _call(function: str, *arguments: Any) -> str:
    """A script that hands over data; JSON in ASCII is JavaScript."""
    told = ", ".join(json.dumps(argument, separators=(",", ":"), allow_nan=False) for argument in arguments)
    return f"{function}({told});\n"
