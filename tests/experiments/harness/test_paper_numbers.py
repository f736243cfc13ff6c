"""experiments.harness.paper_numbers: the numbers of the paper are whole, and agree with each other where they must."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.harness.paper_numbers import PAPER_TABLES, PaperNumber, footnotes, names, paper_table
from fac.errors import FacError

NAMES = names()
HALF_A_DIGIT = 0.0051  # the paper prints two decimals


def test_every_table_with_numbers_is_there() -> None:
    expected = {f"table{n}" for n in range(1, 16)} - {"table2"}  # Table 2 has texts only
    assert expected <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_paper_table_is_whole(name: str) -> None:
    table = paper_table(name)
    assert table.source.startswith("arXiv 2602.10388v4, ")
    assert set(table.units) == set(table.columns)
    assert set(table.columns) <= set(table.names) <= {*table.rows, *table.columns}
    assert all(row in table.names or float(row) for row in table.rows)  # a temperature is its own name
    assert {column for _, column in table.numbers} == set(table.columns)
    assert {row for row, _ in table.numbers} == set(table.rows)
    assert set(table.sic) <= set(table.numbers)
    for place, number in table.numbers.items():
        assert number.std is None or number.std >= 0
        assert ("sic" in number.source) == (place in table.sic)
        if table.units[place[1]] in ("percent", "correlation"):
            assert abs(number.mean) <= (100 if table.units[place[1]] == "percent" else 1)


def value(table: str, row: str, column: str) -> float:
    number = paper_table(table).get(row, column)
    assert number is not None
    return number.mean


@pytest.mark.parametrize(
    ("name", "ours", "other"),
    [("table1", "fac", "baseline"), ("table13", "fac", "baseline"), ("figure15", "round_2", "base")],
)
def test_gap_rows_are_differences(name: str, ours: str, other: str) -> None:
    table = paper_table(name)
    for column in [c for c in table.columns if table.get("gap", c)]:
        agrees = abs(value(name, ours, column) - value(name, other, column) - value(name, "gap", column)) < HALF_A_DIGIT
        assert agrees == (("gap", column) not in table.sic), column


@pytest.mark.parametrize(
    ("name", "ours", "other"), [("table3", "fine_tuned", "baseline"), ("table4", "llama", "gpt_4o_mini")]
)
def test_gap_columns_are_differences(name: str, ours: str, other: str) -> None:
    for row in paper_table(name).rows:
        assert value(name, row, "gap") == pytest.approx(
            value(name, row, ours) - value(name, row, other), abs=HALF_A_DIGIT
        )


@pytest.mark.parametrize("name", ["table11", "table12"])
def test_gaps_to_the_baseline_of_table_1(name: str) -> None:
    for row in [r for r in paper_table(name).rows if r != "baseline"]:
        gap = value(name, row, "auprc") - value("table1", "baseline", "toxicity")
        assert value(name, row, "gap") == pytest.approx(gap, abs=HALF_A_DIGIT)


@pytest.mark.parametrize("name", ["table13", "table14"])
def test_averages_of_the_reward_sections(name: str) -> None:
    table = paper_table(name)
    for row in [r for r in table.rows if r != "gap"]:
        mean = np.mean([value(name, row, c) for c in ("chat", "chat_hard", "safety", "reasoning")])
        # the full/average oddity of Table 14 is against Table 1, not against its own sections
        odd = (row, "average") in table.sic and row != "full"
        assert (abs(mean - value(name, row, "average")) < 0.0051) != odd, row


def test_table_14_agrees_with_the_reward_column_of_table_1_but_for_the_oddities() -> None:
    main, sections = paper_table("table1"), paper_table("table14")
    for row in sections.rows:
        same = value("table1", row, "reward") == value("table14", row, "average")
        assert same == ((row, "reward") not in main.sic), row


def test_table_10_is_counts_over_the_missing_set() -> None:
    import yaml

    raw = yaml.safe_load((PAPER_TABLES / "table10.yaml").read_text())
    for row, counts in raw["covered"].items():
        for task, count in counts.items():
            printed = raw["rows"][row][task]
            decimals = 1 if task == "toxicity" else 2
            assert round(100 * count / raw["missing"][task], decimals) == printed, (row, task)
    for delta in ("0.0", "1.0", "2.0"):
        assert all(
            raw["covered"][f"one_step@{delta}"][t] <= raw["covered"][f"two_step@{delta}"][t] for t in raw["missing"]
        )


@pytest.mark.parametrize(("name", "size"), [("table6", 214), ("table11", 214)])
def test_every_fac_is_a_share_of_the_missing_features(name: str, size: int) -> None:
    for row in paper_table(name).rows:
        fac = value(name, row, "fac")
        assert 100 * round(fac * size / 100) / size == pytest.approx(fac, abs=0.011), row


def test_one_number_printed_in_several_tables() -> None:
    lora = [("table1", "fac", "toxicity"), ("table6", "original", "auprc"), ("table7", "65536_k20", "auprc")]
    lora += [("table11", "binary", "auprc"), ("table12", "fac", "auprc")]
    head = [
        ("table13", "fac", "toxicity"),
        ("table9", "100", "toxicity"),
        ("table4", "0.8", "llama"),
        ("table3", "llama", "fine_tuned"),
    ]
    assert {value(*place) for place in lora} == {62.60}
    assert {value(*place) for place in head} == {49.12}
    for row, column in [("fac_30", "30"), ("fac_60", "60"), ("fac_100", "100")]:
        assert value("figure1", row, "wr") == value("table9", column, "wr")
    for column in ("sycophancy", "survival", "lc", "wr", "sd"):
        assert value("table9", "100", column) == value("table1", "fac", column)


def test_steering_numbers_are_thirds_of_two_points() -> None:
    """50 items and three seeds: every mean SCR is a multiple of 2/3 point."""
    for column in ("sycophancy", "survival"):
        for row in paper_table("table1").rows:
            steps = value("table1", row, column) * 3 / 2
            assert steps == pytest.approx(round(steps), abs=0.011), (row, column)


def test_the_sic_of_a_number_stands_in_its_source() -> None:
    number = paper_table("table13").get("gap", "safety")
    assert number == PaperNumber(
        22.88, None, "arXiv 2602.10388v4, Table 13 (sic: 22.88 is printed; 22.43 by subtraction)"
    )


def test_unknown_paper_table_lists_the_known() -> None:
    with pytest.raises(FacError, match=r"table99.*table1, table10"):
        paper_table("table99")


@pytest.mark.parametrize("name", NAMES)
def test_traps_are_of_columns(name: str) -> None:
    table = paper_table(name)
    assert set(table.traps) <= {"all", *table.columns}
    assert all(trap.endswith(".") for trap in table.traps.values())


def test_footnotes_are_of_the_numbers_shown() -> None:
    """The table's note, the traps of all and of the columns that are shown, and what is odd in the cells shown."""
    table = paper_table("table1")
    shown = [table.get("full", "reward"), None, table.get("fac", "reward"), paper_table("table11").get("binary", "fac")]
    first, odd, other = footnotes(shown)
    assert first.startswith("Paper, Table 1: Mean and std of three seeds")
    assert first.endswith(table.traps["all"])
    assert "ToxicChat" not in first
    assert odd == f"Paper, Table 1, Full Dataset, Reward accuracy (sic): {table.sic['full', 'reward']}."
    assert other.startswith("Paper, Table 11: Gap is to the Baseline")
    assert "ToxicChat" in footnotes([table.get("fac", "toxicity")])[0]
    assert footnotes([PaperNumber(1.0, None, "elsewhere")]) == []
