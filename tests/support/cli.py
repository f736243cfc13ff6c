"""The `fac` command as a user meets it: in a process of its own (`run_fac`, `start_fac`), or in this one (`fac_here`).

Knows: the console script's entry point, its streams and exit status. Does not know: what the command does. A process of
its own costs seconds of imports; `fac_here` runs the very same `main` and is for all that needs no process.
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

from experiments.run import main

COMMAND = str(Path(sys.executable).with_name("fac"))


@dataclass(frozen=True)
class Finished:
    """How a command ended: its exit status and what stood on its two streams."""

    code: int
    out: str
    err: str

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
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=preexec,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def start_fac(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start the console script in `cwd`; its streams go to `cwd`/fac.log."""
    with (cwd / "fac.log").open("ab") as log:
        return subprocess.Popen([COMMAND, *arguments], cwd=cwd, env=environment(), stdout=log, stderr=log)


def environment() -> dict[str, str]:
    """One thread, and compiled modules kept for the next process: a machine may forbid to keep them beside the source."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    cache = Path(tempfile.gettempdir()) / f"fac-tests-bytecode-{os.getuid()}"
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(cache)}


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
