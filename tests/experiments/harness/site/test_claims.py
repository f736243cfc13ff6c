"""A claim's verdict follows the interval, and is corrected for all comparisons of its table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.run_folders import scores, table_of, write_run

from experiments.harness.results import observed
from experiments.harness.site import claims
from experiments.harness.site.claims import (
    NO_RUN,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Absent,
    Claim,
    above,
    best,
    decide,
    gains,
    largest,
    leads,
    load,
    more,
    positive,
    unprinted,
    within,
)
from experiments.harness.site.runs import find
from fac.errors import FacError

HIGH, LOW, WIDE = (90, 90.2, 90.4), (70, 70.3, 70.1), (60, 75, 110)
PAIR = [["fac", "full"]]


def table(**rows):
    return table_of(scores(**rows))


def test_more_is_supported_refuted_or_undecided_by_the_interval() -> None:
    assert more(table(baseline=LOW, fac=HIGH, full=LOW), "toxicity", PAIR).verdict == SUPPORTED
    assert more(table(baseline=LOW, fac=LOW, full=HIGH), "toxicity", PAIR).verdict == NOT_SUPPORTED
    found = more(table(baseline=LOW, fac=WIDE, full=LOW), "toxicity", PAIR)
    assert found.verdict == UNDECIDED
    assert found.told[0].startswith("FAC, two steps (ours) less Full (human data): +11.5 [-")


def test_a_comparison_is_corrected_for_all_others_of_its_row_in_the_table() -> None:
    close = (80.0, 80.6, 81.6)  # p of about .03 against LOW's like
    alone = table(baseline=(79, 79, 79), fac=close)
    assert more(alone, "toxicity", [["fac", "baseline"]]).told[0].endswith("p 0.065")
    told = more(table(baseline=(79, 79, 79), fac=close, full=WIDE), "toxicity", [["fac", "baseline"]]).told[0]
    assert told.endswith("p 0.065, after Holm over 2 comparisons 0.131")


def test_what_one_comparison_would_support_a_table_of_many_leaves_open() -> None:
    rows = {f"m{i}": WIDE for i in range(8)}
    held = {"baseline": (79, 79.2, 79.1), "fac": (80.0, 80.6, 80.4)}
    pair = [["fac", "baseline"]]
    assert more(table(**held), "toxicity", pair).verdict == SUPPORTED
    assert more(table(**held, **rows), "toxicity", pair).verdict == UNDECIDED


def test_a_comparison_that_the_run_itself_made_is_told_as_the_run_has_it(tmp_path: Path) -> None:
    row = "toxicity/fac/full"
    told = {"difference": (20.0, "points"), "p": (0.01, "p"), "holm": (0.2, "p")}
    cells = [observed(row, column, value, unit=unit) for column, (value, unit) in told.items()]
    cells[0] = replace(cells[0], interval=(1.0, 39.0))
    held = table(baseline=LOW, fac=HIGH, full=LOW)
    assert more(held, "toxicity", PAIR).verdict == SUPPORTED
    write_run(tmp_path / "w", [held, table_of(cells, "claims")], paper=("table1",))
    ((_, found),) = decided(tmp_path).findings
    assert found.verdict == UNDECIDED
    assert found.told[0].endswith("+20.0 [+1.0, +39.0], p 0.010, after Holm over its comparisons 0.200")


def test_best_needs_every_row_and_one_that_is_better_is_enough_against_it() -> None:
    rows = ["baseline", "full"]
    assert best(table(baseline=LOW, full=LOW, fac=HIGH), "toxicity", rows).verdict == SUPPORTED
    assert best(table(baseline=LOW, full=HIGH, fac=LOW), "toxicity", rows).verdict == NOT_SUPPORTED
    partly = best(table(baseline=LOW, fac=HIGH), "toxicity", rows)
    assert (partly.verdict, partly.told[-1]) == (UNDECIDED, "not run: Full (human data)")
    with pytest.raises(Absent):
        best(table(baseline=LOW, fac=HIGH), "toxicity", ["alpaca"])


def test_one_seed_decides_nothing() -> None:
    found = more(table(baseline=[70], fac=[90]), "toxicity", [["fac", "baseline"]])
    assert (found.verdict, "without an interval" in found.told[0]) == (UNDECIDED, True)


def test_gains_must_hold_in_every_column_by_which_rows_are_judged() -> None:
    cells = [*scores("a", baseline=LOW, fac=HIGH), *scores("b", baseline=LOW, fac=HIGH), observed("fac", "rows", 1.0)]
    assert gains(table_of(cells), ["ours", "fac"], "baseline").verdict == SUPPORTED
    mixed = [*scores("a", baseline=LOW, fac=HIGH), *scores("b", baseline=LOW, fac=WIDE)]
    assert gains(table_of(mixed), "fac", "baseline").verdict == UNDECIDED
    with pytest.raises(Absent, match="ours or mine"):
        gains(table_of(cells), ["ours", "mine"], "baseline")


def test_shares_of_one_run_are_compared_without_an_interval() -> None:
    cells = [observed(row, column, 60.0) for row in ("one", "two") for column in ("0.0", "1.0")]
    found = gains(table_of(cells), "two", "one")
    assert found.verdict == UNDECIDED
    assert len(found.told) == 2


def test_differences_of_columns_are_judged_by_their_own_values() -> None:
    gains_ = [cell for cell in scores(baseline=LOW, fac=HIGH, full=WIDE) if cell.unit == "points"]
    assert leads(table_of(gains_), "toxicity_gain", ["fac"]).verdict == SUPPORTED
    assert leads(table_of(gains_), "toxicity_gain", ["fac", "full"]).verdict == UNDECIDED
    lost = [replace(cell, mean=-cell.mean, values=tuple(-v for v in cell.values)) for cell in gains_]
    assert leads(table_of(lost), "toxicity_gain", ["fac"]).verdict == NOT_SUPPORTED


def of(value: float, low: float | None = None, high: float = 0.0, row: str = "fac"):
    cell = observed(row, "r", value, unit="correlation")
    return cell if low is None else replace(cell, interval=(low, high))


def test_a_correlation_is_judged_by_its_own_interval() -> None:
    verdicts = [
        positive(table_of([cell]), "r", ["fac"]).verdict
        for cell in (of(0.9, 0.2, 0.99), of(0.5, -0.2, 0.9), of(-0.5, -0.9, -0.1), of(0.9))
    ]
    assert verdicts == [SUPPORTED, UNDECIDED, NOT_SUPPORTED, UNDECIDED]
    both = [of(0.9, 0.2, 0.99), of(0.5, -0.2, 0.9, "rho")]
    assert positive(table_of(both), "r", ["fac", "rho"]).verdict == UNDECIDED


def test_what_is_behind_a_correlation_must_hold_as_well_where_it_is_told() -> None:
    main = table_of([of(0.9, 0.2, 0.99)])
    apart = table_of([of(0.1, -0.5, 0.6, "without")], "behind")
    assert positive(main, "r", ["fac"], ["without"], [main]).verdict == SUPPORTED
    found = positive(main, "r", ["fac"], ["without"], [main, apart])
    assert (found.verdict, len(found.told)) == (UNDECIDED, 2)


def test_the_largest_is_above_the_intervals_of_all_others_in_size() -> None:
    def against(other, mine=(0.9, 0.6, 0.99)):
        return largest(table_of([of(*mine), other, of(0.95, 0.9, 0.99, "variant")]), "r", "fac", ["variant"]).verdict

    assert against(of(0.3, 0.1, 0.5, "distinct")) == SUPPORTED
    assert against(of(-0.3, -0.7, 0.1, "distinct")) == UNDECIDED
    assert against(of(-0.9, -0.95, -0.8, "distinct"), (0.2, 0.1, 0.3)) == NOT_SUPPORTED
    assert against(of(0.0, -0.9, 0.9, "distinct"), (0.2, 0.1, 0.3)) == UNDECIDED


def test_a_margin_counts_the_interval() -> None:
    def held(margin: float, **rows):
        return within(table(baseline=(80, 80.1, 80.2), **rows), "toxicity", "baseline", margin).verdict

    assert held(3, fac=(79, 79.2, 79.1)) == SUPPORTED
    assert held(0.5, fac=(79, 79.2, 79.1)) == NOT_SUPPORTED
    assert held(3, fac=(79, 79.2, 79.1), full=WIDE) == UNDECIDED
    some = table(baseline=(80, 80.1, 80.2), fac=(79, 79.2, 79.1), full=WIDE)
    assert within(some, "toxicity", "baseline", 3, of=["fac"]).verdict == SUPPORTED


def test_a_number_is_held_against_the_least_that_is_claimed() -> None:
    verdicts = [above(table_of([cell]), "r", ["fac"], 80).verdict for cell in (of(84.0), of(84.0, 70, 90), of(60.0))]
    assert verdicts == [SUPPORTED, UNDECIDED, NOT_SUPPORTED]


ASKS = {"column": "toxicity", "pairs": PAIR}
CLAIM = Claim("c", "It is more.", "§1", "9 against 8", "more", ("worlds", "table1"), asks=ASKS)


def decided(folder: Path) -> claims.Decided:
    (one,) = decide([CLAIM], find([folder])[0])
    return one


def test_without_a_run_nothing_is_decided(tmp_path: Path) -> None:
    write_run(tmp_path / "other", [table(baseline=LOW, fac=HIGH, full=LOW)])
    assert decided(tmp_path).verdict == NO_RUN


def test_the_experiment_that_weighs_most_decides_and_the_others_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "t1", [table(baseline=LOW, fac=HIGH, full=LOW)], paper=("table1",))
    write_run(tmp_path / "w", [table_of(scores(baseline=LOW, fac=LOW, full=HIGH), "worlds")])
    one = decided(tmp_path)
    assert one.verdict == NOT_SUPPORTED
    assert [(run.name, found.verdict) for run, found in one.findings] == [("w", NOT_SUPPORTED), ("t1", SUPPORTED)]


def test_runs_of_equal_weight_that_differ_leave_it_open(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [table(baseline=LOW, fac=HIGH, full=LOW)], paper=("table1",))
    write_run(tmp_path / "b", [table(baseline=LOW, fac=LOW, full=HIGH)], paper=("table1",))
    one = decided(tmp_path)
    assert (one.verdict, one.why) == (UNDECIDED, "the runs differ")


def test_choices_on_validation_data_and_tables_without_the_cells_decide_nothing(tmp_path: Path) -> None:
    held = [table(baseline=LOW, fac=HIGH, full=LOW)]
    write_run(tmp_path / "choice", held, paper=("table1",), options={"test": "validation"})
    write_run(tmp_path / "part", [table(baseline=LOW, fac=HIGH)], paper=("table1",))
    one = decided(tmp_path)
    assert (one.verdict, one.why) == (NO_RUN, "part does not hold full")


def test_what_only_the_papers_scale_can_decide_no_run_of_the_lab_does(tmp_path: Path) -> None:
    write_run(tmp_path / "lab", [table(baseline=LOW, fac=HIGH, full=LOW)], paper=("table1",))
    (one,) = decide([replace(CLAIM, paper_scale=True)], find([tmp_path])[0])
    assert (one.verdict, one.why) == (NO_RUN, "it takes runs at the paper's scale")


def test_every_claim_of_the_paper_can_be_asked() -> None:
    told = load()
    assert len({claim.id for claim in told}) == len(told)
    assert {claim.rule for claim in told} <= set(claims.RULES)
    for claim in told:
        if claim.rule == "unprinted":
            assert unprinted(table(baseline=LOW)).verdict == UNDECIDED
            continue
        with pytest.raises(Absent):  # its rule takes what it is asked with
            claims.RULES[claim.rule](
                table(baseline=LOW), **{**claim.asks, **({"column": "none"} if "column" in claim.asks else {})}
            )


def test_a_rule_that_there_is_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text("claims: [{id: a, statement: s, where: w, paper: p, rule: guess, experiments: []}]")
    monkeypatch.setattr(claims, "FILE", file)
    with pytest.raises(FacError, match="rule guess; there are best"):
        load()
