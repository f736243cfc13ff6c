"""fac.digests: every byte counts, and a file is read once for as long as it is the same."""

import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from fac.digests import cache_folder, digest_of, file_digest, remembered


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def old(file):
    """As if it had been written long ago; its change time cannot be set, so time goes on instead."""
    os.utime(file, (1, 1))
    return file


@pytest.fixture
def later(monkeypatch):
    now = time.time_ns
    monkeypatch.setattr("fac.digests.time.time_ns", lambda: now() + 10**10)


def test_it_is_the_sha256_of_all_bytes(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(os.urandom(9 << 20))
    assert file_digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("place", [0, 1234567, (5 << 20) - 1])
def test_one_changed_bit_is_seen_even_where_size_and_time_are_the_same(tmp_path, later, place):
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(5 << 20))
    before = file_digest(old(file))
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\1")
    assert file_digest(old(file)) != before


def test_a_file_is_read_once_while_it_is_the_same(tmp_path, later):
    file, reads = tmp_path / "f", []
    file.write_text("a")
    for _ in range(3):
        assert remembered("count", file, lambda f: reads.append(f) or "found") == "found"
    assert len(reads) == 1
    assert remembered("another", file, lambda _: "finding") == "finding"
    file.write_text("b")
    remembered("count", file, lambda f: reads.append(f) or "found")
    assert len(reads) == 2


def test_a_file_that_was_written_just_now_is_read_again(tmp_path):
    """Its times may not tell the next change apart."""
    file, reads = tmp_path / "f", []
    file.write_text("a")
    for _ in range(2):
        remembered("count", file, lambda f: reads.append(f) or "found")
    assert len(reads) == 2


def test_without_a_place_for_findings_it_is_found_again(tmp_path, later, monkeypatch):
    file = tmp_path / "f"
    file.write_text("a")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # no folder
    assert file_digest(file) == file_digest(file) == hashlib.sha256(b"a").hexdigest()


def test_processes_share_the_findings(tmp_path, later):
    file = tmp_path / "f"
    file.write_text("a")
    with ProcessPoolExecutor(4) as pool:
        assert set(pool.map(file_digest, [file] * 16)) == {hashlib.sha256(b"a").hexdigest()}
    assert not list(cache_folder().glob("*.[0-9]*"))  # nothing half-written


def test_names_count_and_places_do_not(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text("x")
        (tmp_path / folder / "b").write_text("x")
    one, two = ([tmp_path / folder / name for name in ("a", "b")] for folder in ("one", "two"))
    assert digest_of("", one) == digest_of("", two)
    assert len({digest_of("", one), digest_of("start", one), digest_of("", one[:1]), digest_of("", one[1:])}) == 4
