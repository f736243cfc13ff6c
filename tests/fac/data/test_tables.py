"""Tables as people write them: what quotes mean, and that no row is ever merged with the next."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_sets import ROWS, values, write

from fac.data.examples import read_examples
from fac.data.files import fingerprint, read_rows
from fac.data.source import Malformed, Source
from fac.errors import FacError


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
    assert values(Source(path, quotes="csv")) == [{"a": a, "b": b} for a, b in cells]
    try:  # on its own account, the same rows or none
        assert values(Source(path)) == [{"a": a, "b": b} for a, b in cells]
    except FacError as error:
        assert "quotes=csv" in str(error)  # noqa: PT017


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


def table(folder, text: str, suffix: str = "tsv", **options) -> list:
    path = folder / f"data.{suffix}"
    path.write_text(text, newline="")
    return values(Source(path, name="seed", **options))


def texts(rows: list) -> list[str]:
    return [row["text"] for row in rows]


QUOTES = (
    'text\tlabel\n"Dracula is a book by whom?\t0\nWhat is the tallest tree?\t1\nName three rivers.\t0\n'
    'He asked me: who wrote Emma?"\t1\nHow far is the moon?\t0\n'
)


def test_quotes_of_a_tsv_whose_lines_are_all_rows_are_part_of_its_texts(tmp_path):
    found = table(tmp_path, QUOTES)
    assert texts(found) == [line.split("\t")[0] for line in QUOTES.splitlines()[1:]]
    assert [row["label"] for row in found] == ["0", "1", "0", "1", "0"]
    assert texts(table(tmp_path, QUOTES, quotes="none")) == texts(found)


@pytest.mark.parametrize("text", ['"Yes" or "no"', '"Hello," she said', 'say "hi"', '"', '""', '"quoted whole"'])
def test_a_text_of_a_tsv_keeps_its_quotes(tmp_path, text):
    assert table(tmp_path, f"text\tlabel\n{text}\t1\nplain\t0\n") == [
        {"text": text, "label": "1"},
        {"text": "plain", "label": "0"},
    ]


WRITTEN = [
    ["tab\there", "1"],
    ["two\nlines", "0"],
    ['a "word"', "1"],
    ["plain", "0"],
    ["", ""],
    ["three\n\nlines", "1"],
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("rows", [WRITTEN, WRITTEN[2:5], WRITTEN[3:4], [row[::-1] for row in WRITTEN]], ids=len)
@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_tables_as_excel_and_pandas_write_them(tmp_path, rows, quoting, suffix):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter="\t" if suffix == "tsv" else ",", quoting=quoting).writerows(
        [["text", "label"], *rows]
    )
    expected = [dict(zip(("text", "label"), row, strict=True)) for row in rows]
    assert table(tmp_path, stream.getvalue(), suffix) == expected
    assert table(tmp_path, stream.getvalue(), suffix, quotes="csv") == expected


def test_a_tsv_that_can_be_read_in_no_way_whole_is_refused_with_its_line(tmp_path):
    merged = QUOTES.replace("Name three rivers.\t0", "a line without a tab")
    with pytest.raises(
        FacError, match=r"data\.tsv, line 2: a field begins with a quote, .*data\.seed\.quotes=none .*=csv"
    ):
        table(tmp_path, merged, on_error="skip")
    found = table(tmp_path, merged, quotes="none")
    assert [isinstance(row, Malformed) for row in found] == [False, False, True, False, False]


def test_one_column_does_not_tell_whether_a_quote_runs_on(tmp_path):
    text = 'text\n"first\nlast"\nother\n'
    with pytest.raises(FacError, match="line 2: a field begins with a quote"):
        table(tmp_path, text)
    assert texts(table(tmp_path, text, quotes="csv")) == ["first\nlast", "other"]
    assert texts(table(tmp_path, text, quotes="none")) == ['"first', 'last"', "other"]


@pytest.mark.parametrize(
    "text",
    [
        QUOTES.replace("\t", ","),
        QUOTES.replace("\t0", ",safe").replace("\t1", ",toxic").replace("\t", ","),
        QUOTES.replace("\t", ",").replace("How far is the moon?", '"How far, in miles, is the moon?"'),
        QUOTES.replace("\t", ",").replace("How far", "How, far"),
        QUOTES.replace("\t", ",").replace('Emma?"', 'Emma?" he said'),
    ],
)
def test_quotes_of_a_csv_that_pair_up_by_chance_are_refused_with_their_line(tmp_path, text):
    with pytest.raises(FacError, match=r"data\.csv, line 2: a field begins with a quote.*data\.seed\.quotes=none"):
        table(tmp_path, text, "csv", on_error="skip")
    assert texts(table(tmp_path, QUOTES.replace("\t", ","), "csv", quotes="none")) == texts(table(tmp_path, QUOTES))


def test_texts_of_several_lines_with_commas_are_one_field_of_a_csv(tmp_path):
    rows = [["17", "Dear all,\nhello, friends\nbye", "1"], ["18", "plain", "0"], ["19", "one, two\nthree, four", "0"]]
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["id", "text", "label"], *rows])
    assert texts(table(tmp_path, stream.getvalue(), "csv")) == [row[1] for row in rows]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz"])
@pytest.mark.parametrize("quotes", ["auto", "csv", "none"])
def test_a_header_that_names_a_column_twice_is_refused_with_both_places(tmp_path, suffix, quotes):
    import gzip

    mark = "\t" if suffix == "tsv" else ","
    content = mark.join(("text", "label", " text")) + "\n" + mark.join(("a", "1", "reviewed")) + "\n"
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(gzip.compress(content.encode()) if suffix.endswith("gz") else content.encode())
    with pytest.raises(FacError, match=r"line 1 names the column 'text' twice, as columns 1 and 3: rename one of them"):
        values(Source(path, quotes=quotes))
    with pytest.raises(FacError, match=r"data\.x\.columns names the column 'a' twice, as columns 1 and 2"):
        Source(path, name="x", columns=("a", "a", "b"))


def test_columns_without_a_name_may_be_several(tmp_path):
    assert table(tmp_path, "text,label,,\na,1,,\n", "csv") == [{"text": "a", "label": "1", "": ""}]


def test_a_header_that_is_given_too_is_no_row(tmp_path):
    with pytest.raises(FacError, match=r"line 1 is a header line: leave out data\.seed\.columns"):
        table(tmp_path, "Text\tlabel\na\t1\n", columns=("text", "label"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("text;label\na;1\n", "semicolons"), ("text\tlabel\na\t1\n", "tabs"), ("text|label\na|1\n", "vertical bars")],
)
def test_columns_parted_by_something_else_are_pointed_out(tmp_path, text, said):
    with pytest.raises(FacError, match=f"line 1 names one column, .*holds {said}.*save the file with commas"):
        table(tmp_path, text, "csv")


def test_a_header_with_wrong_quotes_is_no_row_either(tmp_path):
    with pytest.raises(FacError, match=r"line 1 is to name the columns, but the quotes are wrong"):
        table(tmp_path, '"te"xt,label\na,1\nb,0\n', "csv")


def test_how_quotes_are_read_is_part_of_the_key(tmp_path):
    path = write(tmp_path / "data.csv", ROWS)
    assert len({str(fingerprint(Source(path, quotes=quotes))) for quotes in ("auto", "csv", "none")}) == 3
    with pytest.raises(FacError, match=r"data\.x\.quotes is only for \.csv and \.tsv"):
        values(Source(write(tmp_path / "data.jsonl", ROWS), name="x", quotes="none"))
    with pytest.raises(FacError, match=r"data\.x\.quotes is 'some': set it to auto, csv or none"):
        Source(path, name="x", quotes="some")  # type: ignore[arg-type]


def test_toxicchat_without_its_prefix(real_data, tmp_path):
    """2,853 queries, some of which begin or end with a quote: each is a row, with its quotes and its label."""
    lines = (real_data("toxicchat") / "SelfReg_TD_test.tsv").read_text().splitlines()
    bare = [line.removeprefix("Query-1: ") for line in lines]
    assert sum(line.startswith('"') for line in bare) > 5
    path = tmp_path / "data.tsv"
    path.write_text("".join(line + "\n" for line in bare))
    examples = list(read_examples(Source(path, columns=("text", "label"), label="label")))
    assert [f"{e.text}\t{e.label}" for e in examples] == bare
    assert sum(e.label or 0 for e in examples) == 362
