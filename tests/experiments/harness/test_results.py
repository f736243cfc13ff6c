"""experiments.harness.results: cells and tables."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.results import (
    LAB_LABEL,
    Table,
    measured,
    observed,
    origin_notes,
    paired,
    provenance,
)
from fac.errors import FacError
from fac.provenance import commit_of_this_process
from fac.store import Origin

by_seed = st.dictionaries(st.integers(0, 2**31), st.floats(-1e6, 1e6), min_size=1, max_size=8)


@given(by_seed)
def test_measured_against_numpy(values: dict[int, float]) -> None:
    cell = measured("fac", "toxicity", values)
    assert cell.seeds == tuple(sorted(values))
    assert dict(zip(cell.seeds, cell.values, strict=True)) == values
    assert cell.n == len(values)
    assert cell.mean == pytest.approx(np.mean(list(values.values())), abs=1e-6)
    if len(values) == 1:
        assert cell.std is None
    else:
        assert cell.std == pytest.approx(np.std(list(values.values()), ddof=1), rel=1e-6, abs=1e-6)


@given(
    st.dictionaries(st.integers(0, 99), st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=6)
)
def test_paired_is_the_difference_seed_by_seed(both: dict[int, tuple[float, float]]) -> None:
    ours = measured("fac", "c", {s: a for s, (a, _) in both.items()}, run_ids=["1", "2"])
    other = measured("baseline", "c", {s: b for s, (_, b) in both.items()}, run_ids=["2", "3"])
    gap = paired(ours, other, "gap")
    differences = [both[s][0] - both[s][1] for s in sorted(both)]
    assert gap.values == tuple(differences)
    assert gap.std == pytest.approx(np.std(differences, ddof=1), abs=1e-9)
    assert (gap.row, gap.column, gap.unit, gap.run_ids) == ("gap", "c", "points", ("1", "2", "3"))


def test_paired_wants_the_same_seeds() -> None:
    with pytest.raises(FacError, match=r"seeds \[1, 2\].*seeds \[1, 3\].*same seeds"):
        paired(measured("a", "c", {1: 0, 2: 0}), measured("b", "c", {1: 0, 3: 0}), "gap")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_with_its_seed(bad: float) -> None:
    with pytest.raises(FacError, match=r"fac / toxicity is (nan|inf) at seed 43"):
        measured("fac", "toxicity", {42: 1.0, 43: bad})
    with pytest.raises(FacError, match="at least one seed"):
        measured("fac", "toxicity", {})


@pytest.mark.parametrize(
    ("values", "unit", "shown"),
    [
        ({1: 62.61, 2: 66.0}, "percent", "64.3 ± 2.4"),
        ({1: 62.61}, "percent", "62.6"),
        ({1: 23.63}, "points", "+23.6"),
        ({1: -0.01}, "points", "+0.0"),
        ({1: 2004}, "count", "2,004"),
        ({1: 213, 2: 214}, "count", "213.5 ± 0.7"),
        ({1: 0.9534}, "correlation", "0.953"),
    ],
)
def test_how_a_number_is_shown(values: dict[int, float], unit: str, shown: str) -> None:
    assert measured("r", "c", values, unit=unit).shown() == shown


def test_how_the_papers_number_is_shown() -> None:
    assert measured("r", "c", {1: 1.0}, paper=PaperNumber(62.6, 4.41, "")).paper_shown() == "62.60 ± 4.41"
    assert measured("r", "c", {1: 1.0}, unit="points", paper=PaperNumber(23.63, None, "")).paper_shown() == "+23.63"
    assert measured("r", "c", {1: 1.0}).paper_shown() == ""


# Tables --------------------------------------------------------------------------------------------------------------


def example(scale: str = "lab", flip: bool = False, run: str = "") -> Table:
    reported = paper_table("table1")
    cells = [
        measured(
            "baseline",
            "toxicity",
            {43: 65.0, 42: 64.0},
            paper=reported.get("baseline", "toxicity"),
            run_ids=[f"a{run}"],
        ),
        measured(
            "fac", "toxicity", {42: 88.123456789, 43: 87.0}, paper=reported.get("fac", "toxicity"), run_ids=[f"b{run}"]
        ),
        measured("fac", "novel", {42: 0.25}, unit="correlation"),
    ]
    return Table(
        experiment="table1",
        scale=scale,
        title="Main results",
        rows=("baseline", "fac"),
        columns=("toxicity", "novel"),
        cells=tuple(cells[::-1] if flip else cells),
        config_hash="0123456789ab",
        versions={"torch": "2.13.0", "fac": "0.1.0"} if flip else {"fac": "0.1.0", "torch": "2.13.0"},
        notes=("One | two.",),
        names={"toxicity": "Toxicity AUPRC", "fac": "FAC | ours"},
        provenance={"git_sha": f"sha{run}"},
    )


def test_json_has_the_contract() -> None:
    raw = json.loads(example().to_json())
    assert {"experiment", "scale", "cells", "config_hash", "versions"} <= set(raw)
    assert [(c["row"], c["column"]) for c in raw["cells"]] == [
        ("baseline", "toxicity"),
        ("fac", "toxicity"),
        ("fac", "novel"),
    ]
    cell = raw["cells"][1]
    assert {"row", "column", "mean", "std", "n", "seeds", "paper", "unit", "run_ids"} <= set(cell)
    assert cell["values"] == [88.123457, 87.0]
    where = {"source": "arXiv 2602.10388v4, Table 1", "place": "table1/fac/toxicity"}
    assert cell["paper"] == {"mean": 62.6, "std": 4.41, **where}
    assert raw["cells"][2]["std"] is None
    assert raw["cells"][2]["paper"] is None


def test_equal_tables_are_equal_bytes_and_provenance_can_be_left_out() -> None:
    assert example().to_json() == example(flip=True).to_json()
    first, again = example(run="1"), example(run="2", flip=True)
    assert first.to_json() != again.to_json()
    assert first.to_json(with_provenance=False) == again.to_json(with_provenance=False)


def test_json_round_trip() -> None:
    text = example().to_json()
    back = Table.from_json(text)
    assert back.to_json() == text
    assert back.to_markdown() == example().to_markdown()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cells": 3}', '{"cells": [], "rows": [], "columns": [], "notes": []}']
)
def test_what_is_not_a_table_is_refused(text: str) -> None:
    with pytest.raises(FacError, match="not a table written by fac"):
        Table.from_json(text)


def test_cells_must_lie_in_the_table_once() -> None:
    cell = measured("fac", "toxicity", {1: 1.0})
    table = example()
    for cells in [(cell, cell), (measured("nowhere", "toxicity", {1: 1.0}),)]:
        with pytest.raises(ValueError, match="outside the table or twice"):
            Table("e", "lab", "t", table.rows, table.columns, cells, "", {})


def test_markdown() -> None:
    text = example().to_markdown()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == [
        "| | Toxicity AUPRC (%) | novel (correlation) |",
        "|---|---:|---:|",
        "| baseline | 64.5 ± 0.7 (paper 38.97 ± 2.74) | – |",
        "| FAC \\| ours | 87.6 ± 0.8 (paper 62.60 ± 4.41) | 0.250 |",
    ]
    assert "seeds 42, 43" in text
    assert "0123456789ab" in text


def test_a_table_without_seeds_speaks_of_none() -> None:
    """What is counted over given files has no seed, and no spread over seeds is promised under it."""
    cells = (observed("a", "n", 12.0, unit="count"), observed("a", "share", 25.0))
    table = Table("e", "paper", "t", ("a",), ("n", "share"), cells, "0123456789ab", {}, ("A note.",))
    assert (cells[0].seeds, cells[0].values, cells[0].n, cells[0].std) == ((), (12.0,), 1, None)
    assert table.seeds() == ()
    assert table.reading_aid() == ""
    assert "seed" not in table.to_markdown()
    assert "| a | 12 | 25.0 |\n\n- A note.\n" in table.to_markdown()
    assert Table.from_json(table.to_json()) == table
    with pytest.raises(FacError, match="a / n is nan"):
        observed("a", "n", float("nan"))


def test_a_table_of_one_seed_promises_no_spread() -> None:
    table = Table("e", "paper", "t", ("a",), ("c",), (measured("a", "c", {42: 1.0}),), "", {})
    assert table.reading_aid() == "Of one seed, 42."


@pytest.mark.parametrize(
    ("label", "told"), [(LAB_LABEL, LAB_LABEL), ("", ""), ("Model x, not the lab's", "Model x, not")]
)
def test_a_table_says_what_it_is_whatever_its_scale(label: str, told: str) -> None:
    text = dataclasses.replace(example(), scale="lab", label=label).to_markdown()
    assert (LAB_LABEL in text) == (label == LAB_LABEL)
    assert told in text


# Versions, hash, files -----------------------------------------------------------------------------------------------


def origin(commit: str | None = "a" * 40, steps: int = 1, torch: str = "2.13", **host: object) -> Origin:
    return Origin(commit, {"torch": torch}, {"platform": "Linux", "device": "CPU A", "threads": 1, **host}, steps)


def test_a_table_says_with_what_its_steps_were_computed_beside_who_wrote_it() -> None:
    table = example().computed_by([origin(steps=12)])
    assert table.notes == example().notes  # one origin: nothing to say
    assert table.provenance == {
        "git_sha": "sha",
        "steps": [
            {
                "commit": "a" * 40,
                "versions": {"torch": "2.13"},
                "host": {"platform": "Linux", "device": "CPU A", "threads": 1},
                "steps": 12,
            }
        ],
    }
    assert Table.from_json(table.to_json()).to_json() == table.to_json()
    assert table.told_provenance() == [
        ("git_sha", "sha"),
        ("12 steps", f"commit {'a' * 40}; Linux, CPU A, 1; torch 2.13"),
    ]
    assert "written at commit sha, its steps computed at aaaaaaa" in table.to_markdown()


@pytest.mark.parametrize(
    ("origins", "notes"),
    [
        (
            [origin("a" * 40 + "-dirty", 3)],
            ["Computed by code with changes that are in no commit (aaaaaaa-dirty)."],
        ),
        (
            [origin("a" * 40, 3), origin("b" * 40 + "-dirty"), origin(None)],
            [
                "Its steps were computed by several versions of the code: aaaaaaa (3 steps), bbbbbbb-dirty (1 step), "
                "no checkout (1 step)."
            ],
        ),
        (
            [origin(steps=2), origin(torch="2.11")],
            ["Its steps were computed with several versions of torch: 2.13 (2 steps), 2.11 (1 step)."],
        ),
        (
            [origin(steps=2), origin(device="NVIDIA H100", threads=16), origin(threads=None)],
            [
                "Its steps were computed on several machines: CPU A (3 steps), NVIDIA H100 (1 step).",
                "Its steps were computed on several numbers of threads: 1 (2 steps), 16 (1 step).",
            ],
        ),
    ],
)
def test_a_mix_of_origins_is_said_in_a_note(origins: list[Origin], notes: list[str]) -> None:
    assert origin_notes(origins) == notes
    assert list(example().computed_by(origins).notes) == [*example().notes, *notes]


def test_who_writes_a_table_is_named() -> None:
    found = provenance()
    assert {"platform", "device", "threads"} <= found.keys()
    assert found.get("git_sha") == commit_of_this_process()


def test_a_score_stands_with_the_interval_over_resampled_test_items():
    draws = [np.linspace(60, 70, 1001), np.linspace(62, 72, 1001)]  # of two seeds; their mean goes from 61 to 71
    ours = measured("fac", "auprc", {1: 66.0, 2: 68.0}, replicates=draws)
    assert ours.interval == pytest.approx((61.25, 70.75))
    assert ours.shown() == "67.0 ± 1.4 [61.2, 70.8]"

    other = measured("baseline", "auprc", {1: 60.0, 2: 60.0}, replicates=[draws[0] - 6, draws[1] - 8])
    gain = paired(ours, other, "fac")  # draw by draw: what both share of the test's noise is gone
    assert gain.interval == pytest.approx((7.0, 7.0))
    assert gain.shown() == "+7.0 ± 1.4 [+7.0, +7.0]"
    assert paired(ours, measured("baseline", "auprc", {1: 60.0, 2: 60.0}), "fac").interval is None

    table = dataclasses.replace(example(), rows=("fac",), columns=("auprc",), cells=(ours,))
    again = Table.from_json(table.to_json())
    assert again.cells[0].interval == pytest.approx((61.25, 70.75))
    assert "In brackets: 95 % interval of the mean over resampled test items." in table.to_markdown()


def test_replicates_that_one_seed_lacks_give_no_interval():
    assert measured("fac", "auprc", {1: 66.0, 2: 68.0}, replicates=[np.zeros(10)]).interval is None
