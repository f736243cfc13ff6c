import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fac.errors import FacError
from fac.jsonl import AppendLog, write_json_atomic

record = st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3)


@given(st.lists(st.lists(record, max_size=4), max_size=4), st.data())
def test_a_log_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, batches, data):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    with AppendLog(path) as log:
        for batch in batches:
            log.append(batch)
        assert list(log) == [r for batch in batches for r in batch]
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    expected = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]]
    with AppendLog(path) as log:
        assert list(log) == expected
        log.append([{"next": 1}])
        assert list(log) == [*expected, {"next": 1}]


def test_a_torn_line_longer_than_a_block_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": "' + b"x" * 200_000)
    with AppendLog(path) as log:
        assert list(log) == [{"a": 1}]
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": \n{"c": 3}\n')
    with pytest.raises(FacError, match="line 2 is damaged: delete that line"), AppendLog(path) as log:
        list(log)


def test_a_killed_writer_loses_nothing_that_append_returned_from(tmp_path):
    """A real SIGKILL, again and again, while records are written and acknowledged."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from fac.jsonl import AppendLog
        log = AppendLog(Path(sys.argv[1]))
        done = sum(1 for _ in log)
        for n in range(done, 10**9):
            log.append([{"n": n, "text": "x" * 5000}])
            print(n, flush=True)
    """)
    path = tmp_path / "log.jsonl"
    acknowledged = -1
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(20):
            acknowledged = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split("\n")
        assert child.wait() == -signal.SIGKILL
        acknowledged = max([acknowledged, *(int(n) for n in rest[:-1])])
        with AppendLog(path) as log:
            numbers = [r["n"] for r in log]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged


def test_a_full_disk_keeps_what_was_there(tmp_path):
    """A real failed write: the process may not let a file grow beyond 10,000 bytes."""
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from fac.jsonl import AppendLog
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        log = AppendLog(Path(sys.argv[1]))
        log.append([{"n": 0}])
        try:
            log.append([{"n": 1}, {"text": "x" * 20_000}])
        except OSError:
            log.append([{"n": 2}])
    """)
    path = tmp_path / "log.jsonl"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert path.read_bytes() == b'{"n": 0}\n{"n": 2}\n'


def test_write_json_atomic(tmp_path):
    path = tmp_path / "deep" / "table.json"
    write_json_atomic(path, {"b": 1, "a": "ü"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 1, "a": "ü"}
    with pytest.raises(TypeError):
        write_json_atomic(path, {"bad": object()})
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["b", "a"]
    assert os.listdir(path.parent) == ["table.json"]


def test_write_json_atomic_on_a_full_disk_leaves_the_old_file(tmp_path):
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from fac.jsonl import write_json_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        try:
            write_json_atomic(Path(sys.argv[1]), ["x" * 5_000])
        except OSError as error:
            print(error.strerror)
    """)
    path = tmp_path / "table.json"
    write_json_atomic(path, [1])
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "File too large"
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ["table.json"]
