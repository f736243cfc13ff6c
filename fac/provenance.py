"""With what a number was computed: commit, versions of libraries, machine. Every step's record carries it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import fac

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "accelerate",
    "datasets",
    "hydra-core",
    "lm-eval",
    "mlflow",
    "numpy",
    "openai",
    "peft",
    "sae-lens",
    "scikit-learn",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
)
DIRTY = "-dirty"  # what a commit ends with where tracked files had changed


def versions() -> dict[str, str]:
    """Versions of Python, fac and the libraries that numbers depend on; those not installed are left out."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "fac": fac.__version__}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit(repository: Path = REPOSITORY) -> str | None:
    """The commit of a checkout, with DIRTY behind it if tracked files have changed; None outside a checkout."""
    if not (repository / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no commit yet
        return None
    return done.stdout.strip()


@cache
def commit_of_this_process() -> str | None:
    """The commit as it was when this process first asked, which is about when it read its code."""
    return commit()


def host() -> dict[str, Any]:
    """Platform, the processor that computes (a GPU's name where one is used), and the threads of torch.

    None of it decides a result in exact arithmetic; all of it may change the last bits of one.
    """
    torch = sys.modules.get("torch")  # not imported: nothing was computed with it
    gpu = torch is not None and torch.cuda.is_available()
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(0) if torch is not None and gpu else _cpu(),
        "threads": None if torch is None else torch.get_num_threads(),
    }


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def made_with() -> dict[str, Any]:
    """What a step's record says of how it was computed."""
    return {"commit": commit_of_this_process(), "versions": versions(), "host": host()}
