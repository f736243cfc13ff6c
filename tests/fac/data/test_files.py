import csv
import gzip
import hashlib
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fac.data.files import Malformed, Source, content_digest, fingerprint, read_rows
from fac.errors import FacError

ROWS = [
    {"prompt": 'a "quoted", text\nof two lines', "n": "1"},
    {"prompt": "tab\there and \u2028 and ünï", "n": "2"},
    {"prompt": "plain", "n": "3"},
]


def write(path: Path, rows: list[dict]) -> Path:
    """`rows` in the format of the suffix, written by libraries other than the reader's."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    text = io.StringIO(newline="")
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind == "jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif kind == "json":
        json.dump(rows, text, indent=1)
    else:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def values(source: Source) -> list:
    return [row.values for row in read_rows(source)]


@pytest.mark.parametrize(
    "suffix", ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "tsv.gz"]
)
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    assert values(Source(write(tmp_path / f"data.{suffix}", ROWS))) == ROWS


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
            min_size=2,
            max_size=2,
        )
    )
)
def test_csv_written_by_the_csv_module_is_read_back(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["a", "b"], *cells])
    assert values(Source(path)) == [{"a": a, "b": b} for a, b in cells]


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


def test_json_lines_in_a_json_file(tmp_path):
    path = write(tmp_path / "data.jsonl", ROWS).rename(tmp_path / "data.json")
    assert values(Source(path)) == ROWS


def test_rows_inside_an_object(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"annotations": [{"metric": "toxicity"}], "meta": {"n": [1]}, "instances": ROWS}))
    assert values(Source(path)) == ROWS
    assert values(Source(path, rows="annotations")) == [{"metric": "toxicity"}]
    path.write_text(json.dumps({"ids": [1, 2], "odd name": ROWS}))
    assert values(Source(path)) == ROWS
    path.write_text(json.dumps({"outer": {"inner": ROWS}}))
    assert values(Source(path, rows="outer.inner")) == ROWS
    path.write_text(json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(FacError, match=r"several arrays: set data\.seed\.rows to one of train, test"):
        values(Source(path, name="seed"))
    with pytest.raises(FacError, match=r"no array 'dev': set data\.seed\.rows to one of train, test"):
        values(Source(path, name="seed", rows="dev"))


@pytest.mark.parametrize("content", ["{}", '"text"', '{"data": []}', '{"a": [1, 2]}'])
def test_json_without_rows(tmp_path, content):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(FacError, match="holds no array of objects"):
        values(Source(path))


@pytest.mark.parametrize("content", ['[{"a": 1}, {"a": 2}', '[{"a": 1}, {"a": 2} oops]'])
def test_json_cut_or_broken(tmp_path, content):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(FacError, match=r"data.json is not valid JSON after row [12]"):
        values(Source(path, on_error="skip"))


def test_a_csv_row_stands_where_it_starts(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('a,b\n"two\nlines",1\n\nshort\n"x"y,2\nlast,3\n')
    rows = list(read_rows(Source(path)))
    assert [row.place.rpartition(" ")[2] for row in rows] == ["2", "5", "6", "7"]
    assert rows[0].values == {"a": "two\nlines", "b": "1"}
    assert isinstance(rows[1].values, Malformed)
    assert "1 fields where 2" in str(rows[1].values)
    assert isinstance(rows[2].values, Malformed)
    assert rows[3].values == {"a": "last", "b": "3"}


def test_a_quote_that_never_closes_does_not_swallow_the_file(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('a,b\n1,2\n"3,4\n5,6\n7,8\n')
    with pytest.raises(FacError, match="line 3: a quote is opened and never closed"):
        values(Source(path, on_error="skip"))


def test_a_field_longer_than_the_csv_default(tmp_path):
    rows = [{"a": "x" * 300_000, "b": "y"}]
    assert values(Source(write(tmp_path / "data.csv", rows))) == rows


def test_columns_name_a_file_without_header(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("first\t0\nsecond\t1\n")
    assert values(Source(path, columns=("text", "label"))) == [
        {"text": "first", "label": "0"},
        {"text": "second", "label": "1"},
    ]
    with pytest.raises(FacError, match=r"data\.x\.columns is only for \.csv and \.tsv"):
        values(Source(write(tmp_path / "data.jsonl", ROWS), name="x", columns=("text",)))


def test_a_folder_is_its_files_in_order(tmp_path):
    write(tmp_path / "b.jsonl", ROWS[1:])
    write(tmp_path / "a.jsonl", ROWS[:1])
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.jsonl").write_text("{")
    assert values(Source(tmp_path)) == ROWS
    write(tmp_path / "c.csv", ROWS)
    with pytest.raises(FacError, match=r"several formats \(\.csv, \.jsonl\): set data\.x\.path to one of a\.jsonl"):
        values(Source(tmp_path, name="x"))


def test_an_empty_folder(tmp_path):
    with pytest.raises(FacError, match="holds no data file"):
        values(Source(tmp_path))


def test_a_missing_file_suggests_its_neighbours(tmp_path):
    write(tmp_path / "toxic_chat_train.json", ROWS)
    with pytest.raises(FacError, match=r"did you mean toxic_chat_train.json"):
        values(Source(tmp_path / "toxic_chat_tain.json"))
    with pytest.raises(FacError, match=r"set data\.x\.path to a file that exists"):
        values(Source(tmp_path / "zzz.csv", name="x"))
    with pytest.raises(FacError, match=r"folder .* does not exist either"):
        values(Source(tmp_path / "no" / "data.csv"))


def test_files_that_are_not_what_they_say(tmp_path):
    whole = write(tmp_path / "data.jsonl.gz", ROWS * 100).read_bytes()
    cases = {
        "data.xlsx": (b"PK", "unknown suffix: data files end in .jsonl"),
        "cut.jsonl.gz": (whole[:-20], "not a whole gzip file"),
        "flipped.jsonl.gz": (whole[:40] + b"\xff\x00\xff" + whole[43:], "not a whole gzip file"),
        "plain.jsonl.gz": (b'{"text": "a"}\n', "not a whole gzip file"),
        "latin.jsonl": (b'{"text": "a"}\n{"text": "\xe9"}\n', "line 2 is not UTF-8.*iconv"),
        "latin.csv": (b"text\n\xe9\n", "line 2 is not UTF-8.*iconv"),
        "latin.json": (b'[{"text": "\xe9"}]', "not valid JSON"),
        "utf16.txt": ("text".encode("utf-16"), "line 1 is not UTF-8"),
        "pointer.jsonl.gz": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "broken.parquet": (b"PAR1nothing", "not a readable parquet file"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FacError, match=message) as caught:
            values(Source(tmp_path / name, on_error="skip"))
        assert name in str(caught.value)


def test_malformed_lines_leave_the_others_whole(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n[1]\n' + "[" * 100_000 + '\n{"text": "b"}\n')
    rows = list(read_rows(Source(path)))
    assert [isinstance(row.values, Malformed) for row in rows] == [False, True, True, True, False]
    assert rows[1].place == f"{path}, line 3"


@pytest.mark.parametrize(
    "option", [{"on_error": "ignore"}, {"turns": "last"}, {"limit": 0}, {"text": ()}, {"text": ""}], ids=str
)
def test_impossible_options_name_the_way_out(option):
    with pytest.raises(FacError, match=rf"data\.seed\.{next(iter(option))} "):
        Source(Path("data.jsonl"), name="seed", **option)


def test_content_digest_is_sha256sum(tmp_path):
    path = write(tmp_path / "data.csv", ROWS)
    assert content_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(FacError, match="Cannot read"):
        content_digest(tmp_path / "none.csv")


def test_fingerprint_follows_content_and_options_not_place(tmp_path):
    path = write(tmp_path / "data.jsonl", ROWS)
    before = fingerprint(Source(path, name="one"))
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "other.jsonl")
    assert fingerprint(Source(moved, name="two")) == before
    assert fingerprint(Source(moved, limit=2)) != before
    assert fingerprint(Source(moved.rename(tmp_path / "data.txt"))) != before
    assert fingerprint(Source(write(path, ROWS[:2]))) != before


def test_memory_does_not_grow_with_a_json_file(tmp_path):
    """Peak memory of reading a 30 MB array stays below 4 MB."""
    import tracemalloc

    path = tmp_path / "big.json"
    with path.open("w") as stream:
        stream.write('{"data": [')
        stream.write(",".join(json.dumps({"text": "x" * 10_000, "n": n}) for n in range(3000)))
        stream.write("]}")
    list(zip(read_rows(Source(path)), range(1), strict=False))  # imports
    tracemalloc.start()
    count = sum(1 for _ in read_rows(Source(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3000
    assert peak < 4e6


def test_where_keeps_the_rows_that_hold_a_value(tmp_path):
    rows = [
        {"text": "a", "human": True, "notes": {"label": 1}},
        {"text": "b", "human": False, "notes": {"label": 1}},
        {"text": "c", "human": "TRUE ", "notes": {"label": "1"}},
        {"text": "d", "human": True, "notes": {"label": 0}},
    ]
    path = write(tmp_path / "data.jsonl", rows)
    kept = {"human": True}, {"notes.label": 1}, {"human": True, "notes.label": 1}, {"human": "maybe"}, {}
    found = ["".join(row["text"] for row in values(Source(path, where=where))) for where in kept]
    assert found == ["acd", "abc", "ac", "", "abcd"]
    assert (
        fingerprint(Source(path, where={"human": True}))
        != fingerprint(Source(path))
        == fingerprint(Source(path, where={}))
    )
    table = write(tmp_path / "data.csv", [{"text": "a", "human": "True"}, {"text": "b", "human": "False"}])
    assert [row["text"] for row in values(Source(table, where={"human": True}))] == ["a"]


def test_where_of_a_column_that_is_not_there_is_a_malformed_row(tmp_path):
    path = write(tmp_path / "data.jsonl", [{"text": "a", "human": 1}, {"text": "b"}])
    kept, malformed = values(Source(path, where={"human": 1}))
    assert kept == {"text": "a", "human": 1}
    assert isinstance(malformed, Malformed)
    assert "no column 'human'" in str(malformed)
