"""Encodings, line ends, packed files, and files that are something else than their name says."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import subprocess
import zipfile

import pyarrow
import pytest
from support.data_sets import ROWS, values, write

from fac.data.files import fingerprint, read_rows
from fac.data.source import Source
from fac.data.text import PACKED
from fac.errors import FacError

FORMATS = ["json", "jsonl", "csv", "tsv", "txt"]


def written(folder, suffix: str) -> tuple:
    """A file of the format, and what it holds."""
    path = folder / f"data.{suffix}"
    if suffix == "txt":
        path.write_text("one\ntwo é\n")
        return path, [{"text": "one"}, {"text": "two é"}]
    return write(path, ROWS), ROWS


def test_txt_is_one_text_per_line(tmp_path):
    path = tmp_path / "data.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo \xe2\x80\xa8 words\nlast")
    rows = list(read_rows(Source(path)))
    assert [row.values for row in rows] == [{"text": "one"}, {"text": "two \u2028 words"}, {"text": "last"}]
    assert [row.place.rpartition(" ")[2] for row in rows] == ["1", "3", "4"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_a_byte_order_mark_is_not_text(tmp_path, suffix):
    path = write(tmp_path / f"data{suffix}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert values(Source(path)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_byte_order_mark_says_the_encoding(tmp_path, suffix, encoding):
    path, rows = written(tmp_path, suffix)
    text = path.read_bytes().decode()
    mark = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-32-be": codecs.BOM_UTF32_BE}.get(encoding, b"")
    path.write_bytes(mark + text.encode(encoding))
    assert values(Source(path)) == rows
    path.write_bytes(path.read_bytes()[:-1])
    if not encoding.startswith("utf-8"):
        with pytest.raises(FacError, match=r"is not whole UTF-(16|32)"):
            values(Source(path))


PACKERS = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstandard": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_packed_file_is_known_by_its_bytes(tmp_path, suffix, packer):
    path, rows = written(tmp_path, suffix)
    whole = PACKERS[packer](path.read_bytes())
    path.write_bytes(whole)
    assert values(Source(path)) == rows
    path.write_bytes(whole[:-9])
    with pytest.raises(FacError, match=f"is not a whole {packer} file"):
        values(Source(path))


@pytest.mark.parametrize(("end", "packer"), zip(PACKED, PACKERS, strict=True))
def test_a_packed_file_is_read_by_the_name_before_its_last_suffix(tmp_path, end, packer):
    for suffix in (*FORMATS, "parquet"):
        path, rows = (
            (write(tmp_path / "data.parquet", ROWS), ROWS) if suffix == "parquet" else written(tmp_path, suffix)
        )
        packed = tmp_path / f"Data.{suffix}{end.upper()}"
        packed.write_bytes(PACKERS[packer](path.read_bytes()))
        assert values(Source(packed)) == rows
    plain = tmp_path / f"plain.jsonl{end}"
    plain.write_text('{"text": "a"}')
    with pytest.raises(FacError, match=f"is not a whole {packer} file but no {packer} at all: rename it"):
        values(Source(plain))
    plain.write_bytes(b"")
    assert values(Source(plain)) == []


def test_two_packed_pieces_behind_each_other_are_one_file(tmp_path):
    for packer, pack in PACKERS.items():
        path = tmp_path / f"{packer}.txt"
        path.write_bytes(pack(b"one\n") + pack(b"two\n"))
        assert values(Source(path)) == [{"text": "one"}, {"text": "two"}]


ASKED = {"windows-1252": "“carpe diem” isn’t it", "latin-1": "café à Ýpres", "gb18030": "你好世界", "utf-16-le": "né"}


@pytest.mark.parametrize("encoding", ASKED)
@pytest.mark.parametrize("suffix", FORMATS)
def test_an_encoding_that_is_asked_for_is_used(tmp_path, suffix, encoding):
    path, rows = written(tmp_path, suffix)
    plain = path.read_bytes().decode().replace("é", "").replace("ü", "").replace("ï", "").replace("\u2028", "")
    path.write_bytes(plain.replace("plain", ASKED[encoding]).replace("one", ASKED[encoding]).encode(encoding))
    said = [value for row in values(Source(path, encoding=encoding)) for value in row.values()]
    assert ASKED[encoding] in said
    assert len(values(Source(path, encoding=encoding))) == len(rows)


def test_an_encoding_that_is_not_the_file_s_is_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(SMART.encode("windows-1252"))
    with pytest.raises(FacError, match=r"line 2 would hold the control character U\+0093 as latin-1: .*windows-1252"):
        values(Source(path, encoding="latin-1"))
    with pytest.raises(FacError, match=r"line 2 is not gb18030 \("):
        values(Source(path, encoding="gb18030"))
    path.write_bytes(SMART.encode("utf-8-sig"))  # a mark says more than what is asked for
    assert values(Source(path, encoding="windows-1252")) == [{"text": "“carpe diem” isn’t it"}]
    for name in ("rot13", "zip", "windows1252x", ""):
        with pytest.raises(FacError, match="data.x.encoding is .*no encoding of texts .*windows-1252"):
            Source(path, name="x", encoding=name)


def test_an_encoding_is_part_of_what_a_data_set_is_only_where_it_is_said(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("plain")
    assert "encoding" not in fingerprint(Source(path))
    assert fingerprint(Source(path, encoding="UTF8")) == fingerprint(Source(path))
    assert fingerprint(Source(path, encoding="cp1252"))["encoding"] == "cp1252"


SMART = "text\n“carpe diem” isn’t it\n"
ADVICE = {
    "windows-1252": (SMART, "iconv -f windows-1252"),
    "latin1": ("text\ncafé à Ýpres\n", "iconv -f latin1"),
    "cp437": ("text\nüber\n", "iconv -f ENCODING"),  # byte 81 is no character of windows-1252
    "windows-1251": ("text\nПривет, мир и ещё\n", "iconv -f ENCODING"),  # letters are rare in Western texts
    "koi8-r": ("text\nпривет мир\n", "iconv -f ENCODING"),
    "gb18030": ("text\n你好世界 abc\n", "iconv -f ENCODING"),
    "shift_jis": ("text\nこんにちは世界\n", "iconv -f ENCODING"),
    "euc-kr": ("text\n안녕하세요 세계\n", "iconv -f ENCODING"),
}


@pytest.mark.parametrize("encoding", ADVICE)
def test_the_advised_conversion_gives_the_text_that_was_meant(tmp_path, encoding):
    text, advice = ADVICE[encoding]
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(FacError, match=f"data.csv, line 2 is not UTF-8 .*{advice} -t utf-8") as caught:
        values(Source(path))
    if "ENCODING" in advice:
        return
    assert str(caught.value).endswith(f"or set the data set's encoding to {encoding}.")
    assert values(Source(path, encoding=encoding)) == [{"text": text.splitlines()[1]}]
    command = str(caught.value).partition("`")[2].partition("`")[0].split()
    done = subprocess.run([*command, str(path)], capture_output=True, check=True)
    path.write_bytes(done.stdout)
    assert values(Source(path)) == [{"text": text.splitlines()[1]}]


@pytest.mark.parametrize("text", [SMART, "text\ncafé\n", "text\nplain\n", "text\n你好世界\n"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_named(tmp_path, text, encoding):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(FacError, match="`iconv -f utf-16[lb]e -t utf-8`") as caught:
        values(Source(path))
    command = str(caught.value).partition("`")[2].partition("`")[0].split()
    path.write_bytes(subprocess.run([*command, str(path)], capture_output=True, check=True).stdout)
    assert values(Source(path)) == [{"text": text.splitlines()[1]}]


def test_the_advice_looks_at_the_whole_file(tmp_path):
    path = tmp_path / "data.txt"
    path.write_bytes("café\n".encode("latin1") + b"plain\n" * 50_000 + "“so”\n".encode("windows-1252"))
    with pytest.raises(FacError, match="line 1 is not UTF-8 .*windows-1252"):
        values(Source(path))
    path.write_bytes("café\n".encode() * 30_000 + b"caf\xe9\n")
    with pytest.raises(FacError, match="line 30001 is not UTF-8 .*other lines are, so mend that line"):
        values(Source(path))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "txt"])
def test_line_ends_of_cr_alone_are_said(tmp_path, suffix):
    path, _ = written(tmp_path, suffix)
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r"))
    with pytest.raises(FacError, match=rf"data\.{suffix} has line ends of CR alone.*tr '.r' '.n'"):
        values(Source(path))


def test_an_array_of_json_has_any_line_ends(tmp_path):
    path, rows = written(tmp_path, "json")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert values(Source(path)) == rows


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
def test_mixed_line_ends_never_join_rows(tmp_path, suffix):
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(b"text\r\none\ntwo\rthree\r\nfour\n")
    (_, broken, last), first = list(read_rows(Source(path)))[-3:], values(Source(path))[-3]
    assert first == {"text": "one"}
    assert (broken.place, last.values) == (f"{path}, line 3", {"text": "four"})
    assert "line ends are mixed" in str(broken.values)


@pytest.mark.parametrize("suffix", FORMATS)
def test_nul_bytes_are_said_with_their_line(tmp_path, suffix):
    path, _ = written(tmp_path, suffix)
    plain = path.read_bytes()
    path.write_bytes(plain[:-4] + b"\0" + plain[-4:])
    line = plain[:-4].count(b"\n") + 1
    with pytest.raises(FacError, match=f"line {line} holds a NUL byte.*utf-16le"):
        values(Source(path))
    path.write_bytes("text\nabc\n".encode("utf-16-le"))
    with pytest.raises(FacError, match="line 1 holds a NUL byte.*utf-16le"):
        values(Source(path))


def packed(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as held:
        for name in names:
            held.writestr(name, "x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (packed("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook: save its sheet as CSV"),
        (packed("data.csv"), "a zip archive: unpack it"),
        (packed("data.csv")[:20], "a zip archive: unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook of Excel 97"),
        (b"PAR1\x15\x04", r"a parquet file: let its name end in \.parquet"),
        (b"BZh91AY&SY", "not a whole bzip2 file"),
        (b"\xfd7zXZ\x00\x00", "not a whole xz file"),
        (b"\x28\xb5\x2f\xfd\x04", "not a whole zstandard file"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_other_files_under_a_wrong_name(tmp_path, suffix, content, said):
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(content)
    with pytest.raises(FacError, match=rf"data\.{suffix} .*{said}"):
        values(Source(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_empty_file_has_no_rows(tmp_path, suffix):
    path = tmp_path / f"data.{suffix}"
    for content in (b"", b"\n", b"\xef\xbb\xbf", b"\r\n\r\n"):
        path.write_bytes(content)
        assert values(Source(path)) == []


def test_a_line_that_lies_across_the_blocks_read_is_whole(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"text": "é" * length} for length in (300, 511, 512, 513, 40_000, 70_000)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert values(Source(path)) == rows
