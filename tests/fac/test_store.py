import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fac import steps
from fac.errors import FacError
from fac.provenance import made_with
from fac.steps import VERSIONS
from fac.store import Origin, Step, Store, stage_key

scalar = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
params = st.dictionaries(
    st.text(),
    st.recursive(scalar, lambda part: st.lists(part) | st.dictionaries(st.text(), part), max_leaves=6),
    max_size=4,
)


def shuffled(value, draw):
    """An equal value whose dictionaries were filled in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return [shuffled(part, draw) for part in value] if isinstance(value, list) else value


@given(params, st.data())
def test_the_order_of_parameters_is_irrelevant(value, data):
    assert stage_key("s", 1, value, []) == stage_key("s", 1, shuffled(value, data.draw), [])


@given(params, params)
def test_other_parameters_other_key(one, two):
    assume(json.dumps(one, sort_keys=True) != json.dumps(two, sort_keys=True))
    assert stage_key("s", 1, one, []) != stage_key("s", 1, two, [])


def test_everything_that_decides_is_in_the_key():
    keys = [
        stage_key("s", 1, {"k": 1}, ["a", "b"]),
        stage_key("t", 1, {"k": 1}, ["a", "b"]),
        stage_key("s", 2, {"k": 1}, ["a", "b"]),
        stage_key("s", 1, {"k": 1.0}, ["a", "b"]),
        stage_key("s", 1, {"k": True}, ["a", "b"]),
        stage_key("s", 1, {"k": "1"}, ["a", "b"]),
        stage_key("s", 1, {"k": 1}, ["b", "a"]),
        stage_key("s", 1, {"k": 1}, ["ab"]),
        stage_key("s", 1, {"k": 1}, []),
        stage_key("s", 1, {"k": 0.1 + 0.2}, ["a", "b"]),
        stage_key("s", 1, {"k": 0.3}, ["a", "b"]),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 20 and set(key) <= set("0123456789abcdef") for key in keys)


@dataclass(frozen=True)
class Options:
    rate: float
    layers: tuple[int, ...]


def test_equal_values_equal_key():
    plain = stage_key("s", 1, {"o": {"rate": 0.5, "layers": [1, 2]}}, ["abc"])
    assert stage_key("s", 1, {"o": Options(0.5, (1, 2))}, ["abc"]) == plain
    assert stage_key("s", 1, {"o": {"layers": (np.int64(1), 2), "rate": np.float64(0.5)}}, ["abc"]) == plain
    assert stage_key("s", 1, {"o": Options(0.5, (1, 2))}, ("abc",)) == plain


def test_a_key_is_the_same_on_every_machine():
    canonical = b'["features", 1, {"delta": 0.0, "layer": 16}, ["abc"]]'
    expected = hashlib.sha256(canonical).hexdigest()[:20]
    assert stage_key("features", 1, {"layer": 16, "delta": 0.0}, ["abc"]) == expected


@pytest.mark.parametrize(
    "value", [Path("a"), {1: "a"}, {1, 2}, np.zeros(2), object(), Options], ids=lambda v: type(v).__name__
)
def test_what_has_no_place_in_a_key(value):
    with pytest.raises(TypeError, match=r"params\.a\[0\]\.b is a"):
        stage_key("s", 1, {"a": [{"b": value}]}, [])


def test_a_stage_is_built_once(tmp_path):
    events, builds = [], []
    store = Store(tmp_path / "store", events.append)

    def build(folder):
        builds.append(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "data.txt").write_text("done")

    def features(k):
        return Step("features", build, {"k": k})

    assert store.find(features(np.int64(3))) is None
    first = store.get(features(np.int64(3)))
    assert store.find(features(3)) == first
    assert store.find(features(4)) is None
    assert first == store.get(features(3)) == Store(tmp_path / "store").get(features(3))
    assert len(builds) == 1
    assert first == tmp_path / "store" / "features" / features(3).key
    assert (first / "deep" / "data.txt").read_text() == "done"
    assert os.listdir(first.parent) == [first.name]  # no lock, no partial folder
    record = json.loads((first / "stage.json").read_text())
    assert {k: record[k] for k in ("name", "version", "params", "inputs")} == {
        "name": "features",
        "version": VERSIONS["features"],
        "params": {"k": 3},
        "inputs": [],
    }
    assert [event.kind for event in events] == ["started", "built", "reused"]
    assert (events[2].seconds, events[2].cpu_seconds) == (events[1].seconds, events[1].cpu_seconds)
    assert record["made_with"] == made_with()
    second = store.get(Step("coverage", lambda *_: None, inputs=(features(3),)))
    assert json.loads((second / "stage.json").read_text())["inputs"] == [{"name": "features", "key": first.name}]


def test_cpu_seconds_count_this_process_and_its_children(tmp_path):
    events = []
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    Store(tmp_path, events.append).get(
        Step("child", lambda _: subprocess.run([sys.executable, "-c", spin], check=True))
    )
    Store(tmp_path, events.append).get(Step("self", lambda _: exec(spin, {}) or sum(range(10**6))))
    assert events[1].cpu_seconds >= 0.3
    assert events[3].cpu_seconds > 0


def test_a_failed_build_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.get(Step("s", fail))
    assert not store.find(Step("s", print))
    assert os.listdir(tmp_path / "s") == []  # no lock, no half of it

    seen = []
    store.get(Step("s", lambda folder: seen.extend(os.listdir(folder))))
    assert seen == []


def test_a_resumable_build_gets_its_folder_back(tmp_path):
    store = Store(tmp_path)

    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.get(Step("s", fail, resumable=True))
    assert [name.partition("-")[0] for name in os.listdir(tmp_path / "s")] == [".partial"]  # no lock
    seen = []
    store.get(Step("s", lambda folder: seen.extend(os.listdir(folder)), resumable=True))
    assert seen == ["half.txt"]


def test_a_step_of_another_version_is_another_step(tmp_path, monkeypatch):
    """What an older version of the code made is not found, and counted."""
    store = Store(tmp_path)
    first = store.get(Step("features", lambda _: None))
    assert json.loads((first / "stage.json").read_text())["version"] == VERSIONS["features"]
    assert store.outdated() == 0
    monkeypatch.setattr(steps, "VERSIONS", {**VERSIONS, "features": VERSIONS["features"] + 1})
    assert not store.find(Step("features", print))
    assert store.outdated() == 1
    assert store.get(Step("features", lambda _: None)).name != first.name
    (tmp_path / "features" / "broken").mkdir()
    (tmp_path / "features" / "broken" / "stage.json").write_text("{")  # nobody's business
    assert store.outdated() == 1
    assert Store(tmp_path / "none").outdated() == 0


def test_the_origins_of_steps_are_told_by_how_many_they_are_of(tmp_path):
    store = Store(tmp_path)
    made = [store.get(Step("s", lambda _: None, params={"n": n})) for n in range(3)]
    record = json.loads((made[1] / "stage.json").read_text())
    record["made_with"]["commit"] = "other"
    (made[1] / "stage.json").write_text(json.dumps(record))
    asked = [(folder.parent.name, folder.name) for folder in [*made, made[0]]]  # one of them twice
    assert [(origin.commit, origin.steps) for origin in store.origins(asked)] == [
        (made_with()["commit"], 2),
        ("other", 1),
    ]
    assert store.origins(asked[:1]) == [Origin(**made_with(), steps=1)]
    assert store.origins([]) == []


def test_a_name_is_a_folder_name(tmp_path):
    for name in ("", "a/b", "..", ".partial-x"):
        with pytest.raises(ValueError, match="name"):
            Store(tmp_path).get(Step(name, lambda _: None))


WORKER = textwrap.dedent("""
    import os, signal, sys, time
    from pathlib import Path
    from fac.jsonl import AppendLog
    from fac.store import Step, Store

    root, die_at = Path(sys.argv[1]), int(sys.argv[2])

    def build(folder):
        with (root / "builds").open("a") as stream:
            stream.write(f"{os.getpid()}\\n")
        with AppendLog(folder / "log.jsonl") as log:
            for n in range(sum(1 for _ in log), 10):
                if n == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                log.append([{"n": n, "pid": os.getpid()}])
                time.sleep(0.02)

    events = []
    finished = Store(root / "store", lambda event: events.append(event.kind)).get(Step("s", build, resumable=True))
    print(*events, finished)
""")


def worker(root: Path, die_at: int = -1) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(root), str(die_at)], stdout=subprocess.PIPE, text=True)


def test_kill_and_resume_do_nothing_twice(tmp_path):
    """A real SIGKILL in the middle of a build, twice; the third process finishes what the others left."""
    pids = []
    for die_at in (3, 7):
        child = worker(tmp_path, die_at)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert not Store(tmp_path / "store").find(Step("s", print))
        pids.append(child.pid)
    last = worker(tmp_path)
    out, _ = last.communicate()
    assert last.returncode == 0
    assert out.startswith("started built ")
    lines = Path(out.split()[-1], "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["n"] for record in records] == list(range(10))
    assert [record["pid"] for record in records] == [pids[0]] * 3 + [pids[1]] * 4 + [last.pid] * 3


def test_processes_that_want_the_same_stage_build_it_once(tmp_path):
    outs = sorted(child.communicate()[0] for child in [worker(tmp_path) for _ in range(3)])
    assert [out.rpartition(" ")[0] for out in outs] == ["reused", "reused", "started built"]
    assert len((tmp_path / "builds").read_text().split()) == 1
    assert not [name for name in os.listdir(tmp_path / "store" / "s") if name.startswith(".")]


def test_a_waiting_process_takes_over_when_the_builder_is_killed(tmp_path):
    children = [worker(tmp_path, die_at=3), worker(tmp_path, die_at=3)]
    codes = [child.wait() for child in children if child.communicate() is not None]
    # one dies at record 3; the other takes over from there, and dies at once, since it starts at record 3
    assert codes == [-signal.SIGKILL] * 2
    assert len((tmp_path / "builds").read_text().split()) == 2
    out, _ = worker(tmp_path).communicate()
    assert out.startswith("started built ")


def test_after_an_error_only_one_of_those_who_wait_builds(tmp_path):
    """The lock of a build that failed is gone; who waited for it and who came later must not both have one."""
    store, order, ready = Store(tmp_path), [], threading.Barrier(2)

    def fail(_):
        ready.wait()
        time.sleep(0.2)  # both others wait by now
        raise ZeroDivisionError

    def build(_):
        order.append("in")
        time.sleep(0.1)
        order.append("out")

    def first():
        with pytest.raises(ZeroDivisionError):
            store.get(Step("s", fail))

    waiting = [threading.Thread(target=lambda: store.get(Step("s", build))) for _ in range(2)]
    failing = threading.Thread(target=first)
    failing.start()
    ready.wait()
    for thread in waiting:
        thread.start()
    for thread in [failing, *waiting]:
        thread.join(10)
    assert order == ["in", "out"]
    assert len(os.listdir(tmp_path / "s")) == 1


def test_a_store_that_cannot_be_written(tmp_path):
    """Below a regular file, where nobody, root included, can make a folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FacError, match=r"file/store cannot be written .*Not a directory.*run again; it continues"):
        Store(tmp_path / "file" / "store").get(Step("s", lambda _: None))
    assert not Store(tmp_path / "file" / "store").find(Step("s", print))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk(tmp_path):
    def build(folder):
        (folder / "kept.txt").write_text("kept")
        with open("/dev/full", "w") as stream:
            stream.write("x")

    store = Store(tmp_path)
    with pytest.raises(FacError, match=r"ran out of space \(No space left on device\): free some"):
        store.get(Step("s", build, resumable=True))
    seen = []
    store.get(Step("s", lambda folder: seen.extend(os.listdir(folder)), resumable=True))
    assert seen == ["kept.txt"]


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path):
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from fac.errors import FacError
        from fac.store import Step, Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        try:
            Store(Path(sys.argv[1])).get(Step("s", lambda folder: (folder / "data").write_bytes(b"x" * 5_000)))
        except FacError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"The store {tmp_path} ran out of space (File too large)")


def test_errors_about_other_places_pass_through(tmp_path):
    with pytest.raises(NotADirectoryError):
        Store(tmp_path / "store").get(Step("s", lambda _: Path("/dev/null/x").write_text("")))
    with pytest.raises(FileNotFoundError):
        Store(tmp_path / "store").get(Step("s", lambda folder: (folder / "none").read_text()))


NO_PRIVILEGES = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


@pytest.mark.skipif(
    bool(NO_PRIVILEGES and not shutil.which("setpriv")), reason="root without setpriv: nothing is read-only"
)
def test_a_read_only_store_gives_what_it_has(tmp_path):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from fac.errors import FacError
        from fac.store import Step, Store
        store = Store(Path(sys.argv[1]), lambda event: print(event.kind))
        store.get(Step("s", lambda _: None))
        try:
            store.get(Step("s", lambda _: None, {"n": 2}))
        except FacError as error:
            print(error)
    """)
    first = Store(tmp_path / "store").get(Step("s", lambda _: None))
    first.parent.chmod(0o500)
    command = [*NO_PRIVILEGES, sys.executable, "-c", script, str(tmp_path / "store")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    reused, refused = done.stdout.splitlines()
    assert reused == "reused"
    assert refused.startswith(f"The store {tmp_path / 'store'} cannot be written (Permission denied): make the folder")


# What happens to what is kept


def lines_of(count, folder, *inputs):
    (folder / "inner").mkdir()
    (folder / "inner" / "lines.txt").write_text("".join(f"{n}\n" for n in range(count)))
    (folder / "sum.txt").write_text(str(sum(len((path / "sum.txt").read_text()) for path in inputs) + count))


def two_steps():
    first = Step("first", partial(lines_of, 50), {"n": 50})
    return first, Step("second", partial(lines_of, 9), {"n": 9}, (first,))


def flip(file):
    """One bit, with size and times as they were."""
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


DAMAGE = {
    "one bit": (flip, "inner/lines.txt", "is not what was written"),
    "cut": (lambda file: os.truncate(file, 10), "inner/lines.txt", "is not what was written"),
    "empty": (lambda file: os.truncate(file, 0), "sum.txt", "is not what was written"),
    "gone": (lambda file: file.unlink(), "sum.txt", "No such file"),
    "a folder of its name": (lambda file: (file.unlink(), file.mkdir()), "sum.txt", "Is a directory"),
    "the record": (lambda file: file.write_text("{"), "stage.json", "stage.json cannot be read"),
    "another record": (lambda file: file.write_text("[]"), "stage.json", "stage.json cannot be read"),
}


@pytest.mark.parametrize("which", ["first", "second"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_file_that_was_damaged_is_found_by_its_checksum_and_made_again(tmp_path, how, which):
    store = Store(tmp_path)
    steps = dict(zip(("first", "second"), two_steps(), strict=True))
    written = {name: (store.get(step) / "inner/lines.txt").read_bytes() for name, step in steps.items()}
    assert store.mend([steps["second"]]) == []
    damage, name, said = DAMAGE[how]
    damage(store.get(steps[which]) / name)
    (told,) = store.mend([steps["second"]])
    assert re.fullmatch(rf"{which} {steps[which].key[:8]} is damaged \(.*{said}.*\): it is made again", told)
    assert store.find(steps[which]) is None
    built = []
    again = Store(tmp_path, lambda event: built.append((event.kind, event.name)))
    for step in steps.values():
        again.get(step)
    assert [name for kind, name in built if kind == "built"] == [which]
    assert {name: (store.get(step) / "inner/lines.txt").read_bytes() for name, step in steps.items()} == written
    assert store.mend(steps.values()) == []


def test_what_older_code_finished_without_checksums_is_taken_as_it_is(tmp_path):
    store, (first, _) = Store(tmp_path), two_steps()
    record = store.get(first) / "stage.json"
    told = json.loads(record.read_text())
    assert set(told.pop("files")) == {"inner/lines.txt", "sum.txt"}
    record.write_text(json.dumps(told))
    flip(store.get(first) / "sum.txt")
    assert store.mend([first]) == []


def test_what_nothing_needs_any_more_is_not_made_again(tmp_path):
    store, (first, second) = Store(tmp_path), two_steps()
    store.get(second)
    flip(store.get(first) / "sum.txt")
    assert len(store.mend([second])) == 1
    store.get(second)
    assert store.find(first) is None


def test_a_clock_that_was_set_back_changes_nothing(tmp_path):
    """What was finished in the future is as finished, and what is built then has a cost that is not negative."""
    store, (first, second) = Store(tmp_path), two_steps()
    folder, key = store.get(first), second.key
    later = time.time() + 10**6
    for file in [*folder.rglob("*"), folder]:
        os.utime(file, (later, later))
    events = []
    again = Store(tmp_path, events.append)
    assert again.mend([second]) == []
    again.get(two_steps()[1])
    assert [(event.kind, event.name) for event in events if event.kind != "started"] == [
        ("reused", "first"),
        ("built", "second"),
    ]
    assert all(event.seconds >= 0 for event in events)
    assert two_steps()[1].key == key
