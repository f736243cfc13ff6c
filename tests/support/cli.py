"""The `fac` command as a user meets it: in a process of its own (`run_fac`, `start_fac`), or in this one (`fac_here`).

A process of its own costs seconds of imports; `fac_here` runs the very same `main` and is for all that needs no
process.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from hydra.core.global_hydra import GlobalHydra

from experiments.harness.cli import main

COMMAND = str(Path(sys.executable).with_name("fac"))


@dataclass(frozen=True)
class Finished:
    """How a command ended: its exit status and what stood on its two streams."""

    code: int
    out: str
    err: str
    peak: int = 0  # KiB of memory the process held at most; 0 for `fac_here`

    @property
    def failure(self) -> str:
        """The sentence the command failed with; fails if it did not fail as it should."""
        said = [line for line in self.err.splitlines() if line.startswith("fac: ")]
        assert self.code == 1, self.err
        assert len(said) == 1, self.err
        assert "Traceback" not in self.out + self.err, self.err
        return said[0]


def run_fac(*arguments: str, cwd: Path, preexec: Callable[[], None] | None = None) -> Finished:
    """Run the console script in `cwd` to its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [COMMAND, *arguments], cwd=cwd, env=environment(), stdout=out, stderr=err, preexec_fn=preexec
        )
        _, status, usage = os.wait4(process.pid, 0)  # unlike RUSAGE_CHILDREN, of this process alone
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Finished(process.returncode, out.read(), err.read(), usage.ru_maxrss)


def start_fac(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start the console script in `cwd`; its streams go to `cwd`/fac.log."""
    with (cwd / "fac.log").open("ab") as log:
        return subprocess.Popen([COMMAND, *arguments], cwd=cwd, env=environment(), stdout=log, stderr=log)


def environment() -> dict[str, str]:
    """This process's environment, with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def fac_here(*arguments: str, cwd: Path) -> Finished:
    """Run the console script's entry point in this process, in the folder `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    GlobalHydra.instance().clear()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", ["fac", *arguments]),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Finished(code, out.getvalue(), err.getvalue())
