"""The files of a run's folder, each whole or not there, and the hash of the configuration that decided them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fac.errors import FacError

# Where and how fast a run went, not what it computed. The first group counts only at the top of the configuration.
UNHASHED_GROUPS = frozenset({"backend", "dry_run", "hydra", "launcher", "out", "paths", "ray", "tracking"})
UNHASHED_KEYS = frozenset({"device", "n_jobs", "num_workers", "workers"})


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hex digits over a resolved configuration (plain containers).

    Not in the hash: the groups `UNHASHED_GROUPS` at the top, the keys `UNHASHED_KEYS` anywhere, and the order of keys.
    """
    kept = {key: value for key, value in config.items() if key not in UNHASHED_GROUPS}
    text = json.dumps(_without(kept, UNHASHED_KEYS), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    if isinstance(value, list | tuple):
        return [_without(item, keys) for item in value]
    return value


def check_writable(out: Path) -> None:
    """Make `out` and try a small file in it, so that a wrong folder is found before hours of work.

    Raises:
        FacError: the folder cannot be written.
    """
    probe = out / f".probe.{os.getpid()}.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_text("fac", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> FacError:
    return FacError(
        f"Results cannot be written to {out} ({error.strerror or error}); free some space or choose another folder "
        "with out=DIR, and run again: everything computed is kept."
    )


def write_outputs(out: Path, texts: Mapping[str, str]) -> None:
    """Write files to `out` by their names (which may lead into folders), in this order, each whole or not at all.

    Raises:
        FacError: the folder cannot be written (full disk, read-only, a file in the way).
    """
    paths = {name: out / name for name in texts}
    drafts = {name: path.with_name(f".{path.name}.{os.getpid()}.tmp") for name, path in paths.items()}
    try:
        for name, draft in drafts.items():
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(texts[name], encoding="utf-8")
        for name, draft in drafts.items():
            draft.replace(paths[name])
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def copy_folders(out: Path, folders: Mapping[str, Path]) -> None:
    """Copy folders to places in `out`, over what is there.

    Raises:
        FacError: the folder cannot be written.
    """
    try:
        for place, folder in folders.items():
            shutil.copytree(folder, out / place, dirs_exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from error
