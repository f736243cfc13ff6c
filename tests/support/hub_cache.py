"""The hub's cache as downloads leave it, filled by hand: repositories at several commits. It imports nothing tested."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


def cached_model(cache: Path, name: str, commits: Mapping[str, Path], main: str) -> None:
    """Let the cache hold the model `name` at `commits` (each a folder), its branch `main` at one of them."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(main)
    for commit, folder in commits.items():
        shutil.copytree(folder, home / "snapshots" / commit)
