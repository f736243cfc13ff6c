import json
from collections import Counter
from pathlib import Path

import pytest

from fac.chat import as_chat
from fac.data.examples import LoadReport
from fac.data.pairs import Pair, load_pairs, pairs_fingerprint, read_pairs, write_pairs
from fac.data.source import Source
from fac.errors import FacError


def source(folder: Path, rows: list, name: str = "rows.jsonl", **options) -> Source:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return Source(path, name="seed", **options)


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


PROMPT = ("user", "hello")
GOOD, BAD = ("assistant", "good day"), ("assistant", "go away")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hello", "chosen": "good day", "rejected": "go away", "metadata": {}},
        {"prompt": said(PROMPT), "chosen": said(GOOD), "rejected": said(BAD)},
        {"prompt": said(PROMPT), "chosen": "good day", "rejected": "go away"},
        {"prompt": "hello", "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
        {"chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD), "score_chosen": 1.0},
        {"chosen": "\n\nHuman: hello\n\nAssistant: good day", "rejected": "\n\nHuman: hello\n\nAssistant: go away"},
        {"prompt": " hello\n", "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
        {"prompt": "\n\nHuman: hello\n\nAssistant:", "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
        {"prompt": None, "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
        {"prompt": "hello", "chosen": said(PROMPT, GOOD), "rejected": "go away"},
        {"question": "hello", "system": "", "chosen": "good day", "rejected": "go away"},
        {"instruction": "hello", "input": "", "chosen": "good day", "rejected": "go away"},
        {"input": "hello", "output_1": "good day", "output_2": "go away", "label": 1},
        {"input": "hello", "output_1": "go away", "output_2": "good day", "label": "2"},
    ],
    ids=str,
)
def test_every_layout_is_recognised(tmp_path, row):
    (pair,) = read_pairs(source(tmp_path, [row]))
    assert pair == Pair(said(PROMPT), "good day", "go away", "", "1")
    assert pair.chosen_chat == said(PROMPT, GOOD)
    assert pair.rejected_chat == said(PROMPT, BAD)


def test_a_conversation_before_the_replies_is_the_prompt(tmp_path):
    start = "\n\nHuman: one\n\nAssistant: two\n\nAssistant: three\n\nHuman: four"
    row = {"chosen": f"{start}\n\nAssistant: a\n\nAssistant: b", "rejected": f"{start}\n\nAssistant: c"}
    (pair,) = read_pairs(source(tmp_path, [row]))
    assert pair.prompt == said(("user", "one"), ("assistant", "two\n\nthree"), ("user", "four"))
    assert (pair.chosen, pair.rejected) == ("a\n\nb", "c")


TERSE = ("system", "be terse")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hello", "chosen": said(TERSE, PROMPT, GOOD), "rejected": said(TERSE, PROMPT, BAD)},
        {"prompt": "be terse\n\nhello", "chosen": said(TERSE, PROMPT, GOOD), "rejected": said(TERSE, PROMPT, BAD)},
        {"prompt": said(TERSE, PROMPT), "chosen": said(GOOD), "rejected": said(BAD)},
        {"prompt": said(TERSE, PROMPT), "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
        {"prompt": said(TERSE, PROMPT), "chosen": said(TERSE, PROMPT, GOOD), "rejected": said(TERSE, PROMPT, BAD)},
        {"prompt": "hello", "chosen": said(TERSE, GOOD), "rejected": said(TERSE, BAD)},
        {"system": "be terse", "prompt": "hello", "chosen": "good day", "rejected": "go away"},
        {"system": "be terse", "question": "hello", "chosen": "good day", "rejected": "go away"},
        {"system": "be terse", "prompt": "hello", "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
        {"system": "be terse", "chosen": said(TERSE, PROMPT, GOOD), "rejected": said(TERSE, PROMPT, BAD)},
    ],
    ids=str,
)
def test_a_system_turn_stands_first_and_once(tmp_path, row):
    (pair,) = read_pairs(source(tmp_path, [row]))
    assert pair == Pair(said(TERSE, PROMPT), "good day", "go away", "", "1")


@pytest.mark.parametrize(
    "prompt",
    [
        "and then?",
        "one\n",
        said(("user", "and then?")),
        said(("user", "one"), ("assistant", "two"), ("user", "and then?")),
    ],
    ids=str,
)
def test_a_prompt_beside_conversations_that_hold_it_is_not_put_before_them(tmp_path, prompt):
    start = said(("user", "one"), ("assistant", "two"), ("user", "and then?"))
    row = {"prompt": prompt, "chosen": [*start, *said(GOOD)], "rejected": [*start, *said(BAD)]}
    (pair,) = read_pairs(source(tmp_path, [row]))
    assert pair == Pair(start, "good day", "go away", "", "1")


def test_the_styles_of_rm_bench_make_nine_pairs(tmp_path):
    row = {"id": 8, "prompt": "hello", "chosen": ["c0", "c1", "c2"], "rejected": ["r0", "r1", "r2"], "subset": "x"}
    pairs = list(read_pairs(source(tmp_path, [row], "chat_filtered.jsonl")))
    assert {(pair.chosen, pair.rejected): pair.subset for pair in pairs} == {
        ("c0", "r0"): "chat/normal",
        ("c0", "r1"): "chat/hard",  # a concise good reply against a longer bad one
        ("c0", "r2"): "chat/hard",
        ("c1", "r0"): "chat/easy",
        ("c1", "r1"): "chat/normal",
        ("c1", "r2"): "chat/hard",
        ("c2", "r0"): "chat/easy",
        ("c2", "r1"): "chat/easy",
        ("c2", "r2"): "chat/normal",
    }
    assert [pair.id for pair in pairs[:4]] == ["8/00", "8/01", "8/02", "8/10"]
    named = list(read_pairs(source(tmp_path, [{**row, "domain": "code"}], "total_dataset.jsonl")))
    assert named[0].subset == "code/normal"


def test_subsets_and_ids(tmp_path):
    rows = [
        {"id": 30, "prompt": "a", "chosen": "b", "rejected": "c", "subset": "donotanswer"},
        {"prompt": "a", "chosen": "b", "rejected": "d", "subset": None},
    ]
    assert [(p.subset, p.id) for p in read_pairs(source(tmp_path, rows))] == [("donotanswer", "30"), ("", "2")]
    row = {"input": "a", "output_1": "b", "output_2": "c", "label": 1}
    (pair,) = read_pairs(source(tmp_path, [row], "Adversarial/Neighbor/dataset.jsonl"))
    assert pair.subset == "llmbar-adver-neighbor"


def test_names_that_decide_subsets_are_part_of_the_key(tmp_path):
    row = {"input": "a", "output_1": "b", "output_2": "c", "label": 1}
    known = pairs_fingerprint(source(tmp_path, [row], "Natural/dataset.jsonl"))
    assert pairs_fingerprint(source(tmp_path, [row], "elsewhere/Natural/dataset.jsonl")) == known
    assert pairs_fingerprint(source(tmp_path, [row], "Neighbor/dataset.jsonl")) != known
    row = {"prompt": "a", "chosen": ["b", "c", "d"], "rejected": ["e", "f", "g"]}
    chat, code = (pairs_fingerprint(source(tmp_path, [row], f"{name}_filtered.jsonl")) for name in ("chat", "code"))
    assert chat != code


FINE = {"prompt": "hello", "chosen": "good day", "rejected": "go away"}
LLMBAR = {"input": "hello", "output_1": "good day", "output_2": "go away", "label": 1}
STYLES = {"prompt": "hello", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}


@pytest.mark.parametrize(
    ("good", "row", "reason"),
    [
        (FINE, '{"prompt": ', "not valid JSON"),
        (FINE, {**FINE, "rejected": "good day "}, "chosen and rejected are the same"),
        (FINE, {**FINE, "chosen": " "}, "a turn of the assistant in chosen is empty"),
        (FINE, {**FINE, "rejected": None}, "a turn of the assistant in rejected is empty"),
        (FINE, {**FINE, "prompt": ""}, "a turn of the user in chosen is empty"),
        (FINE, {**FINE, "prompt": []}, "no turn of the user before the replies"),
        (FINE, {**FINE, "prompt": 5}, "prompt is not a text but int"),
        (FINE, {"prompt": "hello", "chosen": "a"}, r"no column 'rejected' \(found: prompt, chosen\)"),
        (FINE, {"chosen": "an answer", "rejected": "another"}, "no turn of the user before the replies"),
        (FINE, {**FINE, "chosen": said(PROMPT)}, "chosen does not end with a reply of the assistant"),
        (FINE, {**FINE, "rejected": []}, "rejected does not end with a reply of the assistant"),
        (FINE, {**FINE, "chosen": ["text"]}, "turn 1 is not an object"),
        (FINE, {**FINE, "chosen": "\ud83d"}, "surrogate"),
        (FINE, {"chosen": said(PROMPT, GOOD), "rejected": said(("user", "hi"), BAD)}, "differ before the last reply"),
        (FINE, {"chosen": said(PROMPT, GOOD, PROMPT, GOOD), "rejected": said(PROMPT, BAD)}, "differ before the last"),
        (
            FINE,
            {"prompt": "hi", "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
            "the prompt stands nowhere in the conversations",
        ),
        (
            FINE,
            {"prompt": said(("user", "hi"), PROMPT), "chosen": said(PROMPT, GOOD), "rejected": said(PROMPT, BAD)},
            "the prompt stands nowhere in the conversations",
        ),
        (
            FINE,
            {"system": "be kind", "chosen": said(TERSE, PROMPT, GOOD), "rejected": said(TERSE, PROMPT, BAD)},
            "another system turn",
        ),
        (FINE, {"query": "hello", "chosen": "a", "rejected": "b"}, r"name its column prompt \(found: query, chosen"),
        (
            FINE,
            {
                "prompt": "how do i peel a mango",
                "chosen": "how do i peel a mango so",
                "rejected": "how do i peel a mango",
            },
            "begin with the prompt",
        ),
        (LLMBAR, {**LLMBAR, "label": 0}, "the label is 0, neither 1 nor 2"),
        (LLMBAR, {**LLMBAR, "label": True}, "the label is True, neither 1 nor 2"),
        (LLMBAR, {**LLMBAR, "output_2": "good day"}, "are the same"),
        (LLMBAR, FINE, "the label is None"),
        (STYLES, {**STYLES, "chosen": ["a", "b"]}, "not 3 texts each"),
        (STYLES, {**STYLES, "rejected": ["d", "e", "a"]}, "are the same"),
        (STYLES, FINE, "not 3 texts each"),
    ],
    ids=str,
)
def test_malformed_rows(tmp_path, good, row, reason):
    rows = [good, row, good]
    with pytest.raises(FacError, match=rf"rows\.jsonl, line 2: .*{reason}.*data\.seed\.on_error=skip counts and skips"):
        list(read_pairs(source(tmp_path, rows)))
    report = LoadReport()
    kept = list(read_pairs(source(tmp_path, rows, on_error="skip"), report=report))
    each = 9 if good is STYLES else 1
    assert (len(kept), report.rows, report.skipped) == (2 * each, 2 * each, 1)
    assert "line 2" in report.first_errors[0]


def test_dedup_and_limit(tmp_path):
    rows = [{**FINE, "chosen": reply} for reply in ("a", "b", "a", "c", "d")]
    report = LoadReport()
    kept = list(read_pairs(source(tmp_path, rows, dedup=True, limit=3), report=report))
    assert [pair.chosen for pair in kept] == ["a", "b", "c"]
    assert (report.rows, report.duplicates) == (3, 1)
    assert len(list(read_pairs(source(tmp_path, [STYLES], limit=4)))) == 4


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path):
    with pytest.raises(FacError, match=r"columns of .* \(text\) are of no known layout"):
        list(read_pairs(source(tmp_path, [{"text": "hello"}])))
    with pytest.raises(FacError, match="no layout 'lmbar' of preference pairs: did you mean llmbar"):
        list(read_pairs(source(tmp_path, [LLMBAR]), "lmbar"))
    with pytest.raises(FacError, match=r"no pair in .* \(it is empty\).* to a file with pairs"):
        list(read_pairs(source(tmp_path, [])))
    with pytest.raises(FacError, match="There is no file"):
        list(read_pairs(Source(tmp_path / "gone.jsonl")))


def test_a_named_layout_is_not_guessed(tmp_path):
    row = {**LLMBAR, **FINE, "chosen": "nice", "rejected": "rude"}
    assert [pair.chosen for pair in read_pairs(source(tmp_path, [row]), "pair")] == ["nice"]
    assert [pair.chosen for pair in read_pairs(source(tmp_path, [row]), "llmbar")] == ["good day"]


def test_pairs_survive_a_file(tmp_path):
    pairs = [
        Pair(as_chat("hello"), "good\u2028 day", "go\naway", "chat", "7"),
        Pair(said(("system", "be nice"), PROMPT, BAD, PROMPT), "good", "bad"),
    ]
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    assert load_pairs(tmp_path / "pairs.jsonl") == pairs
    again = list(read_pairs(Source(tmp_path / "pairs.jsonl")))
    assert [(p.prompt, p.chosen, p.rejected, p.subset) for p in again] == [
        (p.prompt, p.chosen, p.rejected, p.subset) for p in pairs
    ]


@pytest.mark.parametrize(
    ("path", "count", "skipped", "subsets"),
    [
        ("ultrafeedback/train_clean.jsonl", 994, 6, {"": 994}),
        ("ultrafeedback/eval_clean.jsonl", 199, 1, {"": 199}),
        ("hh_rlhf/harmless-base_test.jsonl.gz", 2308, 4, {"": 2308}),
        ("llmbar/LLMBar/Natural/dataset.json", 100, 0, {"llmbar-natural": 100}),
        ("llmbar/LLMBar/Adversarial/Neighbor/dataset.json", 134, 0, {"llmbar-adver-neighbor": 134}),
        ("llmbar/LLMBar/Adversarial/GPTInst/dataset.json", 92, 0, {"llmbar-adver-GPTInst": 92}),
        ("llmbar/LLMBar/Adversarial/GPTOut/dataset.json", 47, 0, {"llmbar-adver-GPTOut": 47}),
        ("llmbar/LLMBar/Adversarial/Manual/dataset.json", 46, 0, {"llmbar-adver-manual": 46}),
        ("rm_bench/chat_filtered.json", 9 * 129, 0, {"chat/easy": 387, "chat/normal": 387, "chat/hard": 387}),
        (
            "rm_bench/safety-refuse_filtered.json",
            9 * 284,
            0,
            {"safety-refuse/easy": 852, "safety-refuse/normal": 852, "safety-refuse/hard": 852},
        ),
    ],
)
def test_real_data(real_data, path, count, skipped, subsets):
    name, _, file = path.partition("/")
    report = LoadReport()
    pairs = list(read_pairs(Source(real_data(name) / file, on_error="skip"), report=report))
    assert (len(pairs), report.skipped) == (count, skipped)
    assert Counter(pair.subset for pair in pairs) == subsets
    for pair in pairs:
        roles = [turn["role"] for turn in pair.prompt]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert pair.chosen.strip() != pair.rejected.strip()


def test_the_better_reply_of_llmbar_is_the_labelled_one(real_data):
    file = real_data("llmbar") / "LLMBar" / "Adversarial" / "GPTInst" / "dataset.json"
    for row, pair in zip(json.loads(file.read_text()), read_pairs(Source(file)), strict=True):
        assert (pair.chosen, pair.rejected) == (row[f"output_{row['label']}"], row[f"output_{3 - row['label']}"])
