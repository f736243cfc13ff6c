"""What a file holds, found out once: SHA-256 and other findings, remembered from run to run.

A finding is kept under the file's place, size, times and inode, in a small file of its own, so that processes never get
in each other's way. Where nothing can be kept, it is found out again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

_BLOCK = 1 << 22
_LARGE = 1 << 31  # bytes that take long enough to show a bar
_SETTLED = 2e9  # nanoseconds: a younger file may change again without its times telling so


def cache_folder() -> Path:
    """Where findings are kept: `fac` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fac" / "files"


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return remembered("sha256", file, _sha256)


def digest_of(start: str, files: Iterable[Path]) -> str:
    """One digest of some text, and of the names and all the bytes of some files; their folder does not count."""
    digest = hashlib.sha256(start.encode())
    for file in files:
        digest.update(f"\0{file.name}\0{file_digest(file)}".encode())
    return digest.hexdigest()[:20]


def remembered(kind: str, file: Path, find: Callable[[Path], str]) -> str:
    """`find(file)`, looked up if it was found before and the file is the same since."""
    before = _stamp(file)
    entry = cache_folder() / hashlib.sha256(f"{kind}\0{file.resolve()}\0{before}".encode()).hexdigest()[:32]
    with suppress(OSError):
        return entry.read_text(encoding="utf-8")
    found = find(file)
    stat = file.stat()
    if _stamp(file) == before and time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED:
        with suppress(OSError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            partial = entry.with_name(f"{entry.name}.{os.getpid()}")
            partial.write_text(found, encoding="utf-8")
            partial.replace(entry)
    return found


def _stamp(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_size}/{stat.st_mtime_ns}/{stat.st_ctime_ns}/{stat.st_ino}"


def _sha256(file: Path) -> str:
    digest, size = hashlib.sha256(), file.stat().st_size
    with (
        file.open("rb") as stream,
        tqdm(total=size, desc=f"digest of {file.name}", unit="B", unit_scale=True, disable=size < _LARGE) as bar,
    ):
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
