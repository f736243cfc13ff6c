"""The file of paid replies: what was asked of a server once is never asked for again."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from fac.errors import FacError
from fac.llm.base import Completion


class PaidReplies:
    """Replies on disk, each written as it arrives (SQLite): what was paid for is never asked for again.

    Threads and processes may share a file. Failures are not kept. Raises FacError if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._clear_errors():
            self._base = sqlite3.connect(path, timeout=60, check_same_thread=False)
            with self._base:
                self._base.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT)")
                self._base.execute("CREATE TABLE IF NOT EXISTS spent (one INTEGER PRIMARY KEY, usd REAL)")
                self._base.execute("INSERT OR IGNORE INTO spent VALUES (1, 0)")

    def find(self, keys: Iterable[str]) -> dict[str, Completion]:
        """Those that are there, by key."""
        found = {}
        with self._clear_errors():
            for key in keys:
                row = self._base.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = Completion(**json.loads(row[0]))
        return found

    def keep(self, key: str, reply: Completion, usd: float) -> None:
        """On disk when this returns."""
        with self._clear_errors(), self._base:
            self._base.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply))))
            self._base.execute("UPDATE spent SET usd = usd + ?", (usd,))

    def spent(self) -> float:
        """What all replies have cost, in USD."""
        with self._clear_errors():
            return self._base.execute("SELECT usd FROM spent").fetchone()[0]

    def close(self) -> None:
        self._base.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise FacError(
                f"The file of paid replies, {self._path}, cannot be used ({error}): mend that, or move it away."
            ) from None
