"""The pooled activations of one corpus, as a sparse matrix on disk: the common currency of the harness.

Row = text, column = SAE feature, value = g_i(x), the maximum of feature i over the content tokens of text x (paper
§5.1; `fac.features` computes it). Only values > 0 are stored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ENTRIES = ("indices.i32", "values.f32")  # files of the entries, int32 and float32
_BYTES = 4  # of an entry in either file


class DiskArray:
    """A flat array file read slice by slice. Unlike a memory map, pages already read do not stay in resident memory."""

    def __init__(self, path: Path, dtype: type[np.generic], length: int) -> None:
        self._path, self._dtype, self._length = path, np.dtype(dtype), length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice | NDArray[np.int64]) -> NDArray[Any]:
        if isinstance(part, slice):
            start, stop, _ = part.indices(self._length)
            count = max(stop - start, 0)
            return np.fromfile(self._path, self._dtype, count, offset=start * self._dtype.itemsize)
        if not self._length:  # an empty file cannot be mapped
            return np.zeros(0, self._dtype)
        return np.asarray(np.memmap(self._path, self._dtype, "r")[part])


class Rows(NamedTuple):
    """A run of consecutive texts, in CSR form: text `first + r` owns entries `indptr[r]:indptr[r+1]`."""

    first: int
    indptr: NDArray[np.int64]  # [rows + 1], starts at 0
    indices: NDArray[np.int32]  # [entries], feature ids, increasing within a row
    values: NDArray[np.float32]  # [entries], > 0

    def row_of_entry(self) -> NDArray[np.int64]:
        """Corpus index of the text that each entry belongs to; shape [entries]."""
        return self.first + np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


@dataclass(frozen=True)
class Pooled:
    """CSR matrix [n_texts, n_features] of float32 maxima, in memory or on disk."""

    n_features: int
    indptr: NDArray[np.int64]  # [n_texts + 1]
    indices: NDArray[np.int32] | DiskArray  # [nnz]
    values: NDArray[np.float32] | DiskArray  # [nnz]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def n_texts(self) -> int:
        return len(self.indptr) - 1

    def chunks(self, entries: int = 1 << 20) -> Iterator[Rows]:
        """Yield all rows in order, about `entries` stored values at a time: that bounds memory, not n_texts."""
        start = 0
        while start < self.n_texts:
            limit = int(self.indptr[start]) + entries
            stop = int(np.searchsorted(self.indptr, limit, side="right")) - 1
            stop = min(max(stop, start + 1), self.n_texts)
            low, high = int(self.indptr[start]), int(self.indptr[stop])
            yield Rows(
                first=start,
                indptr=np.asarray(self.indptr[start : stop + 1]) - low,
                indices=np.asarray(self.indices[low:high]),
                values=np.asarray(self.values[low:high]),
            )
            start = stop

    def row(self, text: int) -> NDArray[np.float32]:
        """Dense activations of one text; shape [n_features]."""
        low, high = int(self.indptr[text]), int(self.indptr[text + 1])
        dense = np.zeros(self.n_features, dtype=np.float32)
        dense[self.indices[low:high]] = self.values[low:high]
        return dense

    def maxima(self) -> NDArray[np.float32]:
        """Largest activation of each feature over the corpus (0 where it never fires); shape [n_features]."""
        best = np.zeros(self.n_features, dtype=np.float32)
        for rows in self.chunks():
            np.maximum.at(best, rows.indices, rows.values)
        return best

    def take(self, texts: NDArray[np.int64]) -> Pooled:
        """The rows `texts`, in that order (in memory)."""
        starts, stops = self.indptr[texts], self.indptr[np.asarray(texts) + 1]
        pick = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)] or [np.zeros(0, np.int64)])
        pick = pick.astype(np.int64)
        indptr = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        return Pooled(self.n_features, indptr, np.asarray(self.indices[pick]), np.asarray(self.values[pick]), self.meta)

    @classmethod
    def from_dense(cls, matrix: NDArray[np.floating], meta: dict[str, Any] | None = None) -> Pooled:
        """From a dense [n_texts, n_features] array; entries <= 0 are dropped."""
        matrix = np.asarray(matrix, dtype=np.float32)
        active = matrix > 0
        indptr = np.concatenate([[0], np.cumsum(active.sum(axis=1))]).astype(np.int64)
        return cls(matrix.shape[1], indptr, np.nonzero(active)[1].astype(np.int32), matrix[active], meta or {})

    @classmethod
    def load(cls, folder: Path) -> Pooled:
        """Open what `PooledWriter` wrote; the entries stay on disk."""
        meta = json.loads((folder / "pooled.json").read_text())
        indptr = np.load(folder / "indptr.npy")
        nnz = int(indptr[-1])
        indices = DiskArray(folder / _ENTRIES[0], np.int32, nnz)
        values = DiskArray(folder / _ENTRIES[1], np.float32, nnz)
        return cls(meta["n_features"], indptr, indices, values, meta)


class PooledWriter:
    """Takes rows in any order to `folder`; `close` puts them in that of the corpus, to be loaded by `Pooled.load`.

    Entries go to disk as they come, and `close` copies them a piece at a time: what is held is the rows' places.
    """

    def __init__(self, folder: Path, n_features: int, meta: dict[str, Any] | None = None) -> None:
        self._folder = folder
        self._meta = {"n_features": n_features, **(meta or {})}
        self._texts: list[NDArray[np.int64]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._rows = 0
        self._files = [(folder / name).open("wb") for name in _ENTRIES]

    def append(self, matrix: NDArray[np.float32]) -> None:
        """The dense rows [rows, n_features] that follow; entries <= 0 are not stored."""
        active = matrix > 0
        texts = np.arange(self._rows, self._rows + len(matrix))
        self.put(texts, active.sum(axis=1), np.nonzero(active)[1].astype(np.int32), matrix[active])

    def put(
        self,
        texts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        indices: NDArray[np.int32],
        values: NDArray[np.float32],
    ) -> None:
        """The rows `texts`, one after the other: `lengths` [texts] entries each, > 0, features increasing in a row.

        A text comes once; one that never does has no entries.
        """
        self._texts.append(texts)
        self._lengths.append(lengths)
        self._rows += len(texts)
        for file, part in zip(self._files, (indices.astype(np.int32), values.astype(np.float32)), strict=True):
            part.tofile(file)

    def close(self, texts: int | None = None, **more: Any) -> None:
        """Finish the files of so many `texts` (None: all that came); `more` comes back in `Pooled.meta`."""
        for file in self._files:
            file.close()
        came, lengths = (np.concatenate([np.zeros(0, np.int64), *held]) for held in (self._texts, self._lengths))
        n_texts = len(came) if texts is None else texts
        indptr = np.zeros(n_texts + 1, np.int64)
        indptr[1 + came] = lengths
        np.cumsum(indptr, out=indptr)
        if (np.diff(came) < 0).any():
            starts = np.cumsum(lengths) - lengths
            order = np.argsort(came)
            for name in _ENTRIES:
                _reorder(self._folder / name, starts[order], lengths[order])
        np.save(self._folder / "indptr.npy", indptr)
        meta = {**self._meta, **more, "n_texts": n_texts}
        (self._folder / "pooled.json").write_text(json.dumps(meta, indent=1, sort_keys=True))


def _reorder(path: Path, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
    """Rewrite a file of rows in another order: row i is the `lengths[i]` entries from entry `starts[i]` on.

    Rows are read one by one, not through a memory map, whose pages would stay in resident memory.
    """
    sorted_path = path.with_name(f"{path.name}.sorted")
    with path.open("rb", buffering=0) as source, sorted_path.open("wb") as target:
        for start, size in zip(starts * _BYTES, lengths * _BYTES, strict=True):
            target.write(os.pread(source.fileno(), int(size), int(start)))
    sorted_path.replace(path)
