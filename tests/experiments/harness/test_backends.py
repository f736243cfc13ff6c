"""experiments.harness.backends: where steps run changes nothing, and who leaves leaves nothing half done."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from experiments.harness.backends import Workers, advance, default_workers
from fac.errors import FacError
from fac.store import StageEvent, Step, Store, missing


def write(text: str, folder: Path, *inputs: Path) -> None:
    (folder / "text").write_text("".join((path / "text").read_text() for path in inputs) + text)
    (folder / "process").write_text(str(os.getpid()))


def refuse(folder: Path, *inputs: Path) -> None:
    raise FacError("This cannot be trained: give it rows.")


def sleep(folder: Path, *inputs: Path) -> None:
    (folder / "begun").touch()
    time.sleep(600)


def step(name: str, text: str, *inputs: Step, parallel: bool = False) -> Step:
    return Step(name, partial(write, text), {"text": text}, inputs, parallel=parallel)


def in_order(*targets: Step, store: Store, wait: bool = False) -> list[StageEvent]:
    events: list[StageEvent] = []
    waiting: list[list[Step]] = []
    kept = Store(store.root, events.append)
    with Workers(store.root, 2) as workers:
        left = [*targets]
        while left:
            left = advance(left, kept, waiting.append if wait else workers.submit)
            for chain in waiting:
                workers.submit(chain)
            waiting.clear()
            events += workers.results()
    return events


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.parametrize("wait", [False, True], ids=["at once", "when the caller is done"])
def test_what_is_planned_is_built_here_or_in_a_process(store: Store, wait: bool):
    data = step("data", "d")
    shared = step("train", "t", data, parallel=True)
    targets = [step("scores", text, shared, parallel=True) for text in "ab"] + [step("table", "T", data)]
    planned = {(one.name, one.key) for one in missing(targets, store)}
    events = in_order(*targets, store=store, wait=wait)
    built = [(event.name, event.key) for event in events if event.kind == "built"]
    assert sorted(built) == sorted(planned)  # each once, though two chains needed the same training
    assert [(store.get(target) / "text").read_text() for target in targets] == ["dta", "dtb", "dT"]
    ours = str(os.getpid())
    assert (store.get(data) / "process").read_text() == ours
    assert (store.get(shared) / "process").read_text() != ours
    assert missing(targets, store) == []
    assert [event.kind for event in in_order(*targets, store=store)] == []


@pytest.mark.slow
def test_what_needs_a_training_here_waits_for_the_process_that_trains(store: Store):
    first = step("train", "t", step("data", "d"), parallel=True)
    measured = step("features", "f", step("model", "m", first))
    second = step("train", "u", measured, parallel=True)
    targets = [step("scores", "s", second, parallel=True), step("table", "T")]
    in_order(*targets, store=store, wait=True)
    assert (store.get(targets[0]) / "text").read_text() == "dtmfus"
    where = {one: (store.get(one) / "process").read_text() == str(os.getpid()) for one in (first, measured, second)}
    assert where == {first: False, measured: True, second: False}


@pytest.mark.slow
def test_the_error_of_a_process_is_said(store: Store):
    with pytest.raises(FacError, match="give it rows"):
        in_order(Step("train", refuse, parallel=True), store=store)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "left"])
def test_a_process_that_dies_is_said_and_who_leaves_does_not_wait(store: Store, how: str):
    def leave() -> None:
        with Workers(store.root, 1) as workers:
            workers.submit([Step("train", sleep, parallel=True)])
            while not list((store.root / "train").glob(".partial-*/begun")):
                time.sleep(0.02)
            if how == "left":
                raise KeyboardInterrupt
            children = psutil.Process().children()
            worker = next(child for child in children if "resource_tracker" not in " ".join(child.cmdline()))
            os.kill(worker.pid, signal.SIGKILL)
            list(workers.results())

    with pytest.raises(KeyboardInterrupt if how == "left" else FacError, match=None if how == "left" else "workers=N"):
        leave()
    assert store.find(Step("train", sleep, parallel=True)) is None


def test_what_is_finished_starts_no_process(store: Store):
    target = step("scores", "a", step("train", "t", parallel=True), parallel=True)
    store.get(target)
    before = psutil.Process().children()
    assert in_order(target, store=store) == []
    assert psutil.Process().children() == before
    assert default_workers() >= 1
