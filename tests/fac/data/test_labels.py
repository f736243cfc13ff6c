"""Labels in one column or several, as moderation data and annotators' files have them."""

import json
import math

import pytest

from fac.data.examples import LoadReport, read_examples
from fac.data.source import Source
from fac.errors import FacError


def labels(folder, rows: list[dict], report: LoadReport | None = None, **options) -> list[int | None]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n}", **row}) + "\n" for n, row in enumerate(rows)))
    return [example.label for example in read_examples(Source(path, name="seed", **options), report)]


VOTES = [{"a": 1, "b": 0, "c": 0}, {"a": 1, "b": 1, "c": 0}, {"a": 0, "b": 0, "c": 0}, {"a": 1, "b": "1", "c": True}]


@pytest.mark.parametrize(
    ("rule", "expected"), [("any", [1, 1, 0, 1]), ("all", [0, 0, 0, 1]), ("majority", [0, 1, 0, 1])]
)
def test_several_columns_are_one_label_by_a_rule(tmp_path, rule, expected):
    assert labels(tmp_path, VOTES, label=("a", "b", "c"), label_rule=rule) == expected


def test_empty_cells_are_left_out_of_the_rule_and_counted(tmp_path):
    rows = [{"a": None, "b": 1}, {"a": "", "b": 0}, {"b": 0}, {"a": math.nan, "b": "1"}, {"a": 0, "b": "NA"}]
    report = LoadReport()
    assert labels(tmp_path, rows, report, label=("a", "b"), label_rule="all") == [1, 0, 0, 1, 0]
    assert report.empty_labels == 5
    assert report.notes("seed") == ("seed: 5 texts, 5 empty cells of label columns left out.",)


def test_a_row_without_any_label_is_malformed(tmp_path):
    rows = [{"a": 1, "b": 0}, {"a": None, "b": ""}, {}]
    with pytest.raises(FacError, match=r"rows\.jsonl, line 2: the label a, b is empty"):
        labels(tmp_path, rows, label=("a", "b"))
    report = LoadReport()
    assert labels(tmp_path, rows, report, label=("a", "b"), on_error="skip") == [1]
    assert (report.skipped, sum(report.reasons.values()), len(report.reasons)) == (2, 2, 1)
    with pytest.raises(FacError, match="line 2: the label a is empty"):
        labels(tmp_path, rows, label="a")


def test_a_tie_of_annotators_is_malformed(tmp_path):
    with pytest.raises(FacError, match="line 1: as many label columns say 1 as say 0"):
        labels(tmp_path, [{"a": 1, "b": 0}], label=("a", "b"), label_rule="majority")


def test_a_label_column_that_no_row_has_is_refused(tmp_path):
    with pytest.raises(FacError, match=r"No row of .*rows\.jsonl has the column hazzard: mend data\.seed\.label"):
        labels(tmp_path, [{"a": 1}, {"a": 0}], label=("a", "hazzard"))
    with pytest.raises(FacError, match="there is no column 'hazzard'"):
        labels(tmp_path, [{"a": 1}], label="hazzard")


def test_values_that_count_as_1_and_as_0(tmp_path):
    rows = [{"y": value} for value in ("Toxic ", "safe", "hate", "unsure")]
    assert labels(tmp_path, rows, label="y", label_ones=("toxic", "hate")) == [1, 0, 1, 0]
    named = {"label": "y", "label_ones": ("toxic", "hate"), "label_zeros": ("safe",)}
    with pytest.raises(FacError, match=r"the label y is 'unsure', in neither data\.seed\.label_ones nor data\.seed"):
        labels(tmp_path, rows, **named)
    assert labels(tmp_path, rows, **named, on_error="skip") == [1, 0, 1]
    assert labels(tmp_path, [*rows[:1], {"y": None}], label="y", label_ones=("toxic",), on_error="skip") == [1]


@pytest.mark.parametrize("ones", [(0,), ("no",), (False,), ("False",), (0.0,)])
def test_labels_can_be_turned_round(tmp_path, ones):
    rows = [{"safe": value} for value in (0, 1, "no", "Yes", True, False, "0.0")]
    assert labels(tmp_path, rows, label="safe", label_ones=ones) == [1, 0, 1, 0, 0, 1, 1]


def test_grades_count_by_value(tmp_path):
    rows = [{"y": value} for value in (-3, -1, 0, 1, "-2", 1.0, "-1.0")]
    assert labels(tmp_path, rows, label="y", label_ones=(-1, -2, -3)) == [1, 1, 0, 0, 1, 0, 1]


def test_a_label_that_is_none_lists_the_values_seen(tmp_path):
    rows = [{"y": value} for value in ("toxic", "safe", "toxic", 0.73)]
    said = r"line 1: the label y is 'toxic', neither 0/1 nor true/false nor yes/no: .*data\.seed\.label_ones=\[\.\.\.\]"
    with pytest.raises(FacError, match=said + r" \(values of the first rows: 'toxic', 'safe', 0\.73\)"):
        labels(tmp_path, rows, label="y")


def test_values_that_no_label_has_are_refused(tmp_path):
    with pytest.raises(FacError, match=r"No label of .* is one of data\.seed\.label_ones .*'toxic', 'safe'"):
        labels(tmp_path, [{"y": "toxic"}, {"y": "safe"}], label="y", label_ones=("Toxc",))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": ()}, r"data\.seed\.label names no column"),
        ({"label": ("a", "a")}, r"data\.seed\.label names the column 'a' twice"),
        ({"label": "a", "label_rule": "some"}, r"data\.seed\.label_rule is 'some': set it to any, all or majority"),
        ({"label": "a", "label_zeros": (1,)}, r"data\.seed\.label_zeros is set without data\.seed\.label_ones"),
        ({"label": "a", "label_ones": (1, "x"), "label_zeros": (True,)}, "1 stands in data.seed.label_ones and in"),
    ],
)
def test_impossible_labels_name_the_way_out(tmp_path, options, said):
    with pytest.raises(FacError, match=said):
        labels(tmp_path, [{"a": 1}], **options)


def test_reasons_are_counted_by_kind(tmp_path):
    rows = [{"y": 0}, {"y": 2}, {"y": 3}, {"y": "x"}, {"text": "", "y": 1}, {"y": 1}]
    report = LoadReport()
    assert labels(tmp_path, rows, report, label="y", on_error="skip") == [0, 1]
    assert sorted(report.reasons.values()) == [1, 3]
    assert report.reasons["the text is empty"] == 1
    assert str(report).startswith("2 texts, 4 malformed rows skipped (first: ")
    assert "line 2" in str(report)
    assert report.notes("test")[0].startswith("test: 2 texts, 4 malformed rows skipped")
    assert LoadReport(rows=3, duplicates=2).notes("test") == ()
