"""experiments.harness.tables: what pages and tables say of records, where several models or draws stand in one."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from experiments.harness.experiment import Record, Trial
from experiments.harness.tables import budget_note, found_missing, place, weights_note, written

TRIAL = Trial("toxicity", "fac", 42, 0, 42, "lab_llama", "lab_llama", "lab_llama")
RUN: Any = SimpleNamespace(
    tasks={"toxicity": SimpleNamespace(budget=8, sizes=3), "reward": SimpleNamespace(sizes=None)}
)


def record(missing: int, added: int = 8, **trial: Any) -> Record:
    counts = {"relevant": 9, "missing": missing, "requested": 20, "kept": added, "added": added}
    return Record(replace(TRIAL, **trial), {}, {}, counts, {})


def test_what_is_missing_is_said_of_each_model_where_there_are_several():
    of = "relevant features on the anchor, missing in the seed data"
    assert found_missing([record(3), record(3, seed=43)]) == [(f"Toxicity: {of}", "9, 3")]
    crossed = [record(3), record(5, features_of="lab_qwen"), record(3, writer="lab_qwen")]
    assert found_missing(crossed) == [
        (f"Toxicity, features of lab_llama: {of}", "9, 3"),
        (f"Toxicity, features of lab_qwen: {of}", "9, 5"),
    ]


def test_what_was_written_and_budgets_that_were_not_reached_are_said_of_each_pair_of_models():
    alone = [record(3, added=7), record(3, added=7, seed=43)]
    assert [name for name, _ in written(alone)] == ["Toxicity, FAC, two steps (ours): written"]
    assert budget_note(RUN, alone, "toxicity").endswith("8 rows; FAC, two steps (ours) added 7.")
    crossed = [record(3, added=7), record(3, writer="lab_qwen"), record(5, added=6, features_of="lab_qwen")]
    assert [name for name, _ in written(crossed)] == [
        f"Toxicity, FAC, two steps (ours), features of {one}, written by {other}: written"
        for one, other in (("lab_llama", "lab_llama"), ("lab_llama", "lab_qwen"), ("lab_qwen", "lab_llama"))
    ]
    assert budget_note(RUN, crossed, "toxicity") == (
        "Toxicity: the budget is 8 rows; FAC, two steps (ours), features of lab_llama, written by lab_llama added 7, "
        "FAC, two steps (ours), features of lab_qwen, written by lab_llama added 6."
    )
    drawn = [record(3, added=7, data_seed=1), record(3, data_seed=2)]
    assert "FAC, two steps (ours), data seed 1 added 7." in budget_note(RUN, drawn, "toxicity")


def test_the_seed_of_the_data_is_a_world_only_in_the_lab():
    assert (place(RUN, ["toxicity"]), place(RUN, ["toxicity", "reward"])) == ("world", "data seed")


def test_a_table_says_that_the_weights_of_a_folder_are_not_the_model_s_own(tmp_path):
    run: Any = SimpleNamespace(values={"model": {"name": "small", "path": str(tmp_path)}})
    assert weights_note(run) == ""
    (tmp_path / "config.json").write_text('{"weights_of": "a file of 4 bits"}')
    assert weights_note(run) == "small: a file of 4 bits."
