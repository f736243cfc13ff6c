"""experiments.harness.correlations: records as points of a correlation, and how it is shown."""

import math
from dataclasses import replace
from typing import Any

import pytest

from eval.correlation import Correlated, correlated, pearson, spearman
from eval.statistics import Interval
from experiments.harness.correlations import cell, of_adding, pairs, points_of, scatter, told
from experiments.harness.experiment import Record, Trial
from experiments.tasks import TASKS

TASK = TASKS["toxicity"]
TRIAL = Trial("toxicity", "fac", 42, 0, 42, "lab_llama", "lab_llama", "lab_llama")


def record(auprc: float, covered: float, **trial: Any) -> Record:
    return Record(replace(TRIAL, **trial), {"auprc": auprc}, {"chosen": {"any": covered}, "0.0": {"any": 1.0}}, {}, {})


def test_a_point_is_the_mean_over_training_seeds():
    records = [record(0.5, 0.4), record(0.6, 0.4, seed=43), record(0.9, 0.8, generation=43)]
    points = points_of([*records, record(0.1, 0.1, task="reward")], TASK)
    assert [(p.world, p.method, p.generation) for p in points] == [(0, "fac", 42), (0, "fac", 43)]
    assert [p.score for p in points] == pytest.approx([55, 90])
    assert [p.numbers["any"] for p in points] == pytest.approx([40, 80])


def test_what_no_generation_changes_is_one_point_in_each_world():
    alike = [record(0.5, 0.0, method="baseline", generation=g, data_seed=w) for w in (0, 1) for g in (42, 43)]
    points = points_of([*alike, record(0.5, 0.0, generation=42), record(0.5, 0.1, generation=43)], TASK)
    assert [(p.world, p.method, p.generation) for p in points] == [
        (0, "baseline", 42), (1, "baseline", 42), (0, "fac", 42), (0, "fac", 43),
    ]  # fmt: skip
    assert {p.method for p in of_adding(points)} == {"fac"}


def test_points_that_lack_a_number_are_no_part_of_its_correlation():
    numbers = {0: {"a": 1.0, "z": 5.0}, 1: {"a": 2.0}, 2: {"z": 6.0}, 3: {"a": 3.0, "z": 7.0}}
    records = [record(0.1 * world, 0.0, data_seed=world) for world in numbers]
    points = points_of(records, TASK, lambda r: numbers[r.trial.data_seed])
    assert pairs(points, "a").x.tolist() == [1, 2, 3]
    assert pairs(points, "a").y.tolist() == pytest.approx([0, 10, 30])
    held = pairs(points, "a", "z")
    assert held.worlds.tolist() == [0, 3]
    assert held.given is not None
    assert held.given.tolist() == [5, 7]


def test_a_coefficient_is_shown_with_its_interval_and_none_is_no_cell():
    found = cell("r", "c", Correlated(0.5, Interval(0.1, 0.8), 12, 4))
    assert found is not None
    assert found.shown() == "0.500 [0.100, 0.800]"
    assert found.n == 12
    assert cell("r", "c", Correlated(math.nan, None, 2, 1)) is None


def test_the_answer_is_one_sentence():
    points = points_of([record(0.1 * i, 0.1 * i**2, method=m, data_seed=w) for w in (0, 1) for i, m in enumerate(
        ("baseline", "full", "random_features", "fac"))], TASK)  # fmt: skip
    both = [correlated(pairs(points, "any"), of, 100) for of in (pearson, spearman)]
    assert told(*both).startswith("r 0.96 [")
    assert told(*both).endswith("ρ 1.00 [1.00, 1.00], over 8 points of 4 methods")
    none = [correlated(pairs(points[:2], "any"), of, 100) for of in (pearson, spearman)]
    assert told(*none) == "no correlation over 2 points: too few, or one of the two does not vary"


def test_a_figure_has_a_named_mean_for_each_method_and_all_points_behind():
    points = points_of([record(0.5, 0.2), record(0.7, 0.4, data_seed=1), record(0.1, 0.0, method="baseline")], TASK)
    means, each = scatter(points, "any", "t", "x", "y").series
    assert list(means.labels) == ["FAC, two steps (ours)", "Baseline (seed data)"]
    assert list(means.x) == pytest.approx([30, 0])
    assert list(means.y) == pytest.approx([60, 10])
    assert list(each.x) == pytest.approx([20, 40, 0])
    assert not means.line
    assert not each.line
    assert each.dashed
