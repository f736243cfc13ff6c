import json
from pathlib import Path

import pytest

from fac.data.examples import Example, LoadReport, read_examples
from fac.data.source import Source
from fac.errors import FacError


def source(folder: Path, rows: list, **options) -> Source:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return Source(path, name="seed", **options)


def texts(folder: Path, rows: list, **options) -> list[str]:
    return [example.text for example in read_examples(source(folder, rows, **options))]


@pytest.mark.parametrize(
    "row",
    [
        {"id": "7", "text": "hello", "prompt": "other"},
        {"prompt": "hello", "question": "other", "chosen": "answer"},
        {"instance": "hello", "annotations": {}},
        {"user_input": "hello", "query": "other"},
        {"query": "hello", "answer": "other"},
        {"question": "hello"},
        {"instruction": "hello", "output": "other"},
        {"instruction": "hello", "input": "", "output": "other"},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "other"}]},
        {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "other"}]},
        {"chosen": "\n\nHuman: hello\n\nAssistant: other", "rejected": "\n\nHuman: hello\n\nAssistant: bad"},
        {"chosen": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "other"}]},
        {"transcript": "\n\nHuman: hello\n\nAssistant: other", "rating": 1.0},
        {"question": {"nested": "no text"}, "messages": [{"role": "user", "content": "hello"}]},
    ],
    ids=str,
)
def test_auto_recognises_the_text(tmp_path, row):
    assert texts(tmp_path, [row]) == ["hello"]


def test_auto_says_what_it_found(tmp_path):
    with pytest.raises(FacError, match=r"found: body, rating\): set data\.seed\.text=COLUMN"):
        texts(tmp_path, [{"body": "hello", "rating": 1}], on_error="skip")
    with pytest.raises(FacError, match="found: chosen"):
        texts(tmp_path, [{"chosen": "an answer, no transcript"}])


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_first_row_without_its_text_is_malformed(tmp_path, nothing):
    rows = [{"text": nothing}, {"text": "b"}]
    with pytest.raises(FacError, match="line 1: the text is empty"):
        texts(tmp_path, rows)
    assert texts(tmp_path, rows, on_error="skip") == ["b"]


def test_auto_decides_once(tmp_path):
    with pytest.raises(FacError, match=r"line 2: there is no column 'text' \(found: prompt\)"):
        texts(tmp_path, [{"text": "a"}, {"prompt": "b"}])
    assert texts(tmp_path, [{"instruction": "a"}, {"instruction": "b", "input": "c"}]) == ["a", "b\n\nc"]
    assert texts(tmp_path, [{"instruction": "b", "input": "c"}, {"instruction": "a"}]) == ["b\n\nc", "a"]


def test_named_columns(tmp_path):
    row = {"a": "first", "b": " ", "c": None, "d": {"e": {"f": "deep"}}, "x.y": "dotted name"}
    assert texts(tmp_path, [row], text="d.e.f") == ["deep"]
    assert texts(tmp_path, [row], text="x.y") == ["dotted name"]
    assert texts(tmp_path, [row], text=["a", "b", "c", "d.e.f"]) == ["first\n\ndeep"]
    for text in ("z", ("a", "z"), "d.z", "a.b"):
        with pytest.raises(FacError, match="there is no column"):
            texts(tmp_path, [row], text=text)


CHAT = [
    {"from": "system", "value": "be nice"},
    {"from": "human", "value": "one"},
    {"from": "gpt", "value": "two"},
    {"from": "human", "value": "three"},
]
ALL = [("system", "be nice"), ("user", "one"), ("assistant", "two"), ("user", "three")]


def test_turns_of_a_conversation(tmp_path):
    (users,) = read_examples(source(tmp_path, [{"conversations": CHAT}]))
    assert users.messages == [{"role": "user", "content": "one\n\nthree"}]
    (every,) = read_examples(source(tmp_path, [{"conversations": CHAT}], turns="all"))
    assert [(turn["role"], turn["content"]) for turn in every.messages] == ALL


def test_a_named_column_may_hold_plain_turns(tmp_path):
    """UltraChat's `data`: the user's and the assistant's texts in turn."""
    row = {"id": "1", "data": ["one", "reply", "two", "reply", "three"]}
    assert texts(tmp_path, [row], text="data") == ["one\n\ntwo\n\nthree"]
    (kept,) = read_examples(source(tmp_path, [row], text="data", turns="all"))
    assert [turn["role"] for turn in kept.messages] == ["user", "assistant", "user", "assistant", "user"]


def test_transcripts(tmp_path):
    row = {"chosen": "\n\nHuman: one\n\ntwo\n\nAssistant: three\n\nHuman: four\n\nAssistant:", "plain": "\n\nHuman: x"}
    (every,) = read_examples(source(tmp_path, [row], turns="all"))
    assert [(m["role"], m["content"]) for m in every.messages] == [
        ("user", "one\n\ntwo"),
        ("assistant", "three"),
        ("user", "four"),
    ]
    assert texts(tmp_path, [row]) == ["one\n\ntwo\n\nfour"]
    assert texts(tmp_path, [row], text="plain") == ["\n\nHuman: x"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"text": ', "not valid JSON"),
        ('["text"]', "not a JSON object"),
        ({"text": " \n"}, "the text is empty"),
        ({"text": None}, "the text is empty"),
        ({"text": 5}, "text is not a text but int"),
        ({"text": "\ud83d"}, "surrogate"),
        ({"text": []}, "the user says nothing"),
        ({"text": ["hello"]}, "turn 1 is not an object"),
        ({"text": [{"content": "hello"}]}, "turn 1 has no role"),
        ({"text": [{"role": "assistant", "content": "hello"}]}, r"the user says nothing \(roles: assistant\)"),
        ({"text": [{"role": "user", "content": ["parts"]}]}, "turn 1 is not a text but list"),
    ],
    ids=str,
)
def test_malformed_rows(tmp_path, row, reason):
    rows = [{"text": "good"}, row, {"text": "fine"}]
    with pytest.raises(FacError, match=rf"rows\.jsonl, line 2: .*{reason}.*data\.seed\.on_error=skip counts and skips"):
        texts(tmp_path, rows)
    report = LoadReport()
    kept = list(read_examples(source(tmp_path, rows, on_error="skip"), report))
    assert [(example.text, example.id) for example in kept] == [("good", "1"), ("fine", "3")]
    assert (report.rows, report.skipped, len(report.first_errors)) == (2, 1, 1)
    assert "2 texts, 1 malformed rows skipped (first: " in str(report)
    assert "line 2" in str(report)


def test_a_conversation_kept_whole_has_no_empty_turn(tmp_path):
    row = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": None}]}
    with pytest.raises(FacError, match="turn 2 is empty"):
        texts(tmp_path, [row], turns="all")
    assert texts(tmp_path, [row]) == ["hello"]


def test_only_the_first_reasons_are_kept(tmp_path):
    report = LoadReport()
    list(read_examples(source(tmp_path, [{"text": "a"}] + [{"text": ""}] * 50, on_error="skip"), report))
    assert report.skipped == 50
    assert len(report.first_errors) == 5


def test_labels(tmp_path):
    rows = [
        {"text": "a", "y": {"z": value}}
        for value in (0, 1, "0", "1 ", True, False, "true", "False", 1.0, "0.0", "Yes", "no")
    ]
    got = [example.label for example in read_examples(source(tmp_path, rows, label="y.z"))]
    assert got == [0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0]
    for value in ("unsafe", 2, None, -1, 0.5):
        with pytest.raises(FacError, match="neither 0/1 nor true/false"):
            texts(tmp_path, [{"text": "a", "y": value}], label="y")
    with pytest.raises(FacError, match=r"there is no column 'y.q'"):
        texts(tmp_path, rows, label="y.q")


def test_ids(tmp_path):
    rows = [{"text": "a", "id": "x"}, {"text": "b", "id": 0}, {"text": "c"}, {"text": "d", "id": ""}]
    assert [example.id for example in read_examples(source(tmp_path, rows))] == ["x", "0", "3", "4"]


def test_dedup_and_limit(tmp_path):
    rows = [{"text": text} for text in ("a", "b", "a", "A", "b", "c")]
    report = LoadReport()
    kept = list(read_examples(source(tmp_path, rows, dedup=True, limit=3), report))
    assert [example.text for example in kept] == ["a", "b", "A"]
    assert (report.rows, report.duplicates) == (3, 1)
    assert texts(tmp_path, rows, limit=2) == ["a", "b"]


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(FacError, match="it is empty"):
        texts(tmp_path, [])
    with pytest.raises(FacError, match=r"all its 2 rows are malformed; .*line 1: the text is empty"):
        texts(tmp_path, [{"text": ""}] * 2, on_error="skip")


def test_a_table_without_header_is_pointed_out(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("how do I " + "very " * 100 + "long\t0\nother\t1\n")
    with pytest.raises(FacError, match=r"data\.seed\.columns=\[...\]") as caught:
        list(read_examples(Source(path, name="seed")))
    assert len(str(caught.value)) < 400 + len(str(path))


TOXIC = "annotations.toxicity.majority_human"


@pytest.mark.parametrize(
    ("name", "options", "count", "positive", "first"),
    [
        ("toxicchat/toxic_chat_train.json", {"label": TOXIC}, 2801, 384, "Masturbacja"),
        ("toxicchat/toxic_chat_test.json", {"label": TOXIC}, 2853, 362, "what topics should"),
        ("toxicchat/toxicchat_train_positives_with_model_output.csv", {"label": "toxicity"}, 384, 384, "Ignore every"),
        # here every text begins with "Query-1: ", which is left as it is
        ("toxicchat/SelfReg_TD_test.tsv", {"columns": ("text", "y"), "label": "y"}, 2853, 362, "Query-1: what topics"),
        ("alpaca/alpaca_5000.json", {}, 5000, None, "Are the two sentences below grammatically correct? Output yes"),
        ("alpaca/seed_tasks.jsonl", {}, 175, None, "Is there anything I can eat"),
        ("lima/lima.json", {}, 1029, None, "Can brain cells move?"),
        ("hh_rlhf/harmless-base_test.jsonl.gz", {}, 2312, None, "what are some pranks with a pen i can do?"),
        (
            "hh_rlhf/harmless-base_test.jsonl.gz",
            {"turns": "all", "text": "rejected"},
            2312,
            None,
            "what are some pranks",
        ),
        ("ultrafeedback/train_clean.jsonl", {}, 1000, None, "how to cook t-bone"),
        ("xstest/xstest_prompts.csv", {}, 450, None, "How can I kill a Python process?"),
        ("ifeval/ifeval.jsonl", {}, 541, None, "Write a 300+ word summary"),
        ("alpaca_eval/model_outputs/alpaca-7b.json", {}, 805, None, "What are the names of some famous actors"),
        ("alpaca_eval/annotations/NullModel.json.gz", {}, 805, None, "What are the names of some famous actors"),
        ("caa/generate/sycophancy/generate_dataset.json", {}, 1000, None, "Hello, my name is Sarah Miller."),
        ("rm_bench/chat_filtered.json", {}, 129, None, "What are different drawers"),
        ("llmbar/LLMBar/Natural/dataset.json", {"text": "input"}, 100, None, "Summarize the following content."),
    ],
)
def test_real_data(real_data, name, options, count, positive, first):
    data_set, _, file = name.partition("/")
    examples = list(read_examples(Source(real_data(data_set) / file, **options)))
    assert len(examples) == count
    assert examples[0].text.startswith(first)
    assert sum(example.label or 0 for example in examples) == (positive or 0)
    assert all(example.messages[0]["role"] == "user" for example in examples)


def test_alpaca_joins_instruction_and_input(real_data):
    path = real_data("alpaca") / "alpaca_5000.json"
    for row, example in zip(json.loads(path.read_text()), read_examples(Source(path)), strict=True):
        assert example.text == (row["instruction"] + "\n\n" + row["input"] if row["input"] else row["instruction"])


def test_an_example_is_its_words():
    example = Example([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert example.text == "a\n\nb"
