"""What is added is one file, and nothing else is edited: a method, an experiment, a diversity metric, a model.

Each is written into a copy of the checkout and used as a newcomer would, through the command line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.reduced import reduced

from experiments.harness.results import Table
from fac.provenance import REPOSITORY

METHOD = '''
"""Few-shot imitation: texts like some of the seed data, whatever they lack."""

import random

from fac.synthesis.method import Method, fill
from fac.synthesis.writer import Prompt

SHOTS = 3


def imitate(given, writer):
    """Each request shows three texts of the seed data, drawn anew."""

    def prompts(attempts):
        return [Prompt("imitate", {"texts": shown(attempt)}, None, attempt) for attempt in attempts]

    def shown(attempt):
        drawn = random.Random(f"{given.seed}/{attempt}").sample(list(given.seed_examples), SHOTS)
        return [example.text for example in drawn]

    return fill(given, writer, "imitating", prompts, given.budget, given.budget)


METHOD = Method("imitation", "Few-shot imitation", imitate, ("imitate",), lambda settings, missing, budget: budget)
'''

EXPERIMENT = '''
"""Table 10 on one task: what one step and two steps cover of the missing features, by threshold."""

from dataclasses import dataclass
from functools import partial

from experiments.harness import labels
from experiments.harness.experiment import Experiment, Plan, grid
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Page
from experiments.harness.tables import table
from experiments.harness.views import Column, coverage, names_of, pivot

STEPS = {"fac_one_step": "one_step", "fac": "two_step"}


@dataclass(frozen=True)
class Options:
    task: str = "toxicity"
    thresholds: tuple[str, ...] = ("0.0", "1.0", "2.0")


def plan(run, graph):
    return Plan(grid(run, task=run.experiment.task, method=list(STEPS), seed=None), partial(page, run))


def page(run, results):
    o = run.experiment
    kind = labels.kind_of(run, o.task, [run.model.name])

    def printed(threshold, row):
        return paper_table("table10").get(f"{STEPS[row]}@{threshold}", o.task)

    columns = [
        Column(f"fac@{t}", f"FAC at {t}", coverage("any", t), paper=partial(printed, t)) for t in o.thresholds
    ]
    made = table(
        run, "one_task", f"One step and two, {o.task}", list(STEPS), [column.name for column in columns],
        pivot(results.records, list(STEPS), columns), names_of(columns), kinds=[kind],
    )
    return Page(made.title, "Table 10 of the paper.", tables=[made])


EXPERIMENT = Experiment("one_task", "One step against two, on one task", plan, Options, paper="table20")
'''

METRIC = '''
"""How long texts are at most."""

from fac.diversity.metric import Metric

METRICS = (Metric("longest", "Longest text", "texts", lambda texts: float(max(map(len, texts))), unit="characters"),)
'''

MODEL = """# fac model=my_qwen: a model of mine.
name: my_qwen
path: {folder}
revision: null
sae: {folder}/sae
sae_tokens: 256
base: null
base_revision: null
chat_template: null
dtype: auto
"""

FILES = {
    "fac/synthesis/methods/imitation.py": METHOD,
    "experiments/one_task.py": EXPERIMENT,
    "fac/diversity/metrics/longest.py": METRIC,
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the added files."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("conf", "fac", "experiments", "eval", "results/paper"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "constraints.txt", copy)
    for name, text in FILES.items():
        assert not (copy / name).exists()
        (copy / name).write_text(text)
    shutil.copytree(REPOSITORY / "fac/lab/models/qwen", copy / "mine")
    (copy / "conf/model/my_qwen.yaml").write_text(MODEL.format(folder=copy / "mine"))
    return copy


def fac(checkout: Path, *arguments: str) -> str:
    """What `fac ARGUMENTS` prints in that checkout; fails if it fails."""
    command = [sys.executable, "-m", "experiments.harness.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or arguments[0] == "doctor", done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_lists_name_them(checkout):
    assert re.search("^imitation +Few-shot imitation$", fac(checkout, "methods"), re.MULTILINE)
    assert "One step against two, on one task" in fac(checkout, "experiments")
    assert "table20   one_task" in fac(checkout, "paper")
    assert "Longest text (characters), of texts" in fac(checkout, "metrics")
    assert "a model of mine." in fac(checkout, "models")


@pytest.mark.slow
def test_a_method_and_a_model_are_planned_priced_run_and_shown(checkout, tmp_path):
    rows = ["experiment=main_results", "model=my_qwen", "experiment.tasks=[toxicity]"]
    rows += ["experiment.methods=[baseline,imitation]", *reduced("toxicity", budget=6)]
    rows += [f"paths.outputs={tmp_path}", f"out={tmp_path}/out", "tracking.enabled=false"]
    planned = fac(checkout, *rows, "dry_run=true")
    assert "  imitation  to do" in planned
    assert "model=my_qwen" in planned
    priced = fac(checkout, "doctor", *rows, "llm=openai")
    assert f"in {checkout}/mine" in priced
    assert "for 6 requests of gpt-4o-mini" in next(line for line in priced.splitlines() if "cost write" in line)
    assert dollars(priced) > 0
    fac(checkout, *rows)
    table = Table.from_json((tmp_path / "out/table.json").read_text())
    assert table.name("imitation") == "Few-shot imitation"
    assert (cell := table.cell("imitation", "toxicity")) is not None
    assert 0 < cell.mean <= 100
    assert (added := table.cell("imitation", "toxicity_rows")) is not None
    assert added.mean == 6
    assert "Few-shot imitation" in (tmp_path / "out/report.html").read_text()
    assert "everything is stored" in fac(checkout, *rows, "dry_run=true")


@pytest.mark.slow
def test_an_experiment_is_planned_priced_run_and_shown(checkout, tmp_path):
    settings = [s for s in reduced("toxicity") if "train" not in s]  # nothing is trained
    rows = [
        "experiment=table20",
        *settings,
        f"paths.outputs={tmp_path}",
        f"out={tmp_path}/out",
        "tracking.enabled=false",
    ]
    planned = fac(checkout, *rows, "dry_run=true")
    assert "fac_one_step  to do" in planned
    assert "experiment=one_task" in planned
    assert dollars(fac(checkout, "doctor", *rows, "llm=openai")) > 0
    fac(checkout, *rows)
    table = Table.from_json((tmp_path / "out/table.json").read_text())
    assert table.rows == ("fac_one_step", "fac")
    cell = table.cell("fac", "fac@0.0")
    assert cell is not None
    assert cell.paper is not None
    assert cell.paper.mean == 81.8
    assert "Table 10 of the paper." in (tmp_path / "out/report.html").read_text()
    assert "everything is stored" in fac(checkout, *rows, "dry_run=true")


@pytest.mark.slow
def test_a_metric_stands_in_the_table_of_diversity(checkout, tmp_path):
    anchor, seed = tmp_path / "anchor.txt", tmp_path / "seed.txt"
    anchor.write_text("".join(f"text number {i} of the anchor\n" for i in range(30)))
    seed.write_text("a text\nanother of the texts\n")
    fac(
        checkout, "experiment=coverage", "model=my_qwen", f"data.anchor.path={anchor}", f"data.seed.path={seed}",
        f"paths.outputs={tmp_path}", f"out={tmp_path}/out", "tracking.enabled=false",
    )  # fmt: skip
    table = Table.from_json((tmp_path / "out/diversity.json").read_text())
    assert (cell := table.cell("longest", "seed")) is not None
    assert cell.mean == len("another of the texts")
    assert "Longest text" in (tmp_path / "out/report.html").read_text()


def dollars(told: str) -> float:
    """What the doctor says that it costs."""
    line = next(line for line in told.splitlines() if "cost in all" in line)
    return float(line.partition(" USD")[0].split()[-1])
