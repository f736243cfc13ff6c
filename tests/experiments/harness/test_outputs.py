"""experiments.harness.outputs: files are whole or as they were, and the hash is of what decides results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.harness.outputs import check_writable, config_hash, write_outputs
from fac.errors import FacError
from fac.provenance import REPOSITORY


def test_config_hash_forgets_where_and_how_fast() -> None:
    config = {"model": {"path": "m", "paths": 1}, "train": {"lr": 1e-4, "seeds": [1, 2]}}
    same = {
        "train": {"seeds": [1, 2], "lr": 1e-4, "num_workers": 3},
        "model": {"paths": 1, "path": "m", "device": "cuda"},
        "out": "x",
        "paths": {"data": "/d"},
        "tracking": {"uri": "u"},
        "launcher": {"name": "ray"},
        "hydra": {},
    }
    assert len(config_hash(config)) == 12
    assert config_hash(config) == config_hash(same)
    for other in [
        {**config, "train": {"lr": 2e-4, "seeds": [1, 2]}},
        {**config, "train": {"lr": 1e-4, "seeds": [2, 1]}},
        {**config, "model": {"path": "m", "paths": 2}},
    ]:
        assert config_hash(config) != config_hash(other)


def test_outputs_are_written_and_replaced(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    write_outputs(out, {"report.html": "<html>old", "config.yaml": "x: 1\n"})
    write_outputs(out, {"report.html": "<html>ö", "config.yaml": "x: 2\n"})
    assert {p.name: p.read_text(encoding="utf-8") for p in out.iterdir()} == {
        "report.html": "<html>ö", "config.yaml": "x: 2\n",
    }  # fmt: skip


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (lambda out: write_outputs(out, {"table.md": ""}), check_writable):
        with pytest.raises(FacError, match=r"cannot be written to .*file/out .*out=DIR"):
            attempt(tmp_path / "file" / "out")


def test_checking_a_folder_makes_it_and_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_full_disk_leaves_the_old_results_whole(tmp_path: Path) -> None:
    """The limit on file sizes stands for the disk: the report is longer than it allows."""
    write_outputs(tmp_path, {"report.html": "old", "config.yaml": "old: 1\n"})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    script = f"""
import resource
from pathlib import Path
from experiments.harness.outputs import write_outputs
from fac.errors import FacError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write_outputs(Path({str(tmp_path)!r}), {{"config.yaml": "new: 1", "report.html": "x" * 100_000}})
except FacError as error:
    raise SystemExit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
