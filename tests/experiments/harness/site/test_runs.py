"""Finished runs are found by what they leave; what is broken or half there is named and left out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.run_folders import Mined, scores, table_of, trial, write_run

from experiments.harness.experiment import Record
from experiments.harness.paper_numbers import paper_table
from experiments.harness.site.runs import find
from fac.errors import FacError


def table():
    return table_of(scores(baseline=(70, 71, 72), fac=(80, 81, 82)))


def test_runs_are_found_wherever_they_lie_and_stores_are_not_searched(tmp_path: Path) -> None:
    write_run(tmp_path / "b" / "deep", [table(), table_of(scores(baseline=[1]), "details")])
    write_run(tmp_path / "a", [table()])
    write_run(tmp_path / "store" / "x", [table()])
    write_run(tmp_path / "steps" / "x", [table()])
    (tmp_path / "steps" / ".runs").mkdir()
    write_run(tmp_path / ".hidden", [table()])
    found, left_out = find([tmp_path])
    assert [run.name for run in found] == ["a", "b/deep"]
    assert [t.experiment for t in found[1].tables] == ["main_results", "details"]
    assert left_out == []


def test_a_run_that_has_not_finished_or_is_broken_is_named_in_a_sentence(tmp_path: Path) -> None:
    for name in ("cut", "half", "torn", "odd"):
        write_run(tmp_path / name, [table()])
    (tmp_path / "cut" / "table.json").write_text('{"cells": [')
    (tmp_path / "half" / "table.json").unlink()
    (tmp_path / "torn" / "config.yaml").unlink()
    (tmp_path / "odd" / "config.yaml").write_text("- 1")
    (tmp_path / "begun").mkdir()
    found, left_out = find([tmp_path])
    assert found == []
    assert [sentence.partition(" ")[0] for sentence in left_out] == ["begun", "cut", "half", "odd", "torn"]
    assert left_out[0].endswith("has not finished: run it again, and it continues.")
    assert all(sentence.count("\n") == 0 and sentence.endswith(".") for sentence in left_out)


@pytest.mark.parametrize("damage", ['{"a": 1}', "[]", "{", '[{"trial": {}}]', '[{"trial": null}]'])
def test_records_and_pages_that_cannot_be_read_leave_their_run_out(tmp_path: Path, damage: str) -> None:
    store = Mined(tmp_path / "store")
    record = store.write("fac", [], [[0] * 12])
    for file in ("records.json", "page.json"):
        write_run(tmp_path / file, [table()], store.root, [record])
        (tmp_path / file / file).write_text(damage)
    found, left_out = find([tmp_path])
    assert [run.name for run in found] == ([] if damage != "[]" else ["records.json"])  # of no trials
    assert len(left_out) == 2 - len(found)


def test_old_folders_are_read_and_what_they_lack_is_said(tmp_path: Path) -> None:
    printed = paper_table("table1").get("fac", "toxicity")
    cells = scores(baseline=(70, 71, 72), fac=(80, 81, 82))
    beside = [
        replace(cell, paper=printed) if (cell.row, cell.column) == ("fac", "toxicity") else cell for cell in cells
    ]
    write_run(tmp_path / "old", [table_of(beside), table_of(cells, "details")], old=True)
    (run,) = find([tmp_path])[0]
    assert [t.experiment for t in run.tables] == ["main_results", "details"]
    assert run.paper == ("table1",)
    assert ["no figures" in run.lacks[0], "no records" in run.lacks[1]] == [True, True]


def test_a_run_says_what_it_makes_of_the_paper_and_by_which_commits(tmp_path: Path) -> None:
    origins = [{"commit": c * 40, "versions": {}, "host": {}, "steps": 1} for c in "ab"]
    several = replace(table(), provenance={"git_sha": "c" * 40, "steps": origins})
    write_run(tmp_path / "run", [several], paper=("figure4", "table9"), options={"test": "validation"})
    (run,) = find([tmp_path])[0]
    assert run.paper == ("table9", "figure4")
    assert run.commits == ("a" * 7, "b" * 7)
    assert run.chooses


def test_a_store_that_moved_with_its_runs_is_found_and_a_missing_one_is_said(tmp_path: Path) -> None:
    store = Mined(tmp_path / "outputs" / "store")
    record = store.write("fac", [], [[0] * 12])
    write_run(tmp_path / "outputs" / "near", [table()], Path("outputs/store"), [record])
    write_run(tmp_path / "outputs" / "far", [table()], Path("/nowhere/store"), [record])
    far, near = find([tmp_path / "outputs"])[0]
    assert near.store == tmp_path / "outputs" / "store"
    assert near.lacks == ()
    assert far.store is None
    assert "/nowhere/store is not here" in far.lacks[0]


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ([{}, {"data_seed": 1}], "worlds"),
        ([{}, {"generation": 43}], "generations of one world"),
        ([{}, {"seed": 43}], "training seeds of one world"),
    ],
)
def test_a_run_says_what_its_numbers_were_had_again_over(tmp_path: Path, trials: list[dict], told: str) -> None:
    held = [Record(trial("fac", **more), {}, {}, {}, {}) for more in trials]
    write_run(tmp_path / "run", [table()], None, held)
    assert find([tmp_path])[0][0].over == told


def test_two_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "x" / "same", [table()])
    write_run(tmp_path / "y" / "same", [table()])
    found, _ = find([tmp_path / "x", tmp_path / "y"])
    assert len({run.slug for run in found}) == 2


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FacError, match="outputs=DIR"):
        find([tmp_path / "none"])
    assert os.listdir(tmp_path) == []
