import hashlib
import os
from pathlib import Path

import pytest
from support.data_sets import ROWS, values, write

from fac.data.examples import read_examples
from fac.data.files import content_digest, fingerprint, read_rows
from fac.data.source import Malformed, Source
from fac.errors import FacError


@pytest.mark.parametrize(
    "suffix", ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "tsv.gz"]
)
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    assert values(Source(write(tmp_path / f"data.{suffix}", ROWS))) == ROWS


def test_a_folder_is_its_files_in_order(tmp_path):
    write(tmp_path / "b.jsonl", ROWS[1:])
    write(tmp_path / "a.jsonl", ROWS[:1])
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.jsonl").write_text("{")
    assert values(Source(tmp_path)) == ROWS
    write(tmp_path / "c.csv", ROWS)
    assert values(Source(tmp_path)) == ROWS * 2


def test_texts_beside_data_are_not_taken_for_data(tmp_path):
    write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "provenance.txt").write_text("fetched on a Monday")
    with pytest.raises(
        FacError, match=r"\.txt files beside others \(a\.jsonl, provenance\.txt\).*data\.x\.path to a list"
    ):
        values(Source(tmp_path, name="x"))


def test_a_list_of_files_is_one_data_set(tmp_path):
    first, second = write(tmp_path / "b.jsonl", ROWS[:1]), write(tmp_path / "a.csv.gz", ROWS[1:])
    named = Source((first, second), name="x", quotes="csv")
    assert values(named) == ROWS
    assert [row.place for row in read_rows(named, of_each=1)] == [f"{first}, line 1", f"{second}, line 2"]
    assert fingerprint(named) != fingerprint(Source((second, first), quotes="csv")) != fingerprint(Source(first))
    assert (named.title, str(named)) == ("b.jsonl, a.csv.gz", f"{first}, {second}")
    with pytest.raises(FacError, match=r"data\.x\.path names .*b\.jsonl twice"):
        values(Source((first, tmp_path / ".." / tmp_path.name / "b.jsonl"), name="x"))
    with pytest.raises(FacError, match=r"There is no file .*c\.jsonl: set data\.x\.path; did you mean b\.jsonl"):
        values(Source((first, tmp_path / "c.jsonl"), name="x"))
    with pytest.raises(FacError, match=r"data\.x\.path names no file"):
        Source((), name="x")
    with pytest.raises(FacError, match=r"lists a\.csv, hub:owner/data: a list holds files, no hub:ID"):
        Source((Path("a.csv"), Path("hub:owner/data")))


def test_an_error_in_a_list_names_the_file_and_the_line(tmp_path):
    first, second = write(tmp_path / "a.jsonl", ROWS), tmp_path / "b.jsonl"
    second.write_text('{"prompt": "a"}\n{"prompt": \n')
    *_, last = read_rows(Source((first, second)))
    assert last.place == f"{second}, line 2"
    assert isinstance(last.values, Malformed)


def test_a_pattern_is_the_files_that_fit_it(tmp_path):
    write(tmp_path / "b.csv", ROWS[1:])
    write(tmp_path / "a.csv", ROWS[:1])
    write(tmp_path / "c.jsonl", ROWS)
    (tmp_path / ".d.csv").write_text("hidden\n")
    (tmp_path / "e.csv").mkdir()
    (tmp_path / "f.md").write_text("about")
    assert values(Source(tmp_path / "*.csv", quotes="csv")) == ROWS
    assert values(Source(tmp_path / "[bc].*", quotes="csv")) == ROWS[1:] + ROWS
    assert fingerprint(Source(tmp_path / "*.csv")) != fingerprint(Source(tmp_path / "*"))
    for pattern, said in {
        "*.tsv": "no file fits it",
        "*.md": r"none of the 1 files that fit it ends in \.jsonl",
    }.items():
        with pytest.raises(FacError, match=rf"data\.x\.path is the pattern .*, but {said}"):
            values(Source(tmp_path / pattern, name="x"))
    write(tmp_path / "g[1].jsonl", ROWS[:1])
    assert values(Source(tmp_path / "g[1].jsonl")) == ROWS[:1]


def test_what_is_no_file_is_said(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for name, said in {"pipe.csv": "neither a file nor a folder", "a" * 300: "There is no file"}.items():
        with pytest.raises(FacError, match=said):
            values(Source(tmp_path / name))


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
        "pointer.jsonl.gz": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "broken.parquet": (b"PAR1nothing", "not a readable parquet file"),
        "empty.parquet": (b"", "not a readable parquet file"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FacError, match=message) as caught:
            values(Source(tmp_path / name, on_error="skip"))
        assert name in str(caught.value)


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
    assert "skip" not in before
    assert fingerprint(Source(moved, skip=1)) == {**before, "skip": 1}
    assert fingerprint(Source(moved.rename(tmp_path / "data.txt"))) != before
    assert fingerprint(Source(write(path, ROWS[:2]))) != before


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


def test_a_file_makes_two_data_sets_by_what_is_skipped_and_where_it_ends(tmp_path):
    path = write(tmp_path / "data.jsonl", [{"text": f"text {n}"} for n in range(6)])
    parts = Source(path, limit=2), Source(path, skip=2)
    first, second = ([example.text for example in read_examples(part)] for part in parts)
    assert first + second == [f"text {n}" for n in range(6)]
    with pytest.raises(FacError, match="data.NAME.skip is -1: set it to 0 or more"):
        Source(path, skip=-1)
