"""What a table's rows come to, in a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.run_folders import scores, table_of

from experiments.harness.results import observed
from experiments.harness.site.answers import answer, difference, judged, standings


def said(**rows) -> str:
    (one,) = standings(table_of(scores(**rows)))
    return str(one)


def test_the_first_row_is_named_with_its_lead_and_interval() -> None:
    told = said(baseline=(70, 70, 70), full=(80, 81, 82), fac=(85, 86.5, 88))
    assert told == (
        "Toxicity AUPRC: FAC, two steps (ours) is first with 86.5, before Full (human data) (81.0) by +5.5 "
        "[+4.3, +6.7] over 3 seeds. FAC, two steps (ours) less Baseline (seed data): +16.5 [+12.8, +20.2]."
    )


def test_a_lead_within_its_interval_is_not_told_apart_whoever_leads() -> None:
    told = said(baseline=(70, 70, 70), full=(80, 85, 90), fac=(85, 83, 80))
    assert "Full (human data) is first with 85.0, before FAC, two steps (ours) (82.7)" in told
    assert "over 3 seeds: not told apart." in told


def test_one_seed_gives_no_interval() -> None:
    assert said(baseline=[70], fac=[90]).endswith("before Baseline (seed data) (70.0); one seed gives no interval.")


def test_differences_are_paired_by_seed_and_not_taken_over_others() -> None:
    one, other, *_ = scores(baseline=(70, 60, 50), fac=(71, 61, 51))
    estimate = difference(other, one)
    assert estimate is not None
    assert estimate.mean == pytest.approx(1)
    assert estimate.interval == pytest.approx((1, 1))
    fewer = scores(baseline=[70, 60])[0]
    assert difference(other, fewer) is None


def test_rows_are_judged_by_scores_and_not_by_counts_shares_or_differences() -> None:
    cells = scores(baseline=(1, 2, 3), fac=(2, 3, 4))
    more = [observed("fac", "rows", 200, unit="count"), observed("fac", "share", 50.0)]
    assert judged(table_of([*cells, *more])) == ["toxicity"]
    assert judged(table_of(more)) == []
    gap = [replace(cell, column="gap") for cell in cells if cell.unit == "points"]
    assert judged(table_of([*cells[:2], *gap])) == []  # of two columns


def test_several_columns_are_counted_and_a_runs_own_answer_goes_before() -> None:
    toxicity = scores(baseline=(70, 70, 70), fac=(85, 86.5, 88))
    reward = scores("reward", baseline=(70, 71, 75), fac=(70, 72, 73))
    both = standings(table_of([*toxicity, *reward]))
    told = answer("", both, ())
    assert told.startswith(
        "FAC, two steps (ours) is first in 1 of 2 columns, beyond its interval in 1. Toxicity AUPRC:"
    )
    others = standings(table_of([*scores("a", baseline=[1], full=[2]), *scores("b", baseline=[1], full=[2])]))
    assert answer("", others, ()) == str(others[0])  # nothing is said of a row that is not there
    assert answer("r is 0.9.", both, ()) == "r is 0.9."
    assert answer("", [], (("Texts", "12"),)) == "Texts: 12."
    assert answer("", [], ()) == ""
