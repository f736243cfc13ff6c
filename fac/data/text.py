"""The bytes of data files as text: unpacked, decoded, and refused where they are something else than they seem.

A file is unpacked if it is gzip, bzip2, xz or zstandard, whatever its name; UTF-16 and UTF-32 are recognised by their
byte order mark and anything else is UTF-8, unless another encoding is asked for. Lines end with LF or CR LF. Memory
does not grow with a file. Every failure is a FacError that names the file and, where there is one, the line.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import string
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from fac.errors import FacError


def _zstandard(raw: BinaryIO) -> Any:
    import pyarrow  # heavy, and zstandard is rare

    return pyarrow.CompressedInputStream(raw, "zstd")


class Packing(NamedTuple):
    """A way to pack a file: how it begins, what it is called, and what reads it."""

    start: bytes
    name: str
    unpack: Callable[[BinaryIO], Any]


PACKED = {  # by the end of a file's name
    ".gz": Packing(b"\x1f\x8b", "gzip", lambda raw: gzip.GzipFile(fileobj=raw)),
    ".bz2": Packing(b"BZh", "bzip2", bz2.BZ2File),
    ".xz": Packing(b"\xfd7zXZ\0", "xz", lzma.LZMAFile),
    ".zst": Packing(b"\x28\xb5\x2f\xfd", "zstandard", _zstandard),
}
LFS_POINTER = b"version https://git-lfs.github.com/spec"
KINDS = {  # how files begin that are no text
    b"\xd0\xcf\x11\xe0": "is a workbook of Excel 97: save it as CSV UTF-8",
    b"PAR1": "is a parquet file: let its name end in .parquet",
    b"%PDF": "is a PDF file: give the data as text",
}
MARKS = {  # byte order marks; that of UTF-32 begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
BLOCK = 1 << 16
HEAD = 1 << 10
LETTERS = [letter.encode() for letter in string.ascii_letters]
CONTROLS = re.compile(
    "[\x80-\x84\x86-\x9f]"
)  # characters of ISO-8859 that no text holds; windows-1252 has quotes there
UNUSED_1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")  # bytes that are no character of windows-1252


def unpacked_name(path: Path) -> str:
    """The name of a file in lower case, without the suffix of what it is packed with."""
    name = path.name.lower()
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if it is packed; whatever goes wrong while they are read becomes a FacError."""
    packing: Packing | None = None
    try:
        with path.open("rb") as raw:
            start = raw.read(HEAD)
            raw.seek(0)
            if start.startswith(LFS_POINTER):
                raise FacError(f"{path} is a Git LFS pointer, not the data: run `git lfs pull` in its repository.")
            packing = next((known for known in PACKED.values() if start.startswith(known.start)), None)
            named = PACKED.get(path.suffix.lower())
            if start and named and packing is None:
                said = f"is not a whole {named.name} file but no {named.name} at all"
                raise FacError(f"{path} {said}: rename it, or fetch it again.")
            yield raw if packing is None else cast(BinaryIO, packing.unpack(raw))
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if packing and not (isinstance(error, OSError) and error.errno):  # without a number it is no error of the disk
            raise FacError(f"{path} is not a whole {packing.name} file ({error}): fetch it again.") from None
        if not isinstance(error, OSError):
            raise
        raise FacError(f"Cannot read {path} ({error.strerror or error}): check the path and its permissions.") from None


def blocks(path: Path, asked: str | None = None) -> Iterator[str]:
    """The text of a file in pieces of at most `BLOCK` bytes, its byte order mark left out.

    `asked` is the encoding of a file that has no such mark; None: UTF-8.
    """
    with opened(path) as stream:
        head = stream.read(HEAD)
        _refuse_other_kinds(path, head)
        encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), asked or "utf-8")
        decoder = codecs.getincrementaldecoder(encoding)()
        line, data = 1, head + stream.read(BLOCK)
        while True:
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                if asked == encoding:
                    raise FacError(
                        f"{path}, line {line} is not {asked} ({error.reason}): set the data set's encoding to its own."
                    ) from None
                raise _undecodable(path, line, encoding, error, _utf_16(head)) from None
            if asked == encoding and (control := CONTROLS.search(text)):
                line += text.count("\n", 0, control.start())
                raise FacError(
                    f"{path}, line {line} would hold the control character U+{ord(control[0]):04X} as {asked}: set the "
                    f"data set's encoding to its own, most likely windows-1252."
                )
            if "\0" in text:
                line += text[: text.index("\0")].count("\n")
                raise FacError(
                    f"{path}, line {line} holds a NUL byte, which no text has: if the file is UTF-16, convert it with "
                    f"`iconv -f {_utf_16(head) or 'utf-16le'} -t utf-8`, otherwise write it again."
                )
            line += text.count("\n")
            yield text
            if not data:
                return
            data = stream.read(BLOCK)


def lines(path: Path, asked: str | None = None) -> Iterator[tuple[int, str]]:
    """Numbered lines (from 1), split at \\n only and with it; `asked` as in `blocks`."""
    number, held = 0, []
    for block in blocks(path, asked):
        *whole, rest = block.split("\n")
        for line in whole:
            held.append(line)
            number += 1
            yield number, "".join(held) + "\n"
            held = []
        held.append(rest)
    last = "".join(held)
    if not number and "\r" in last.strip():
        raise FacError(
            f"{path} has line ends of CR alone, as an old Macintosh writes them: convert it, "
            f"for instance with `tr '\\r' '\\n' < {path.name} > converted{path.suffix}`."
        )
    if last:
        yield number + 1, last


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Raise FacError if a file begins like one that is no text."""
    if head.startswith(b"PK\x03\x04"):
        raise FacError(f"{path} {_zip_kind(path)}.")
    for start, said in KINDS.items():
        if head.startswith(start):
            raise FacError(f"{path} {said}.")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise FacError(f"{path} is a web page, not the data: fetch the file itself (`Raw` or `Download` on its page).")


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as held:
            names = held.namelist()
    except (OSError, zipfile.BadZipFile):
        names = []
    if "xl/workbook.xml" in names:
        return "is an Excel workbook: save its sheet as CSV UTF-8"
    return "is a zip archive: unpack it and name the files in it"


def _utf_16(head: bytes) -> str | None:
    """What UTF-16 a file without a byte order mark seems to be: every character of ASCII has a byte of zero."""
    zeros = {at % 2 for at, byte in enumerate(head) if byte == 0}
    return {0: "utf-16be", 1: "utf-16le"}[zeros.pop()] if len(zeros) == 1 and head.count(0) > 2 else None


def _undecodable(path: Path, line: int, encoding: str, error: UnicodeDecodeError, wide: str | None) -> FacError:
    """What a file in another encoding than its mark says, or UTF-8, is to be done with."""
    if wide and encoding == "utf-8":
        return FacError(f"{path} is UTF-16 without its mark: convert it with `iconv -f {wide} -t utf-8`.")
    if encoding.startswith(("utf-16", "utf-32")):
        return FacError(f"{path} is not whole {encoding.upper()} ({error.reason}): write or fetch it again.")
    return FacError(f"{path}, line {line} is not UTF-8 ({error.reason}): {_way_out(path)}.")


def _way_out(path: Path) -> str:
    """By all bytes of the file: what they are most likely, since a wrong conversion damages texts without a word."""
    other: Counter[int] = Counter()
    latin, multibyte = 0, False
    with opened(path) as stream:
        for line in stream:
            try:
                multibyte |= not line.isascii() and bool(line.decode("utf-8"))
            except UnicodeDecodeError:
                other.update(byte for byte in line if byte >= 0x80)
                latin += sum(map(line.count, LETTERS))
    if multibyte:
        return "other lines are, so mend that line, or write the file again"
    if UNUSED_1252 & other.keys() or other.total() > latin:  # words of other letters than a to z
        return (
            "convert the file from its encoding (such as windows-1251, gb18030 or shift_jis) with "
            "`iconv -f ENCODING -t utf-8`, or set the data set's encoding to it"
        )
    name = "windows-1252" if any(byte < 0xA0 for byte in other) else "latin1"
    return f"convert the file, most likely with `iconv -f {name} -t utf-8`, or set the data set's encoding to {name}"
