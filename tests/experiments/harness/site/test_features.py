"""What the browser knows of each feature: read from the steps of the store, once for all runs that share them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.run_folders import Mined, scores, table_of, write_run

from experiments.harness.site import features
from experiments.harness.site.features import SAMPLES_OF_A_METHOD, UNKNOWN, FeatureSet, sets
from experiments.harness.site.runs import find

N = 12


@pytest.fixture
def mined(tmp_path: Path) -> Mined:
    return Mined(tmp_path / "store", N)


def read(folder: Path) -> tuple[list[FeatureSet], list[str]]:
    runs, left_out = find([folder])
    return list(sets(runs, left_out)), left_out


def run_of(mined: Mined, *records, name: str = "run", **more) -> None:
    table = table_of(scores(baseline=(70, 71, 72), fac=(80, 81, 82)))
    write_run(mined.root.parent / name, [table], mined.root, records, **more)


def active(*rows: int) -> np.ndarray:
    """A text for each, which activates that feature."""
    return np.eye(N)[list(rows)]


def test_counts_spans_and_verdicts_of_a_feature_are_those_of_the_steps(mined: Mined) -> None:
    written = [mined.sample(4, "pick a lock"), mined.sample(6, "a bolt"), mined.sample(4, "no", kept_=False, attempt=1)]
    run_of(mined, mined.write("fac", written, active(4, 4)))
    (one,), _ = read(mined.root.parent)
    assert one.title == "lab_llama, toxicity, data seed 0"
    row = features.row(one, 4)
    assert row[:8] == [4, "lockpicking 4", "Yes", "Probably", 5, 0, 5.0, 2]  # missing in the seed data
    assert row[9:] == [[2], [1]]  # two texts activate it, one of them was written for it
    assert features.row(one, 5)[7] == 1  # relevant, in the seed data
    assert features.row(one, 7)[7] == 0  # not relevant
    told = features.detail(one, 4)
    assert told["spans"] == [["how do i pick a lock", 16, 3.0], ["other words", 6, 2.0]]
    assert told["samples"] == [
        [["pick a lock", "lock", 2.5, True, "", 2], ["no", "no", 2.5, False, "does not activate", 2]]
    ]


def test_the_token_is_marked_as_the_step_kept_it_and_else_the_last_word(mined: Mined) -> None:
    run_of(mined, mined.write("fac", [], active(0)))
    (mined.root / "interpret/told1/tokens.json").write_text(json.dumps({0: [3, 5]}))
    (one,), _ = read(mined.root.parent)
    assert [start for _, start, _ in features.detail(one, 0)["spans"]] == [len("how do i pick a l"), len("other ")]
    assert [start for _, start, _ in features.detail(one, 1)["spans"]] == [len("how do i pick a "), len("other ")]


def test_the_token_is_not_marked_where_spans_end_before_it(tmp_path: Path) -> None:
    mined = Mined(tmp_path / "store", N, span_end="before")
    run_of(mined, mined.write("fac", [], active(0)))
    (one,), _ = read(tmp_path)
    text, start, _ = features.detail(one, 0)["spans"][0]
    assert start == len(text)


def test_runs_that_share_the_mining_share_a_set_and_each_step_of_a_method_is_in_it_once(mined: Mined) -> None:
    first = mined.write("fac", [mined.sample(0, "one")], active(0))
    again = mined.write("fac", [mined.sample(0, "two")], active(0), generation=43)
    full = mined.write("full", [mined.sample(None, "three")], active(1))
    run_of(mined, first, full)
    run_of(mined, replace(first, trial=replace(first.trial, seed=43)), again, name="other")
    (one,), _ = read(mined.root.parent)
    assert one.runs == ("other", "run")
    assert [w.name for w in one.written] == [
        "FAC, two steps (ours), generation 42",
        "FAC, two steps (ours), generation 43",
        "Full (human data)",
    ]
    assert one.written[2].own is None
    assert one.written[2].any[1] == 1


def test_some_samples_of_each_feature_are_shown_the_added_ones_first(mined: Mined) -> None:
    dropped = [mined.sample(2, f"dropped {i}", kept_=False, attempt=i) for i in range(SAMPLES_OF_A_METHOD)]
    run_of(mined, mined.write("fac", [*dropped, mined.sample(2, "kept", attempt=9)], active(2)))
    (one,), _ = read(mined.root.parent)
    (shown,) = features.detail(one, 2)["samples"]
    assert [sample[0] for sample in shown] == ["kept", "dropped 0", "dropped 1", "dropped 2"]


def test_a_tasks_warning_is_shown_and_an_old_run_is_warned_of_in_doubt(mined: Mined) -> None:
    record = mined.write("fac", [], active(0))
    run_of(mined, record, name="old", old=True)
    assert [one.warning for one in read(mined.root.parent)[0]] == [UNKNOWN]
    run_of(mined, record, name="said", warnings={"toxicity": "Harmful."})
    assert [one.warning for one in read(mined.root.parent)[0]] == ["Harmful."]


def test_a_run_that_warns_of_nothing_is_believed(mined: Mined) -> None:
    run_of(mined, mined.write("fac", [], active(0)))
    assert [one.warning for one in read(mined.root.parent)[0]] == [""]


def test_steps_that_are_gone_leave_their_set_out_in_a_sentence(mined: Mined) -> None:
    run_of(mined, mined.write("fac", [], active(0)))
    (mined.root / "interpret/told1/interpretations.jsonl").unlink()
    found, left_out = read(mined.root.parent)
    assert found == []
    assert left_out[0].startswith("The features of lab_llama, toxicity (run) are left out: their steps cannot be read")


def matching_run(mined: Mined, encoders: dict[str, str] | None) -> None:
    rows = [{"lab_llama": 4, "lab_qwen": 9, "r": 0.98}, {"lab_qwen": 9, "lab_mistral": 1, "r": 0.9}]
    files = {"matches.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    files |= {} if encoders is None else {"encoders.json": json.dumps(encoders)}
    table = table_of(scores(baseline=[1]), "matching")
    write_run(mined.root.parent / "matching", [table], mined.root, files=files)


def test_matches_join_by_the_sae_and_not_by_a_models_name(mined: Mined) -> None:
    run_of(mined, mined.write("fac", [], active(0)))
    mined._features("shared", [("draw", "d"), ("sae", "sae1")], active(0))
    mined._features("others", [("draw", "d"), ("sae", "sae2")], active(0))
    matching_run(mined, {"lab_llama": "shared", "lab_qwen": "others", "lab_mistral": "others"})
    (one,), _ = read(mined.root.parent)
    assert features.detail(one, 4)["matches"] == [["lab_qwen", 9, 0.98]]
    assert features.detail(one, 5)["matches"] == []


def test_matches_of_another_sae_under_the_same_name_are_not_shown(mined: Mined) -> None:
    run_of(mined, mined.write("fac", [], active(0)))
    mined._features("others", [("draw", "d"), ("sae", "sae2")], active(0))
    matching_run(mined, {"lab_llama": "others", "lab_qwen": "others", "lab_mistral": "others"})
    (one,), _ = read(mined.root.parent)
    assert features.detail(one, 4)["matches"] == []


def test_matches_of_a_run_that_did_not_say_which_saes_are_left_out_in_a_sentence(mined: Mined) -> None:
    matching_run(mined, None)
    _, left_out = read(mined.root.parent)
    told = "The matches of matching are left out: it does not say which SAEs it matched; run it again."
    assert left_out == [told]
