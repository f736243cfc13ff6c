"""Data files to rows, streaming: which files a source names, how each is read, and what decides the rows.

Memory does not grow with a file; only one row is held (for parquet, one batch of rows). Every failure of a file is a
FacError that names the file and, where there is one, the line.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from fac.data.hub import hub_commit, hub_file, hub_rows
from fac.data.objects import read_json, read_jsonl
from fac.data.source import HUB_ONLY, Malformed, Row, Source, first_line, listing, lookup, named_twice
from fac.data.tables import read_table
from fac.data.text import PACKED, lines, opened, unpacked_name
from fac.errors import FacError

BATCH_ROWS = 256  # parquet rows held at a time
PATTERN = "*?["  # characters that make a path a pattern, unless a file is called so


def read_rows(source: Source, of_each: int | None = None) -> Iterator[Row]:
    """Yield the rows of all files of `source` (the first `of_each` of every file), in order; of those, what `where`
    keeps, and of that all but the first `skip`.

    A row that cannot be parsed but does not harm the next is yielded as `Malformed`. Raises FacError for a file that
    is missing, of an unknown kind, unreadable, broken or wrongly encoded.
    """
    return islice(_kept_rows(source, of_each), source.skip, None)


def _kept_rows(source: Source, of_each: int | None) -> Iterator[Row]:
    for row in _all_rows(source, of_each):
        try:
            if not source.where or isinstance(row.values, Malformed) or _holds(row.values, source.where):
                yield row
        except Malformed as reason:
            yield Row(row.place, reason)


def data_files(source: Source) -> list[Path]:
    """The data files that `source` names, in order. Raises FacError if there is none to read, or one twice."""
    files = [file for path in source.paths for file in _files_at(path, source)]
    for index, file in enumerate(files):
        if any(_same_file(file, other) for other in files[:index]):
            raise FacError(f"data.{source.name}.path names {file} twice: name it once.")
    formats = {file_format(file) for file in files}
    wanted = {
        "columns": (source.columns is not None, (".csv", ".tsv")),
        "quotes": (source.quotes != "auto", (".csv", ".tsv")),
        "rows": (source.rows != "auto", (".json",)),
        "encoding": (source.encoding is not None, tuple(name for name in _READERS if name != ".parquet")),
    }
    for option, (is_set, suffixes) in wanted.items():
        if is_set and not formats & set(suffixes):
            raise FacError(
                f"data.{source.name}.{option} is only for {' and '.join(suffixes)}: leave it out for {source}."
            )
    return files


def file_format(path: Path) -> str:
    """The suffix that decides how `path` is read: lower case, without that of what it is packed with."""
    return Path(unpacked_name(path)).suffix


def content_digest(path: Path) -> str:
    """SHA-256 of the bytes of a file, as `sha256sum` prints it. Reads in pieces. Raises FacError if unreadable."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FacError(f"Cannot read {path} ({error.strerror}): check data path and permissions.") from None


def fingerprint(source: Source) -> dict[str, Any]:
    """Everything that decides which corpus `source` becomes, as JSON-able parameters for a store key.

    File contents instead of paths, so that a moved file is the same data set; the commit of a hub data set, so that a
    new one is read again. The same fingerprint means the same corpus, byte for byte.
    """
    unset = [option for option in ("encoding", "skip") if not getattr(source, option)]
    placed = ("path", "name", *HUB_ONLY, *unset)
    decided = {option.name: getattr(source, option.name) for option in fields(source) if option.name not in placed}
    if source.on_hub:
        commit = hub_commit(source.paths[0], source.revision)
        return {"hub": [str(source), commit, source.subset, source.split], **decided}
    return {"files": [[file_format(path), content_digest(path)] for path in data_files(source)], **decided}


# ------------------------------------------------------------------------------------------------------------- which


def _files_at(path: Path, source: Source) -> list[Path]:
    """The data files that one path names: itself, those of the folder, or those that fit the pattern."""
    if os.path.isdir(path):
        return _of_folder(path, source)
    if os.path.isfile(path):
        if file_format(path) not in _READERS:
            raise FacError(f"{path} has an unknown suffix: data files end in {_known_suffixes()}.")
        return [path]
    if os.path.exists(path):
        raise FacError(f"{path} is neither a file nor a folder: set data.{source.name}.path to one.")
    if not any(character in str(path) for character in PATTERN):
        raise FacError(_missing(path, source))
    found = [Path(file) for file in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(file)]
    if files := [file for file in found if file_format(file) in _READERS]:
        return files
    why = f"none of the {len(found)} files that fit it ends in {_known_suffixes()}" if found else "no file fits it"
    raise FacError(f"data.{source.name}.path is the pattern {path}, but {why}: set it to files that are there.")


def _of_folder(folder: Path, source: Source) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
        files = [f for f in entries if f.is_file() and f.name[0] != "." and file_format(f) in _READERS]
    except OSError as error:
        raise FacError(f"Cannot read the folder {folder} ({error.strerror}): check its permissions.") from None
    if not files:
        raise FacError(f"The folder {folder} holds no data file: put files there that end in {_known_suffixes()}.")
    if len({file_format(file) == ".txt" for file in files}) > 1:  # a .txt beside data tells about them
        names = listing(file.name for file in files)
        raise FacError(
            f"The folder {folder} holds .txt files beside others ({names}), and which are the data cannot be told: "
            f"set data.{source.name}.path to a list of those that are."
        )
    return files


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _missing(path: Path, source: Source) -> str:
    folder = path.parent
    message = f"There is no file {path}: set data.{source.name}.path"
    if not os.path.isdir(folder):
        return f"{message} (the folder {folder} does not exist either)."
    try:
        close = difflib.get_close_matches(path.name, os.listdir(folder), n=3)
    except OSError:
        close = []
    return f"{message}; did you mean {listing(close)}?" if close else f"{message} to a file that exists."


def _known_suffixes() -> str:
    return ", ".join(_READERS) + f" (each also with {', '.join(PACKED)})"


# -------------------------------------------------------------------------------------------------------------- rows


def _all_rows(source: Source, of_each: int | None) -> Iterator[Row]:
    if not source.on_hub:
        for path in data_files(source):
            yield from islice(_READERS[file_format(path)](path, source), of_each)
        return
    path = source.paths[0]
    if file := hub_file(path, source.revision):
        yield from _all_rows(replace(source, path=file, revision=None), of_each)
    else:
        rows = hub_rows(path, source.subset, source.split, source.revision)
        for number, values in enumerate(islice(rows, of_each), start=1):
            yield Row(f"{path}, row {number}", dict(values))


def _holds(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        str(lookup(values, name)).strip().lower() == str(value).strip().lower() for name, value in wanted.items()
    )


def _read_txt(path: Path, source: Source) -> Iterator[Row]:
    for number, line in lines(path, source.encoding):
        text = line.rstrip("\r\n")
        if "\r" in text:
            yield Row(f"{path}, line {number}", Malformed("a CR stands inside the line, so the line ends are mixed"))
        elif text.strip():
            yield Row(f"{path}, line {number}", {"text": text})


def _read_parquet(path: Path, _: Source) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    with opened(path) as stream:
        try:
            # The end of a parquet file says where its rows are, so what cannot go back (zstandard) is held whole.
            file = pyarrow.parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
            if twice := named_twice(file.schema_arrow.names):
                raise FacError(f"{path} names {twice}: rename one of them.")
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", values)
        except (pyarrow.ArrowException, ValueError) as error:  # ValueError: texts in no UTF-8, keys that stand twice
            raise FacError(f"{path} is not a readable parquet file ({first_line(error)}): write it again.") from None


_READERS: dict[str, Callable[[Path, Source], Iterator[Row]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": _read_txt,
    ".parquet": _read_parquet,
}
