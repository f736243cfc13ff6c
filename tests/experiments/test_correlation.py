"""experiments.correlation and experiments.diversity: known correlations on their pages, and both run on one store."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.cli import fac_here

from experiments.harness.config import read_config
from experiments.harness.correlations import Point
from experiments.harness.experiment import Record, Results, Trial
from experiments.harness.results import Table
from experiments.pages.correlation import page
from experiments.pages.diversity import comparable
from fac.data.corpus import Corpus
from fac.diversity.metrics import METRICS
from fac.diversity.metrics.text import mean_length

METHODS = ("baseline", "full", "random_features", "fac_one_step", "fac")
TRIAL = Trial("toxicity", "fac", 42, 0, 42, "lab_llama", "lab_llama", "lab_llama")
NOISE = np.random.default_rng(0).normal(size=(2, 5, 2))


def records(task="toxicity", metric="auprc", level=0.0):
    """FAC and score rise from method to method, in two worlds, whose levels may differ, and two generations."""
    found = []
    for world in (0, 1):
        for i, method in enumerate(METHODS):
            for generation in (42, 43):
                covered = 0.2 * i + 0.01 * (generation == 43) * (i > 1)
                score = 0.5 + 0.08 * i + 0.01 * NOISE[world, i, (generation == 43) * (i > 1)] + level * world
                shares = {"any": covered, "ratio": 0.7 + 0.3 * covered}
                if i > 1:
                    shares["own"] = covered - 0.1
                trial = replace(TRIAL, task=task, method=method, data_seed=world, generation=generation)
                found.append(Record(trial, {metric: score}, {"chosen": shares}, {"added": 200}, {}))
    return found


def shown(*more: str, of: Any = None) -> list[Table]:
    """The tables of the page of such records."""
    run = read_config(["experiment=correlation", "experiment.draws=200", "experiment.worlds=[0,1]", *more])
    nowhere: Any = None
    return list(page(run, Results(records() if of is None else of, {}, nowhere)).tables)


def mean(table: Table, row: str, column: str = "toxicity") -> float:
    found = table.cell(row, column)
    assert found is not None, row
    return found.mean


def test_correlations_are_those_of_the_points_and_the_papers_stand_beside():
    main, behind = shown("experiment.tasks=[toxicity]")
    points = {(r.trial.data_seed, r.trial.method, r.metrics["auprc"]): r for r in records()}.values()
    for reading in ("any", "own", "ratio"):
        held = [(r.coverage["chosen"][reading], r.metrics["auprc"]) for r in points if reading in r.coverage["chosen"]]
        assert mean(main, f"{reading}_pearson") == pytest.approx(stats.pearsonr(*zip(*held, strict=True))[0])
        assert mean(main, f"{reading}_spearman") == pytest.approx(stats.spearmanr(held)[0])
    papers = {row: cell.paper.mean for row in main.rows if (cell := main.cell(row, "toxicity")) and cell.paper}
    assert papers == {"any_pearson": 0.95, "any_spearman": 0.90}
    assert all(main.cell(row, "toxicity").interval for row in main.rows)  # type: ignore[union-attr]
    assert mean(behind, "any_points") == 2 * (2 + 3 * 2)  # baseline and human data come to the same in both generations
    assert mean(behind, "any_rows") == 5
    assert mean(behind, "own_points") == 12
    assert "LAB RESULT" in main.to_markdown()


def test_what_is_behind_is_shown_without_the_seed_data_and_within_worlds():
    """Worlds of other levels blur the pooled r, and not that within worlds."""
    main, behind = shown("experiment.tasks=[toxicity]", of=records(level=0.5))
    assert mean(main, "any_pearson") < 0.5
    assert mean(behind, "any_within_pearson") > 0.95
    rest = [r for r in records(level=0.5) if r.trial.method != "baseline"]
    points = {(r.trial.data_seed, r.trial.method, r.metrics["auprc"]): r for r in rest}.values()
    expected = stats.pearsonr([r.coverage["chosen"]["any"] for r in points], [r.metrics["auprc"] for r in points])[0]
    assert mean(behind, "any_adding_pearson") == pytest.approx(expected)
    assert behind.cell("own_adding_pearson", "toxicity") is None  # no point of its own samples is the baseline's


def test_the_papers_numbers_stand_beside_its_model_and_its_number_alone():
    (main, _) = shown("experiment.tasks=[toxicity]", "model=lab_mistral")
    assert not any(cell.paper for cell in main.cells)
    (main, _) = shown("experiment.tasks=[instruction]", of=records("instruction", "followed"))
    assert not any(cell.paper for cell in main.cells)  # the paper's is a judge's win rate
    assert mean(main, "any_pearson", "instruction") > 0.9


def test_metrics_are_correlated_over_the_points_that_have_them_all():
    whole = [Point(0, method, 42, 1.0, {"distinct_1": 0.1, "vendi": 2.0, "any": 1.0}) for method in ("full", "fac")]
    lacks = Point(0, "random_features", 42, 1.0, {"vendi": 2.0, "any": 1.0})
    assert comparable([*whole, lacks]) == (whole, [lacks])
    assert comparable([]) == ([], [])


FULL = (
    "tasks.toxicity.sizes={anchor: 30, safe: 30, seed: 16, human: 10, labelled: 20, validation: 9, test: 60, known: 6}"
)


@pytest.mark.slow
def test_both_experiments_share_their_trials_and_measure_what_the_methods_added(tmp_path: Path):
    common = [
        FULL, "experiment.methods=[baseline,full,fac]", "experiment.worlds=[0,1]", "experiment.generations=[42]",
        "tasks.toxicity.budget=8", "seeds.training=[42]", "tasks.toxicity.train.epochs=1", "interpret.spans=2",
        "synthesis.n=1", "synthesis.m=1", "workers=1", "tracking.enabled=false",
    ]  # fmt: skip
    first = ["experiment=correlation", "experiment.tasks=[toxicity]", "experiment.draws=100", *common, "out=first"]
    second = ["experiment=diversity", "experiment.texts=4", "experiment.draws=3", *common, "out=second"]
    done = fac_here(*first, cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "first/records.json").read_text())
    main = Table.from_json((tmp_path / "first/table.json").read_text())
    held = [(record["coverage"]["chosen"]["any"], record["metrics"]["auprc"]) for record in found]
    assert mean(main, "any_pearson") == pytest.approx(stats.pearsonr(*zip(*held, strict=True))[0], abs=1e-5)
    assert "a method&#39;s mean" in (tmp_path / "first/report.html").read_text()

    assert "6 of 6 trials stored" in fac_here(*second, "dry_run=true", cwd=tmp_path).out
    done = fac_here(*second, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "second/table.json").read_text())
    assert {metric for metric in METRICS if metric not in table.columns} == set()
    for method in ("full", "fac"):  # the draws are of the texts that were added
        lengths = []
        for record in (record for record in found if record["trial"]["method"] == method):
            (folder,) = (tmp_path / "outputs/store").glob(f"*/{record['steps']['added']}")
            texts = [example.text for example in Corpus.load(folder)]
            orders = [np.random.default_rng(draw).permutation(len(texts))[:4] for draw in range(3)]
            lengths += [mean_length([texts[i] for i in order]) for order in orders]
        assert mean(table, method, "mean_length") == pytest.approx(np.mean(lengths), abs=1e-5)
    covered = [100 * r["coverage"]["chosen"]["any"] for r in found if r["trial"]["method"] == "fac"]
    assert mean(table, "fac", "any") == pytest.approx(np.mean(covered), abs=1e-5)
    assert 0 < mean(table, "fac", "equal_length") <= mean(table, "fac", "any") + 1e-6
    assert mean(table, "baseline", "equal_length") == 0
    correlations = Table.from_json((tmp_path / "second/metric_correlations.json").read_text())
    distinct = correlations.cell("distinct_1", "pearson")
    assert distinct is not None
    assert distinct.paper is not None
    assert distinct.paper.mean == -0.58
    assert correlations.cell("mean_length", "partial") is None
    assert "6 points" in correlations.notes[0]
