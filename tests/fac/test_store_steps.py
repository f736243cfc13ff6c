"""fac.store.Step: keys are known before anything runs, and what a plan lists as missing is what is built."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fac.errors import FacError
from fac.store import StageEvent, Step, Store, missing


def write(text: str, folder: Path, *inputs: Path) -> None:
    """The text, behind those of the inputs."""
    (folder / "text").write_text("".join((path / "text").read_text() for path in inputs) + text)


def step(name: str, text: str, *inputs: Step) -> Step:
    return Step(name, partial(write, text), {"text": text}, inputs)


@pytest.fixture
def store(tmp_path: Path) -> tuple[Store, list[StageEvent]]:
    events: list[StageEvent] = []
    return Store(tmp_path / "store", events.append), events


def built(events: list[StageEvent]) -> list[tuple[str, str]]:
    return [(event.name, event.key) for event in events if event.kind == "built"]


def test_a_step_reads_the_folders_of_its_inputs_in_their_order(store):
    kept, _ = store
    one, two = step("one", "1"), step("two", "2")
    assert (kept.get(step("sum", "3", two, one)) / "text").read_text() == "213"
    record = json.loads((kept.get(step("sum", "3", two, one)) / "stage.json").read_text())
    assert [part["key"] for part in record["inputs"]] == [two.key, one.key]
    assert record["params"] == {"text": "3"}


def test_a_key_hangs_on_everything_before_it_and_is_known_before_anything_runs(store):
    kept, _ = store
    key = step("c", "3", step("b", "2", step("a", "1"))).key
    assert key == step("c", "3", step("b", "2", step("a", "1"))).key
    others = [
        step("c", "3", step("b", "2", step("a", "0"))),
        step("c", "3", step("b", "2")),
        step("c", "3", step("a", "1"), step("b", "2")),
        step("c", "4", step("b", "2", step("a", "1"))),
    ]
    assert len({key, *(other.key for other in others)}) == 5
    assert not kept.root.exists()


def test_a_finished_step_asks_for_nothing_before_it(store, tmp_path):
    kept, events = store
    first = step("a", "1")
    last = step("b", "2", first)
    kept.get(last)
    events.clear()
    (kept.root / "a" / first.key / "stage.json").unlink()
    (kept.root / "a" / first.key / "text").unlink()
    (kept.root / "a" / first.key).rmdir()
    assert missing([last], kept) == []
    assert (kept.get(last) / "text").read_text() == "12"
    assert [event.kind for event in events] == ["reused"]
    assert missing([first], kept) == [first]


@given(st.data())
def test_what_is_planned_is_what_is_built(tmp_path_factory, data):
    """In any graph, with any part of it done: the same steps, in the same order, each once."""
    store_events: list[StageEvent] = []
    kept = Store(tmp_path_factory.mktemp("store"), store_events.append)
    steps: list[Step] = []
    for number in range(data.draw(st.integers(1, 8))):
        inputs = data.draw(st.lists(st.sampled_from(steps), max_size=3)) if steps else []
        steps.append(step("s", str(number % 5), *inputs))  # some are the same step by key
    for done in data.draw(st.lists(st.sampled_from(steps), max_size=3)):
        kept.get(done)
    targets = data.draw(st.lists(st.sampled_from(steps), min_size=1, max_size=4))
    planned = [(one.name, one.key) for one in missing(targets, kept)]
    assert len(set(planned)) == len(planned)
    store_events.clear()
    for target in targets:
        kept.get(target)
    assert built(store_events) == planned
    assert missing(targets, kept) == []


def test_another_process_needs_the_inputs_by_key_alone(store):
    kept, events = store
    first = Step("a", lambda folder: write("1", folder), {"text": "1"})  # no process but this one can build it
    last = step("b", "2", first)
    kept.get(first)
    sent: Step = pickle.loads(pickle.dumps(last.detached()))
    assert sent.key == last.key
    assert (kept.get(sent) / "text").read_text() == "12"
    assert built(events)[-1] == ("b", last.key)


def test_what_cannot_be_known_is_said_when_the_key_is_asked_for(store):
    class Absent:
        def identity(self) -> str:
            raise FacError("There is no model there: name one that is.")

    kept, _ = store
    lost = Step("a", partial(write, "1"), {"model": Absent()})
    with pytest.raises(FacError, match="no model there"):
        missing([step("b", "2", lost)], kept)


def test_a_function_in_a_key_stands_for_its_value_and_is_called_when_the_key_is_asked_for():
    called: list[str] = []

    def looked_up(value: str) -> str:
        called.append(value)
        return value

    later = Step("a", write, {"x": lambda: looked_up("abc"), "y": [partial(looked_up, "d")]})
    assert called == []
    assert later.key == Step("a", write, {"x": "abc", "y": ["d"]}).key
    assert called == ["abc", "d"]


@pytest.mark.parametrize("identity", ["abc", lambda: "abc"], ids=["a value", "a method"])
def test_an_object_with_an_identity_stands_in_a_key_for_it(identity: str | Callable[[], str]):
    thing = type("Thing", (), {"identity": identity if isinstance(identity, str) else staticmethod(identity)})()
    assert Step("a", write, {"x": [thing]}).key == Step("a", write, {"x": ["abc"]}).key
