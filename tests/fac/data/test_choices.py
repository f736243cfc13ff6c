"""fac.data.choices: every real CAA row is read as it is written, swapping is undone by swapping, bad rows are named."""

import json
import re
from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fac.data.choices import POLARITY, Choice, read_choices
from fac.data.examples import LoadReport
from fac.data.source import Source
from fac.errors import FacError

GOOD = {
    "question": "May we?\n\nChoices:\n (A) Yes\n (B) No",
    "answer_matching_behavior": "(B)",
    "answer_not_matching_behavior": "(A)",
}
REAL = [
    f"{role}/{behavior}/{file}"
    for behavior in POLARITY
    for role, file in (("generate", "generate_dataset.json"), ("test", "test_dataset_ab.json"))
]


def read(folder, *rows, **options):
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return read_choices(Source(path, name="test", **options))


@pytest.mark.parametrize("file", REAL)
def test_every_real_row(real_data, file):
    path = real_data("caa") / file
    rows, items = json.loads(path.read_text()), read_choices(Source(path))
    assert len(items) == len(rows)
    for row, item in zip(rows, items, strict=True):
        assert item.text == row["question"]
        assert (f"({item.letters[item.matching]})", f"({item.letters[item.other]})") == (
            row["answer_matching_behavior"],
            row["answer_not_matching_behavior"],
        )
        # independently: the lines of the options
        lines = re.findall(r"^ ?\(([A-Z])\) *(.*\S) *$", row["question"], re.M)
        assert list(zip(item.letters, item.options, strict=True)) == lines


def test_the_real_letters_run_past_b(real_data):
    items = read_choices(Source(real_data("caa") / "generate" / "survival-instinct" / "generate_dataset.json"))
    assert {item.letters for item in items} == {ascii_uppercase[:n] for n in range(2, 9)}
    assert {item.letters[item.matching] for item in items} == set("ABCDEFGH")


def test_the_matching_answer_of_survival_instinct_has_none_of_it(real_data):
    items = read_choices(Source(real_data("caa") / "test" / "survival-instinct" / "test_dataset_ab.json"))
    asked = [item for item in items if "consent to being shut down" in item.text]
    assert {item.options[item.matching] for item in asked} == {"yes", "Yes", "I consent to being shut down."}
    assert "accepts" in POLARITY["survival-instinct"].matching


def test_a_letter_that_the_question_speaks_of_is_no_option(tmp_path):
    question = "I believe in (A).\n(A) is what I say. Do you?\n\nChoices:\n (A) Yes,\nall of it\n\n (B)No\n"
    (item,) = read(tmp_path, {**GOOD, "question": question})
    assert item.options == ("Yes,\nall of it", "No")
    assert item.text == question.rstrip()


def test_swapping_moves_the_words_and_keeps_the_letters(tmp_path):
    question = "Pick.\n (A) red\n (B) green\n (C)blue"
    (item,) = read(tmp_path, {**GOOD, "question": question, "answer_matching_behavior": "(C)"})
    swapped = item.swapped()
    assert swapped.text == "Pick.\n (A) blue\n (B) green\n (C)red"
    assert (swapped.letters[swapped.matching], swapped.letters[swapped.other]) == ("A", "C")


@pytest.mark.parametrize(
    "end",
    [
        "\n\nAnswer:",
        "\nAnswer:",
        "\r\n\r\nAnswer:",
        "\n\nAnswer: (",
        "\n \t\nI thank you.\n\nMore words.",
        "\nPlease choose one of the letters.",
        "\nThe best answer is\nAnswer:",
        "\n\nAssistant: I believe the best answer is",
        "\n答案：",
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "options", ["Pick.\n (A) red\n (B) green", "Pick.\n(A)red\n\n(B)green\n(C) green, or\nblue\n(D) x"]
)
def test_what_stands_behind_the_options_stays_there(tmp_path, options, end):
    last = options.rpartition(")")[2].strip()
    letters = {
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": f" ({options[options.rfind('(') + 1]})",
    }
    (item,) = read(tmp_path, {"question": options + end, **letters})
    assert item.text == options + end
    assert item.options[-1] == last
    assert item.swapped().text == options.replace("red", "?").replace(last, "red").replace("?", last) + end
    assert item.swapped().swapped() == item


def test_options_of_several_paragraphs_are_whole(tmp_path):
    question = "Which?\n (A) one\n\ntwo\n (B) three\n\nfour\n\nAnswer:"
    (item,) = read(tmp_path, {**GOOD, "question": question})
    assert item.options == ("one\n\ntwo", "three\n\nfour")
    assert item.swapped().text == "Which?\n (A) three\n\nfour\n (B) one\n\ntwo\n\nAnswer:"


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@given(st.lists(words, min_size=2, max_size=8), st.data())
def test_swapping_is_its_own_inverse(options, data):
    matching, other = data.draw(st.permutations(range(len(options))))[:2]
    marks = tuple(f"\n ({letter}) " for letter in ascii_uppercase[: len(options)])
    item = Choice(marks, tuple(options), matching, other)
    swapped = item.swapped()
    assert swapped.swapped() == item
    assert swapped.options[swapped.matching] == item.options[item.matching]
    assert swapped.options[swapped.other] == item.options[item.other]
    assert {swapped.matching, swapped.other} == {matching, other}
    rest = set(range(len(options))) - {matching, other}
    assert all(swapped.options[i] == item.options[i] for i in rest)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": None}, "question is not a text but NoneType"),
        ({"answer_matching_behavior": "(C)"}, r"no option \(C\): its options end at \(B\)"),
        ({"answer_matching_behavior": "(A)"}, r"both answers are \(A\)"),
        ({"answer_not_matching_behavior": "A"}, "'A' is not a letter in brackets"),
        ({"question": "May we? (A) Yes (B) No"}, "each on a line of its own"),
        ({"question": "May we?\n (A) Yes\n (C) No"}, "each on a line of its own"),
        ({"question": "May we?\n (A) Yes"}, "each on a line of its own"),
        ({"question": "May we?\n (A) \n (B) No"}, r"option \(A\) is empty"),
        ({"question": "May we?\n (A) Yes\n (B)\n\nAnswer:"}, r"option \(B\) is empty"),
        ({"question": "May we?\n (A) Yes\n (B) No\nnot at all"}, "the last option goes on over several lines"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, change, said):
    with pytest.raises(FacError, match=rf"rows\.json, row 2: .*{said}.*data\.test\.on_error=skip"):
        read(tmp_path, GOOD, {**GOOD, **change})
    assert len(read(tmp_path, GOOD, {**GOOD, **change}, on_error="skip")) == 1


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named(tmp_path, key):
    with pytest.raises(FacError, match=f"row 1: there is no '{key}'"):
        read(tmp_path, {k: v for k, v in GOOD.items() if k != key})


def test_limit_and_report(tmp_path):
    report = LoadReport()
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(["{", *[json.dumps(GOOD)] * 5]))
    items = read_choices(Source(path, limit=3, on_error="skip"), report)
    assert (len(items), report.rows, report.skipped) == (3, 3, 1)
    assert "line 1" in report.first_errors[0]


def test_nothing_left(tmp_path):
    with pytest.raises(FacError, match=r"no question in .* \(all its 1 rows are malformed; .*row 1.*data\.test\.path"):
        read(tmp_path, {}, on_error="skip")
    with pytest.raises(FacError, match=r"\(empty\)"):
        read(tmp_path)
