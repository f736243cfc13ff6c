"""Data files to rows, streaming: what a data set is (`Source`), and how each file format is read.

Knows: formats, compression, encodings, where a row stands in its file. Does not know: which column is the text, what a
label is or what a chat looks like (`fac.data.examples`). Memory does not grow with a file; only one row is held
(for parquet, one batch of rows). Every failure of a file is a FacError that names the file and, where there is one,
the line.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from fac.data.hub import hub_commit, hub_file, hub_name, hub_rows, is_hub
from fac.errors import FacError

ROW_ARRAYS = ("data", "rows", "instances", "examples")  # where a .json object usually keeps its rows
LFS_POINTER = b"version https://git-lfs.github.com/spec"
BATCH_ROWS = 256  # parquet rows held at a time
SNIFF_BYTES = 1 << 20  # longest first line by which a .json file is recognised as JSON lines
MAX_FIELD_BYTES = 1 << 30  # the csv module refuses fields above 128 KiB unless told otherwise


@dataclass(frozen=True)
class Source:
    """A data set on disk and how to read it.

    Formats by suffix: .jsonl, .json (an array, an object that holds the array, or JSON lines), .csv, .tsv (first line =
    column names, unless `columns`), .txt (one text per line) and .parquet, each also with .gz. Blank lines are not
    rows. A folder stands for its data files, sorted by name; they must share one format. `hub:ID` is a data set on the
    Hugging Face hub, of which `subset`, `split` and `revision` say what is read; `hub:ID/FILE` is one file of it.

    Raises FacError for an option that cannot be.
    """

    path: Path
    name: str = "NAME"
    """How the data set is called in the configuration; error messages say `data.<name>.<option>`."""
    text: str | tuple[str, ...] = "auto"
    """The column that is read: a string or a list of messages; several columns are joined by a blank line (empty ones
    are left out); dots reach into nested columns; "auto" recognises it (see `fac.data.examples.AUTO_COLUMNS`)."""
    label: str | None = None
    """Column with 0/1 or true/false; dots reach into nested columns."""
    columns: tuple[str, ...] | None = None
    """Column names of a .csv or .tsv file without a header line."""
    rows: str = "auto"
    """Key of the array in a .json file that holds an object; dots reach into nested keys. "auto" takes the first of
    `ROW_ARRAYS`, otherwise the only array of objects."""
    turns: Literal["user", "all"] = "user"
    """What is kept of a conversation: the user's words, as one user turn (the paper measures queries), or all."""
    subset: str | None = None
    """Of a hub data set that has several (`datasets` calls it the configuration's name)."""
    split: str | None = None
    """Of a hub data set; None: its only one."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set; None: what its main branch is at."""
    where: dict[str, Any] | None = None
    """Only rows that hold these values are the data set: {"human_annotation": True}. Values are compared as texts,
    whatever their case, since a .csv holds "True" where a .json holds true; dots reach into nested columns."""
    limit: int | None = None
    """Keep at most this many texts, from the start."""
    dedup: bool = False
    """Leave out exact repeats of an earlier text, whatever their label."""
    on_error: Literal["fail", "skip"] = "fail"
    """What to do with a malformed row."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())
        if not isinstance(self.text, str):
            object.__setattr__(self, "text", tuple(self.text))
        if self.columns is not None:
            object.__setattr__(self, "columns", tuple(self.columns))
        if self.on_error not in ("fail", "skip"):
            raise FacError(f"data.{self.name}.on_error is {self.on_error!r}: set it to fail or skip.")
        if self.turns not in ("user", "all"):
            raise FacError(f"data.{self.name}.turns is {self.turns!r}: set it to user or all.")
        if not self.text:
            raise FacError(f"data.{self.name}.text names no column: set it to a column or to auto.")
        if self.limit is not None and self.limit < 1:
            raise FacError(f"data.{self.name}.limit is {self.limit}: set it to 1 or more, or leave it out.")
        if not is_hub(self.path):
            for option in ("subset", "split", "revision"):
                if getattr(self, option) is not None:
                    raise FacError(f"data.{self.name}.{option} is only for hub:ID: leave it out for {self.path}.")
        elif hub_name(self.path).file and (self.subset or self.split):
            raise FacError(f"data.{self.name}: {self.path} is one file, so leave out subset and split.")


class Malformed(ValueError):
    """Why one row cannot be used; the reason only, without the place."""


class Row(NamedTuple):
    """One row and where it stands."""

    place: str  # "FILE, line 17" (text formats: the line where the row starts) or "FILE, row 17"; counted from 1
    values: dict[str, Any] | Malformed

    @property
    def file(self) -> str:
        return self.place.rpartition(", ")[0]


def read_rows(source: Source) -> Iterator[Row]:
    """Yield the rows of all files of `source`, in order; of those, what `where` keeps.

    A row that cannot be parsed but does not harm the next is yielded as `Malformed`. Raises FacError for a file that
    is missing, of an unknown kind, unreadable, broken or wrongly encoded.
    """
    for row in _all_rows(source):
        try:
            if not source.where or isinstance(row.values, Malformed) or _holds(row.values, source.where):
                yield row
        except Malformed as reason:
            yield Row(row.place, reason)


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """`values[name]`, or through nested objects at the dots of `name`. Raises Malformed if there is no such column."""
    if name in values:
        return values[name]
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise Malformed(f"there is no column {name!r} (found: {listing(values)})")
        found = found[part]
    return found


def data_files(source: Source) -> list[Path]:
    """The file, or the data files of the folder, that `source` names. Raises FacError if there is none to read."""
    path = source.path
    if not path.exists():
        raise FacError(_missing(source))
    if not path.is_dir():
        if file_format(path) not in _READERS:
            raise FacError(f"{path} has an unknown suffix: data files end in {_known_suffixes()}.")
        files = [path]
    else:
        files = sorted(f for f in path.iterdir() if f.is_file() and f.name[0] != "." and file_format(f) in _READERS)
        formats = sorted({file_format(f) for f in files})
        if not files:
            raise FacError(f"The folder {path} holds no data file: put files there that end in {_known_suffixes()}.")
        if len(formats) > 1:
            raise FacError(
                f"The folder {path} holds files of several formats ({', '.join(formats)}): "
                f"set data.{source.name}.path to one of {listing(f.name for f in files)}."
            )
    wanted = {"columns": (source.columns is not None, (".csv", ".tsv")), "rows": (source.rows != "auto", (".json",))}
    for option, (is_set, suffixes) in wanted.items():
        if is_set and file_format(files[0]) not in suffixes:
            raise FacError(
                f"data.{source.name}.{option} is only for {' and '.join(suffixes)}: leave it out for {path}."
            )
    return files


def file_format(path: Path) -> str:
    """The suffix that decides how `path` is read: lower case, without .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


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
    options = ("text", "label", "columns", "rows", "turns", "limit", "dedup", "on_error")
    decided: dict[str, Any] = {option: getattr(source, option) for option in options}
    if source.where:
        decided["where"] = source.where
    if is_hub(source.path):
        commit = hub_commit(source.path, source.revision)
        return {"hub": [str(source.path), commit, source.subset, source.split], **decided}
    files = [[file_format(path), content_digest(path)] for path in data_files(source)]
    return {"files": files, **decided}


def listing(names: Iterable[str], at_most: int = 20) -> str:
    """Names for an error message: few enough, and short enough, to be read."""
    names = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


# ---------------------------------------------------------------------------------------------------------- formats


def _all_rows(source: Source) -> Iterator[Row]:
    if not is_hub(source.path):
        for path in data_files(source):
            yield from _READERS[file_format(path)](path, source)
    elif file := hub_file(source.path, source.revision):
        yield from _all_rows(replace(source, path=file, revision=None))
    else:
        for number, values in enumerate(hub_rows(source.path, source.subset, source.split, source.revision), start=1):
            yield Row(f"{source.path}, row {number}", dict(values))


def _holds(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        str(lookup(values, name)).strip().lower() == str(value).strip().lower() for name, value in wanted.items()
    )


def _read_jsonl(path: Path, _: Source) -> Iterator[Row]:
    for number, line in _lines(path):
        if line.strip():
            yield Row(f"{path}, line {number}", _parse_object(line))


def _read_txt(path: Path, _: Source) -> Iterator[Row]:
    for number, line in _lines(path):
        if line.strip():
            yield Row(f"{path}, line {number}", {"text": line.rstrip("\r\n")})


def _read_json(path: Path, source: Source) -> Iterator[Row]:
    """Through ijson, so that memory does not grow with the file."""
    import ijson

    if _is_json_lines(path):
        yield from _read_jsonl(path, source)
        return
    prefix = _rows_prefix(path, source)
    with _opened(path) as stream:
        number = 0
        try:
            for number, item in enumerate(ijson.items(stream, prefix, use_float=True), start=1):
                values = item if isinstance(item, dict) else Malformed("the row is not a JSON object")
                yield Row(f"{path}, row {number}", values)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise _bad_json(path, f"after row {number}", error) from None


def _read_table(path: Path, source: Source) -> Iterator[Row]:
    """Delimited text with quotes as RFC 4180 has them; a quoted field may hold line breaks."""
    csv.field_size_limit(MAX_FIELD_BYTES)
    dialect = csv.excel_tab if file_format(path) == ".tsv" else csv.excel
    reader = csv.reader((line for _, line in _lines(path)), dialect, strict=True)
    header = list(source.columns) if source.columns else None
    while True:
        place = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise FacError(f"{place}: a quote is opened and never closed: mend the quotes of the file.") from None
            yield Row(place, Malformed(f"the quotes are wrong ({error})"))
            continue
        if not cells:
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            yield Row(place, Malformed(f"{len(cells)} fields where {len(header)} columns are expected"))
        else:
            yield Row(place, dict(zip(header, cells, strict=True)))


def _read_parquet(path: Path, _: Source) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    with _opened(path) as stream:
        try:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", values)
        except pyarrow.ArrowException as error:
            raise FacError(f"{path} is not a readable parquet file ({_first_line(error)}): write it again.") from None


_READERS: dict[str, Callable[[Path, Source], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".txt": _read_txt,
    ".parquet": _read_parquet,
}

# ---------------------------------------------------------------------------------------------------------- helpers


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if it ends in .gz and without a byte order mark; failures become FacError."""
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as opened:
            stream = cast(BinaryIO, opened)
            if _is_lfs_pointer(path):
                raise FacError(f"{path} is a Git LFS pointer, not the data: run `git lfs pull` in its repository.")
            if stream.read(3) != b"\xef\xbb\xbf":
                stream.seek(0)
            yield stream
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FacError(f"{path} is not a whole gzip file ({error}): fetch it again.") from None
    except OSError as error:
        raise FacError(f"Cannot read {path} ({error.strerror or error}): check the path and its permissions.") from None


def _is_lfs_pointer(path: Path) -> bool:
    with path.open("rb") as raw:
        return raw.read(len(LFS_POINTER)) == LFS_POINTER


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines (from 1), split at \\n only and with it; decoded one by one, so that a bad byte has a line."""
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise FacError(
                    f"{path}, line {number} is not UTF-8 ({error.reason}): convert the file, "
                    f"for instance with `iconv -f latin1 -t utf-8`."
                ) from None
            yield number, text


def _parse_object(line: str) -> dict[str, Any] | Malformed:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Malformed(f"not valid JSON ({_first_line(error)})")
    return values if isinstance(values, dict) else Malformed("the row is not a JSON object")


def _is_json_lines(path: Path) -> bool:
    """Whether a .json file holds one object per line, as many tools write it."""
    with _opened(path) as stream:
        line = b""
        while not line.strip():
            line = stream.readline(SNIFF_BYTES)
            if not line:
                return False
        if not line.lstrip().startswith(b"{") or not line.endswith(b"\n"):
            return False
        try:
            return isinstance(json.loads(line), dict) and bool(stream.read(SNIFF_BYTES).strip())
        except (ValueError, RecursionError):
            return False


def _rows_prefix(path: Path, source: Source) -> str:
    """The ijson prefix of the rows of a .json file. Raises FacError if the array is missing or cannot be told."""
    import ijson

    found, last = [], ""
    with _opened(path) as stream:
        try:
            for prefix, event, _ in ijson.parse(stream):
                if prefix == "":
                    if event == "start_array":
                        return "item"
                    if event not in ("start_map", "map_key", "end_map"):
                        break
                elif event == "start_array" and prefix == source.rows:
                    return f"{prefix}.item"
                elif event == "start_map" and prefix == f"{last}.item" and last not in found:
                    found.append(last)
                    if source.rows == "auto" and last in ROW_ARRAYS:
                        return prefix
                elif event == "start_array" and "." not in prefix:
                    last = prefix
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise _bad_json(path, "before the first row", error) from None
    if source.rows == "auto" and len(found) == 1:
        return f"{found[0]}.item"
    if not found:
        raise FacError(f"{path} holds no array of objects: write the rows as a JSON array, or one per line as .jsonl.")
    wrong = "several arrays" if source.rows == "auto" else f"no array {source.rows!r}"
    raise FacError(f"{path} holds {wrong}: set data.{source.name}.rows to one of {listing(found)}.")


def _bad_json(path: Path, where: str, error: Exception) -> FacError:
    return FacError(f"{path} is not valid JSON {where} ({_first_line(error)}): mend or fetch the file again.")


def _missing(source: Source) -> str:
    path, folder = source.path, source.path.parent
    message = f"There is no file {path}: set data.{source.name}.path"
    if not folder.is_dir():
        return f"{message} (the folder {folder} does not exist either)."
    close = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    return f"{message}; did you mean {listing(close)}?" if close else f"{message} to a file that exists."


def _known_suffixes() -> str:
    return ", ".join(_READERS) + " (each also with .gz)"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(". ") or type(error).__name__
