"""Data sets of the Hugging Face hub as rows: a path `hub:ID`, or `hub:ID/FILE` for one file of it, in place of a file.

`datasets` and `huggingface_hub` download into their own caches, so a data set is fetched once. Where the hub cannot be
asked, what lies in the caches is read, also what `hf download` brought there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from fac.errors import FacError, closest
from fac.hub import failures, resolved_commit, snapshot

HUB = "hub:"


class HubName(NamedTuple):
    """What a path says behind `hub:`."""

    id: str  # OWNER/NAME, or a folder in the hub's form
    file: str | None  # one file of it, with its folders


def is_hub(path: Path) -> bool:
    """Whether a source's path names a data set of the hub (or a folder in the hub's form)."""
    return str(path).startswith(HUB)


def hub_name(path: Path) -> HubName:
    """The data set, and the file of it, that a path names: `hub:Anthropic/hh-rlhf/helpful-base/train.jsonl.gz`."""
    name = str(path).removeprefix(HUB)
    parts = name.split("/")
    if len(parts) <= 2 or name.startswith(("/", ".", "~")) or Path(name).is_dir():
        return HubName(name, None)
    return HubName("/".join(parts[:2]), "/".join(parts[2:]))


def hub_file(path: Path, revision: str | None) -> Path | None:
    """The one file that a path names, fetched; None if it names a whole data set. Raises FacError if it is gone."""
    name, file = hub_name(path)
    if file is None:
        return None
    commit = hub_commit(path, revision)
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(name, file, repo_type="dataset", revision=commit))
    except failures() as error:
        raise _unreachable(f"{name}/{file}", error) from None


def hub_commit(path: Path, revision: str | None) -> str:
    """The commit that `revision` (branch, tag or commit; None: the main branch) of a data set is at.

    Of a folder it is a digest of its files. Raises FacError if neither the hub nor the cache has it.
    """
    name = hub_name(path).id
    if Path(name).is_dir():
        return _folder_digest(Path(name))
    return resolved_commit(name, revision, "dataset")


def hub_rows(path: Path, subset: str | None, split: str | None, revision: str | None) -> Iterator[Mapping[str, Any]]:
    """The rows of one split (None: the only one). Raises FacError if it cannot be loaded or is not there."""
    import datasets

    name = hub_name(path).id
    commit = None if Path(name).is_dir() else hub_commit(path, revision)
    try:
        try:
            found = datasets.load_dataset(name, subset, revision=commit)
        except ConnectionError:
            if (held := snapshot(name, commit, "dataset")) is None:
                raise
            found = datasets.load_dataset(str(held), subset)
    except failures() as error:
        raise _unreachable(name, error) from None
    splits = [str(known) for known in found]
    if split is None and len(splits) > 1:
        raise FacError(f"{name} has several splits: set split to one of {', '.join(splits)}.")
    if split is not None and split not in splits:
        raise FacError(f"{name} has no split {split}{closest(split, splits)} (found: {', '.join(splits)}).")
    yield from cast("Iterable[Mapping[str, Any]]", found[split or splits[0]])


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _unreachable(name: str, error: Exception) -> FacError:
    return FacError(
        f"The data set {name} cannot be loaded from the hub ({' '.join(str(error).split())[:200]}): give one that this "
        "machine can reach, set subset, split and revision to what it has, or give a file."
    )
