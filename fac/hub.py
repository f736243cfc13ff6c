"""The Hugging Face hub and its cache on this machine."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

from fac.errors import FacError

Kind = Literal["model", "dataset"]
COMMIT = re.compile(r"[0-9a-f]{40}")


def snapshot(name: str, revision: str | None, kind: Kind) -> Path | None:
    """The folder in the cache that holds a repository, or the part of it that was fetched; None if nothing is there."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # ValueError: what cannot be a repository's name
        return None


def resolved_commit(repo_id: str, revision: str | None, repo_type: Kind = "model") -> str:
    """The commit that `revision` (branch, tag or commit; None: the main branch) of a repository is at.

    The hub is asked once in a process; if it cannot be, it is the commit in the cache. A whole commit hash is taken as
    it is. Raises FacError if neither the hub nor the cache has it.
    """
    return revision if revision and COMMIT.fullmatch(revision) else _commit_now(repo_id, revision, repo_type)


@cache
def _commit_now(repo_id: str, revision: str | None, repo_type: Kind) -> str:
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi().repo_info(repo_id, revision=revision, repo_type=repo_type).sha)
    except failures() as error:
        if held := snapshot(repo_id, revision, repo_type):
            return held.name
        reason, at = " ".join(str(error).split())[:200], f" at {revision}" if revision else ""
        what, instead = ("data set", "file") if repo_type == "dataset" else ("model or SAE", "folder")
        raise FacError(
            f"The {what} {repo_id}{at} cannot be loaded from the hub ({reason}): check its name and revision and that "
            f"this machine can reach the hub, or give a {instead}."
        ) from None


def failures() -> tuple[type[Exception], ...]:
    """Not there or no network (OSError, HTTPError); no such name or subset (ValueError); a loading script."""
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    return OSError, HTTPError, ValueError, RuntimeError
