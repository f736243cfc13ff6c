"""JSON in all the ways that people write it: .json and .jsonl hold the same values, or are refused alike."""

import json
import math

import pytest
from support.data_sets import ROWS, values, write

from fac.data.examples import read_examples
from fac.data.files import read_rows
from fac.data.objects import ROW_ARRAYS
from fac.data.source import Malformed, Source
from fac.errors import FacError


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
    with pytest.raises(FacError, match=r"data.json is not valid JSON after row [12]") as caught:
        values(Source(path, on_error="skip"))
    assert "char" not in str(caught.value)  # which would be a place in what is held, not in the file


def test_malformed_lines_leave_the_others_whole(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n[1]\n' + "[" * 100_000 + '\n{"text": "b"}\n')
    rows = list(read_rows(Source(path)))
    assert [isinstance(row.values, Malformed) for row in rows] == [False, True, True, True, False]
    assert rows[1].place == f"{path}, line 3"


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


def both(folder, row: str) -> list:
    """What one row, written as JSON, becomes in a .jsonl, in an array, in an object that holds the array, and in a
    .json of lines."""
    contents = {"a.jsonl": row, "b.json": f"[{row}]", "c.json": f'{{"data": [{row}]}}', "d.json": f"{row}\n{row}\n"}
    found = []
    for name, content in contents.items():
        (folder / name).write_text(content)
        found.append(values(Source(folder / name))[0])
    return found


@pytest.mark.parametrize("number", [2**63, 2**64 + 1, 10**40, -(2**70), 0.1, 1e300, 1e999, -0.0, 2**53 + 1], ids=repr)
def test_numbers_are_the_same_in_every_kind_of_json(tmp_path, number):
    row = json.dumps({"id": number, "text": "a"})
    assert both(tmp_path, row) == [{"id": number, "text": "a"}] * 4
    assert {type(found["id"]) for found in both(tmp_path, row)} == {type(number)}


def test_nan_is_a_number_in_every_kind_of_json(tmp_path):
    found = both(tmp_path, '{"text": "a", "x": NaN, "y": -Infinity}')
    assert all(math.isnan(row["x"]) and row["y"] == -math.inf for row in found)


@pytest.mark.parametrize("row", ['{"text": "a", "text": "b"}', '{"text": "a", "n": {"m": 1, "m": 1}}'])
def test_a_key_that_stands_twice_makes_a_row_malformed(tmp_path, row):
    name = "text" if row.count("text") > 1 else "m"
    assert {str(found) for found in both(tmp_path, row)} == {f"the row names the key '{name}' twice"}


def test_the_array_itself_must_not_stand_twice(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{"data": [{"text": "a"}], "data": [{"text": "b"}]}')
    with pytest.raises(FacError, match="the key 'data' stands twice"):
        values(Source(path))


def test_half_a_surrogate_pair_is_refused_by_name_in_both(tmp_path):
    row = '{"text": "What does this mean \\ud83d please?"}'
    for name, content in {"a.jsonl": row, "b.json": f"[{row}]"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(FacError, match=r"[ab]\.jsonl?, (line|row) 1: the text holds half of a surrogate pair"):
            list(read_examples(Source(tmp_path / name)))


@pytest.mark.parametrize("depth", [500, 100_000])
def test_deep_nesting_is_read_or_refused_in_a_sentence(tmp_path, depth):
    row = '{"text": "a", "n": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "a.jsonl").write_text(row)
    (tmp_path / "b.json").write_text(f"[{row}]")
    (tmp_path / "c.json").write_text('{"a":' * depth + "1" + "}" * depth)
    first = values(Source(tmp_path / "a.jsonl"))[0]
    if depth < 1000:
        assert values(Source(tmp_path / "b.json")) == [first]
        return
    assert str(first) == "not valid JSON (nested too deeply)"
    for name in ("b.json", "c.json"):
        with pytest.raises(FacError, match=r"is not valid JSON .*nested too deeply\)"):
            values(Source(tmp_path / name))


@pytest.mark.parametrize("between", ["", " ", "\n", "\r", "\r\n\n"])
@pytest.mark.parametrize("indent", [None, 2])
def test_objects_one_after_the_other(tmp_path, between, indent):
    path = tmp_path / "data.json"
    path.write_text(between.join(json.dumps(row, indent=indent) for row in ROWS), newline="")
    assert values(Source(path)) == ROWS


def test_objects_that_each_hold_an_array_are_rows(tmp_path):
    rows = [{"id": n, "data": [{"role": "user", "content": "a"}]} for n in range(3)]
    path = tmp_path / "data.json"
    for text in ("\n".join(map(json.dumps, rows)), "".join(json.dumps(row, indent=1) for row in rows)):
        path.write_text(text)
        assert values(Source(path)) == rows


def test_rows_over_several_lines_in_jsonl_name_the_way_out(tmp_path):
    path = tmp_path / "data.jsonl"
    for row in (ROWS, ROWS[0]):
        path.write_text(json.dumps(row, indent=1))
        assert "rows that run over several lines are read from a file that ends in .json" in str(
            values(Source(path))[0]
        )
    path.write_text('{"a": 1}{"a": 2}')
    assert "something follows the value, at character 9" in str(values(Source(path))[0])


@pytest.mark.parametrize(
    "content", ['[{"a": 1}] [{"a": 2}]', '[{"a": 1},]', '[{"a": 1} {"a": 2}]', '{"data": [{"a": 1}]', "[1", '[{"a": "x']
)
def test_json_that_is_none_is_refused_after_the_rows_that_are(tmp_path, content):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(FacError, match=r"data.json is not valid JSON (after row \d|before the first row)"):
        values(Source(path))


@pytest.mark.parametrize("name", ROW_ARRAYS)
def test_the_usual_array_is_taken_among_several(tmp_path, name):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"about": [{"x": 1}], "deep": {name: [{"x": 2}]}, name: ROWS, "auto": [{"x": 3}]}))
    assert values(Source(path)) == ROWS


def test_the_only_array_may_lie_deep(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"result": {"version": 1, "rows": ROWS}, "ids": [1, 2]}))
    assert values(Source(path)) == ROWS


def test_values_that_lie_across_the_blocks_read(tmp_path):
    """Every cut of a number, an escape, a word: the first block ends after 65 KiB."""
    row = {"text": "é😀\n", "n": -12345.678e-3, "t": [True, None], "w": math.inf}
    for shift in range(90):
        text = "[" + " " * (65 * 1024 - shift) + json.dumps(row) + "," + json.dumps({"a": "x" * 70_000}) + "]"
        path = tmp_path / "data.json"
        path.write_text(text)
        assert values(Source(path)) == [row, {"a": "x" * 70_000}]
