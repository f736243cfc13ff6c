"""experiments.harness.views and experiment: records as cells, differences, figures."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.harness.experiment import Record, Trial, grid, sweep
from experiments.harness.paper_numbers import PaperNumber
from experiments.harness.views import Column, count, coverage, metric, pivot, sweep_figure

RUN: Any = SimpleNamespace(
    model=SimpleNamespace(name="lab_llama"),
    seeds=SimpleNamespace(training=(42, 43, 44), data=0, generation=42, annotation=42),
)
TRIAL = Trial("toxicity", "fac", 42, 0, 42, "lab_llama", "lab_llama", "lab_llama")


def record(auprc: float, covered: float = 0.5, replicates: Any = None, **trial: Any) -> Record:
    return Record(
        replace(TRIAL, **trial),
        {"auprc": auprc, "norm": 3.0},
        {"chosen": {"any": covered}, "0.5×max": {"any": covered}, "0.0": {"any": 1.0}},
        {"added": 200, "missing": 103},
        {"scores": "abc"},
        replicates={} if replicates is None else {"auprc": replicates},
    )


def test_a_grid_is_every_combination_once_and_seeds_stand_beside_each_other():
    trials = grid(RUN, task=("toxicity", "reward"), method=("baseline", "fac"))
    assert len(trials) == 2 * 2 * 3
    assert [trial.seed for trial in trials[:4]] == [42, 43, 44, 42]
    assert {trial.method for trial in trials[:6]} == {"baseline", "fac"}
    assert {trial.task for trial in trials[:6]} == {"toxicity"}
    assert {(t.features_of, t.writer, t.trained, t.test, t.data_seed) for t in trials} == {
        ("lab_llama", "lab_llama", "lab_llama", "test", 0)
    }
    assert grid(RUN, task="toxicity", method=("fac", "fac"), seed=None) == [replace(TRIAL, seed=None)]


def test_models_of_a_grid_follow_each_other_unless_they_are_named():
    follow = grid(RUN, task="toxicity", method="fac", seed=42, features_of=("a", "b"))
    assert [(t.features_of, t.writer, t.trained) for t in follow] == [("a", "a", "a"), ("b", "b", "b")]
    crossed = grid(RUN, task="toxicity", method="fac", seed=42, features_of=("a", "b"), writer=("a", "b"), trained="c")
    assert {(t.features_of, t.writer, t.trained) for t in crossed} == {(x, y, "c") for x in "ab" for y in "ab"}


def test_a_sweep_is_an_axis_of_settings():
    trials = grid(RUN, task="toxicity", method="fac", seed=None, settings=sweep("synthesis.temperature", (0.4, 0.8)))
    assert [trial.setting("synthesis.temperature") for trial in trials] == [0.4, 0.8]
    assert trials[0].setting("synthesis.top_p") is None
    assert len({hash(trial) for trial in trials}) == 2
    with pytest.raises(ValueError, match="a trial has no rows"):
        grid(RUN, rows=("fac",))


def test_a_record_is_the_same_read_back():
    one = record(0.625, settings=(("synthesis.temperature", 0.4), ("thresholds.absolute", (0.0, 1.0))))
    told = json.loads(json.dumps(one.to_json()))
    assert Record.from_json(told) == one
    assert "replicates" not in told


def test_cells_are_means_over_seeds_with_what_is_beside_them():
    records = [record(value, seed=seed) for seed, value in ((42, 0.60), (43, 0.64))]
    records += [record(value, method="baseline", seed=seed) for seed, value in ((42, 0.50), (43, 0.50))]
    paper = PaperNumber(62.6, 4.41, "Table 1")
    columns = [
        Column("auprc", "AUPRC", metric("auprc"), paper=lambda row: paper if row == "fac" else None),
        Column("gain", "minus Baseline", metric("auprc"), less="baseline"),
        Column("fac", "FAC", coverage("any")),
        Column("fac_at_0", "FAC at 0", coverage("any", "0.0")),
        Column("added", "added", count("added")),
        Column("norm", "norm", metric("norm", "norm")),
        Column("nowhere", "nowhere", metric("accuracy")),
    ]
    cells = {(cell.row, cell.column): cell for cell in pivot(records, ["baseline", "fac"], columns)}
    auprc = cells["fac", "auprc"]
    assert (auprc.mean, auprc.std, auprc.seeds) == (
        pytest.approx(62.0),
        pytest.approx(np.std([60, 64], ddof=1)),
        (42, 43),
    )
    assert auprc.paper == paper
    assert cells["baseline", "auprc"].paper is None
    gain = cells["fac", "gain"]
    assert (gain.mean, gain.unit, gain.values) == (pytest.approx(12.0), "points", pytest.approx((10.0, 14.0)))
    assert ("baseline", "gain") not in cells
    assert (cells["fac", "fac"].mean, cells["fac", "fac"].seeds) == (50.0, (42,))  # by the seed of writing
    assert cells["fac", "fac_at_0"].mean == 100.0
    assert (cells["fac", "added"].mean, cells["fac", "added"].seeds, cells["fac", "added"].unit) == (200, (), "count")
    assert cells["fac", "norm"].mean == 3.0
    assert not [column for _, column in cells if column == "nowhere"]


def test_test_noise_stands_beside_scores_only_where_every_seed_has_it():
    draws = np.linspace(0.5, 0.7, 101)
    with_noise = pivot([record(0.6, replicates=draws)], ["fac"], [Column("auprc", "", metric("auprc"))])
    assert with_noise[0].interval == pytest.approx((50.5, 69.5), abs=0.1)
    half = pivot([record(0.6, replicates=draws), record(0.6, seed=43)], ["fac"], [Column("auprc", "", metric("auprc"))])
    assert half[0].interval is None


def test_a_sweep_is_a_line_with_its_spread():
    records = [
        record(value, seed=seed, settings=(("synthesis.temperature", at),))
        for at, values in ((0.4, (0.5, 0.5)), (1.2, (0.6, 0.8)))
        for seed, value in zip((42, 43), values, strict=True)
    ]
    figure = sweep_figure(
        records,
        lambda trial: trial.setting("synthesis.temperature"),
        [Column("auprc", "AUPRC", metric("auprc"))],
        "Temperature",
        "temperature",
        "percent",
    )
    (line,) = figure.series
    assert list(line.x) == [0.4, 1.2]
    assert list(line.y) == pytest.approx([50, 70])
    spread = np.std([60, 80], ddof=1)
    assert list(line.low) == pytest.approx([50, 70 - spread])
    assert list(line.high) == pytest.approx([50, 70 + spread])


def test_what_one_row_has_more_than_each_other_is_paired_by_seed():
    records = [
        record(value, method=method, seed=seed)
        for method, values in {"baseline": (0.1, 0.2), "fac": (0.5, 0.9)}.items()
        for seed, value in zip((42, 43), values, strict=True)
    ]
    column = Column("lead", "", metric("auprc"), lead="fac", paper=lambda row: PaperNumber(1.0, None, "table1"))
    (cell,) = pivot(records, ("baseline", "fac"), [column])
    assert (cell.row, cell.column, cell.unit) == ("baseline", "lead", "points")
    assert cell.values == pytest.approx((40.0, 70.0))
    assert cell.paper == PaperNumber(1.0, None, "table1")
    assert pivot(records[:2], ("baseline", "fac"), [column]) == []
