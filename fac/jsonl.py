"""Files that survive a kill: an append-only log of JSON records, and JSON written in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fac.errors import FacError


class AppendLog:
    """Append-only JSON lines, for work that continues where it stopped. One writer at a time (a store stage is).

    What `append` returned from is on disk. A record cut by a kill is dropped when the log is opened again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._end = _end_of_last_line(self._fd)
        os.ftruncate(self._fd, self._end)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write `records` and return when they are on disk. On an OSError (a full disk) none of them is kept."""
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(data)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The finished records, in order, read from disk. Raises FacError if a whole line is no record."""
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise FacError(
                        f"{self.path}, line {number} is damaged: delete that line, and only its work is done again."
                    ) from None

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> AppendLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write `obj` as JSON: whoever reads `path`, even after a kill, sees the old file or the new one, never a part."""
    data = json.dumps(obj, indent=1, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _end_of_last_line(fd: int, block: int = 1 << 16) -> int:
    """Bytes up to and with the last newline."""
    stop = os.fstat(fd).st_size
    while stop > 0:
        start = max(stop - block, 0)
        newline = os.pread(fd, stop - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        stop = start
    return 0
