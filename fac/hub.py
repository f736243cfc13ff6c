"""The Hugging Face hub's cache on this machine.

Knows: where a repository lies in it. Does not know: what the repository holds, or how it is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def snapshot(name: str, revision: str | None, kind: Literal["model", "dataset"]) -> Path | None:
    """The folder in the cache that holds a repository, or the part of it that was fetched; None if nothing is there."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # ValueError: what cannot be a repository's name
        return None
