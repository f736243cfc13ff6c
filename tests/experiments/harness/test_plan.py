"""experiments.harness.plan: what is listed as to do is what a run builds; what is not there is said."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from experiments.harness.experiment import Trial
from experiments.harness.plan import labelled, planned, report
from fac.errors import FacError
from fac.store import StageEvent, Step, Store

TRIAL = Trial("toxicity", "fac", 42, 0, 42, "lab_llama", "lab_llama", "lab_llama")


def write(folder: Path, *inputs: Path) -> None:
    (folder / "done").touch()


def step(name: str, text: str, *inputs: Step) -> Step:
    return Step(name, write, {"text": text}, inputs)


def absent() -> str:
    raise FacError("There is no model there: name one that is.")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def scores(seed: int, data: Step) -> Step:
    return step("scores", str(seed), step("classifier", str(seed), data))


def test_steps_are_counted_by_name_and_trials_by_state(store: Store):
    data = step("features", "x", step("draw", "x"))
    trials = {replace(TRIAL, seed=seed): [scores(seed, data)] for seed in (42, 43)}
    store.get(trials[TRIAL][0])
    found = planned([target for targets in trials.values() for target in targets], store)
    assert found.stored == {"draw": 1, "features": 1, "classifier": 1, "scores": 1}
    assert found.to_do == {"classifier": 1, "scores": 1}
    events: list[StageEvent] = []
    Store(store.root, events.append).get(trials[replace(TRIAL, seed=43)][0])
    assert {(event.name, event.key) for event in events if event.kind == "built"} == found.left

    told = report("experiment=lab", trials, [], store)
    assert "everything is stored, the run will only write its table" in told
    assert "2 of 2 trials stored" in told


def test_the_plan_shows_what_is_stored_and_what_is_to_do(store: Store):
    data = step("draw", "x")
    trials = {
        replace(TRIAL, seed=seed, method=method): [step("scores", f"{method}{seed}", data)]
        for method in ("baseline", "fac")
        for seed in (42, 43)
    }
    store.get(trials[replace(TRIAL, seed=42, method="baseline")][0])
    lines = report("experiment=lab model=lab_llama", trials, [step("page", "p", data)], store).splitlines()
    assert lines[0] == f"Plan of experiment=lab model=lab_llama: 4 trials. Store: {store.root}"
    assert [line.split() for line in lines[2:6]] == [
        ["steps", "stored", "to", "do"],
        ["draw", "1", "0"],
        ["scores", "1", "3"],
        ["page", "0", "1"],
    ]
    assert [line.split() for line in lines[7:10]] == [
        ["toxicity", "seed", "42", "seed", "43"],
        ["baseline", "stored", "to", "do"],
        ["fac", "to", "do", "to", "do"],
    ]
    assert lines[-1] == "1 of 4 trials stored; 4 steps to do. Nothing was run or written."


def test_what_is_not_there_is_said_once_and_the_rest_is_planned(store: Store):
    lost = Step("features", write, {"model": absent})
    trials = {
        TRIAL: [step("scores", "a", lost)],
        replace(TRIAL, seed=43): [step("scores", "b", lost)],
        replace(TRIAL, method="baseline"): [step("scores", "c")],
    }
    told = report("experiment=lab", trials, [], store)
    assert told.count("here it would stop: There is no model there: name one that is.") == 1
    assert [line.split() for line in told.splitlines() if line.startswith("  fac")] == [["fac", "?", "?"]]
    assert told.endswith(
        "0 of 3 trials stored; the rest cannot be known before that is mended. Nothing was run or written."
    )
    assert not store.root.exists()


def test_trials_are_called_by_what_tells_them_apart():
    trials = [
        TRIAL,
        replace(TRIAL, writer="lab_qwen"),
        replace(TRIAL, writer="lab_qwen", settings=(("synthesis.temperature", 0.4),)),
    ]
    assert list(labelled(trials).values()) == [
        "fac, writer lab_llama",
        "fac, writer lab_qwen",
        "fac, writer lab_qwen, synthesis.temperature=0.4",
    ]
    assert list(labelled([TRIAL, replace(TRIAL, seed=43)]).values()) == ["fac", "fac"]


def test_two_objects_of_one_step_are_one(store: Store):
    one, two = (step("scores", "a", step("draw", "x")) for _ in range(2))
    assert planned([one, two], store).to_do == {"draw": 1, "scores": 1}
    assert partial(planned, [one])(store).left == {(s.name, s.key) for s in (one, *one.inputs)}
