"""Conversations however they are kept: the user's words are the user's, and nothing else is."""

import csv
import json

import pytest

from fac.data.examples import read_examples
from fac.data.instructions import read_instructions
from fac.data.pairs import read_pairs
from fac.data.source import Source
from fac.errors import FacError

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "Who wrote Emma?\n\nAnd when?"},
    {"role": "assistant", "content": "Jane Austen, in 1815."},
    {"role": "user", "content": "And Persuasion?"},
]
SAID = "Who wrote Emma?\n\nAnd when?\n\nAnd Persuasion?"
_, FIRST, REPLY, SECOND = (turn["content"] for turn in CHAT)
BARE = CHAT[1:]

MARKED = {
    "HH-RLHF": (f"\n\nHuman: {FIRST}\n\nAssistant: {REPLY}\n\nHuman: {SECOND}\n\nAssistant:", BARE),
    "HelpSteer2": (f"{FIRST}\n<extra_id_1>Assistant\n{REPLY}\n<extra_id_1>User\n{SECOND}", BARE),
    "HelpSteer2, whole": (
        f"<extra_id_0>System\nbe brief\n<extra_id_1>User\n{FIRST}\n<extra_id_1>Assistant\n{REPLY}\n"
        f"<extra_id_1>User\n{SECOND}\n<extra_id_1>Assistant\n",
        CHAT,
    ),
    "ChatML": (
        "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in CHAT)
        + "<|im_start|>assistant\n",
        CHAT,
    ),
    "Llama 3": (
        "<|begin_of_text|>"
        + "".join(
            f"<|start_header_id|>{turn['role']}<|end_header_id|>\n\n{turn['content']}<|eot_id|>" for turn in CHAT
        ),
        CHAT,
    ),
    "Gemma": (
        f"<bos><start_of_turn>user\n{FIRST}<end_of_turn>\n<start_of_turn>model\n{REPLY}<end_of_turn>\n"
        f"<start_of_turn>user\n{SECOND}<end_of_turn>\n<start_of_turn>model\n",
        BARE,
    ),
    "Phi-3": ("".join(f"<|{turn['role']}|>\n{turn['content']}<|end|>\n" for turn in CHAT) + "<|assistant|>\n", CHAT),
    "OpenAssistant": (
        f"<|prompter|>{FIRST}<|endoftext|><|assistant|>{REPLY}<|endoftext|><|prompter|>{SECOND}<|endoftext|>"
        "<|assistant|>",
        BARE,
    ),
    "Zephyr": ("".join(f"<|{turn['role']}|>\n{turn['content']}</s>\n" for turn in CHAT), CHAT),
    "Llama 2": (
        f"<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\n{FIRST} [/INST] {REPLY} </s><s>[INST] {SECOND} [/INST]",
        CHAT,
    ),
    "Mistral": (f"<s>[INST] {FIRST} [/INST] {REPLY}</s>[INST] {SECOND} [/INST]", BARE),
}


def source(folder, rows: list[dict], **options) -> Source:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path, name="seed", **options)


@pytest.mark.parametrize("layout", MARKED)
@pytest.mark.parametrize("column", ["text", "prompt", "transcript", "messages"])
def test_marks_between_turns_are_known(tmp_path, layout, column):
    text, turns = MARKED[layout]
    (user,) = read_examples(source(tmp_path, [{column: text}]))
    assert user.text == SAID
    (whole,) = read_examples(source(tmp_path, [{column: text}], turns="all"))
    assert whole.messages == turns
    named = "auto" if column != "transcript" or layout == "HH-RLHF" else column
    (instruction,) = read_instructions(source(tmp_path, [{column: text, "response": "no"}], text=named))
    assert (instruction.instruction, instruction.output) == (FIRST, REPLY)


@pytest.mark.parametrize("layout", MARKED)
def test_lines_may_end_with_cr_lf(tmp_path, layout):
    text, turns = MARKED[layout]
    (whole,) = read_examples(source(tmp_path, [{"text": text.replace("\n", "\r\n")}], turns="all"))
    assert whole.messages == turns


@pytest.mark.parametrize("column", ["query", "user_input", "instance", "question", "instruction", "note"])
@pytest.mark.parametrize("layout", MARKED)
def test_other_columns_hold_what_a_user_says(tmp_path, layout, column):
    text = MARKED[layout][0]
    (user,) = read_examples(source(tmp_path, [{column: text}], text=column))
    assert user.text == text


@pytest.mark.parametrize(
    "text", ["### Human: a ### Assistant: b", "What does <extra_id_1> mean?", "say <|im_start|>", "Human: a"]
)
def test_marks_that_users_write_are_their_words(tmp_path, text):
    (user,) = read_examples(source(tmp_path, [{"text": text}]))
    assert user.text == text


def test_a_transcript_may_have_lost_its_first_line_breaks(tmp_path):
    for column in ("text", "transcript", "prompt"):
        (user,) = read_examples(source(tmp_path, [{column: MARKED["HH-RLHF"][0].strip()}]))
        assert user.text == SAID
    sides = {side: f"{MARKED['HH-RLHF'][0].strip()} {side}" for side in ("chosen", "rejected")}
    (pair,) = read_pairs(source(tmp_path, [sides]))
    assert (pair.prompt, pair.chosen, pair.rejected) == (BARE, "chosen", "rejected")


def test_alpaca_s_template(tmp_path):
    """tatsu-lab/alpaca has it in the column `text`, beside `instruction`, `input` and `output`."""
    row = {"instruction": "Add.", "input": "2 and 3\n\n4", "output": "9"}
    row["text"] = (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n"
        f"### Instruction:\n{row['instruction']}\n\n### Input:\n{row['input']}\n\n### Response:\n{row['output']}"
    )
    (user,) = read_examples(source(tmp_path, [row]))
    assert user.text == "Add.\n\n2 and 3\n\n4"
    short = row["text"].replace(f"### Input:\n{row['input']}\n\n", "")
    (user,) = read_examples(source(tmp_path, [{"text": short}]))
    assert user.text == "Add."


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation"])
def test_a_list_kept_as_json_is_a_conversation(tmp_path, column):
    path = tmp_path / "data.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([[column, "label"], [json.dumps(CHAT), 1], [json.dumps(CHAT, indent=1), 0]])
    for text in ("auto", column):
        assert [e.text for e in read_examples(Source(path, text=text))] == [SAID, SAID]
    assert [i.output for i in read_instructions(Source(path))] == [REPLY, REPLY]


@pytest.mark.parametrize(
    "text",
    [str(CHAT), str(CHAT).replace("}, {", "}\n {"), f"array({CHAT})", "plain words", '{"role": "user"}', "[" * 10**5],
)
def test_a_list_kept_as_anything_else_is_refused(tmp_path, text):
    with pytest.raises(FacError, match="line 1: messages is a text, not a list of turns: export the data as JSONL"):
        list(read_examples(source(tmp_path, [{"messages": text}])))


@pytest.mark.parametrize("column", ["text", "transcript", "dialog", "dialogue", "chat", "turns", "history"])
def test_other_columns_that_usually_hold_lists_may_hold_them_as_json(tmp_path, column):
    (user,) = read_examples(source(tmp_path, [{column: json.dumps(CHAT)}], text=column))
    assert user.text == SAID
    with pytest.raises(FacError, match=f"{column} is a text, not a list of turns"):
        list(read_examples(source(tmp_path, [{column: str(CHAT)}], text=column)))
    (user,) = read_examples(source(tmp_path, [{column: "[1] what a user says"}], text=column))
    assert user.text == "[1] what a user says"


def test_prompts_that_were_lists_are_read_or_refused(tmp_path):
    """trl's data sets keep prompts and replies as lists of messages, which become texts in a CSV."""
    (user,) = read_examples(source(tmp_path, [{"prompt": json.dumps(CHAT)}]))
    assert user.text == SAID
    with pytest.raises(FacError, match="prompt is a text, not a list of turns"):
        list(read_examples(source(tmp_path, [{"prompt": str(CHAT)}])))
    sides = {side: [*BARE, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (pair,) = read_pairs(source(tmp_path, [{side: json.dumps(chat) for side, chat in sides.items()}]))
    assert (pair.prompt, pair.chosen, pair.rejected) == (BARE, "chosen", "rejected")
    with pytest.raises(FacError, match="chosen is a text, not a list of turns"):
        list(read_pairs(source(tmp_path, [{side: str(chat) for side, chat in sides.items()}])))


@pytest.mark.parametrize("text", ['[{"a": 1}]', "[1, 2]", '["a"]', "[{'a': 1}]", json.dumps(CHAT)])
def test_json_in_a_column_of_texts_is_left_alone(tmp_path, text):
    (user,) = read_examples(source(tmp_path, [{"query": text}]))
    assert user.text == text
    if "role" not in text:
        assert [e.text for e in read_examples(source(tmp_path, [{"prompt": text}]))] == [text]


def test_a_conversation_is_not_joined_with_other_columns(tmp_path):
    with pytest.raises(FacError, match="messages holds a conversation, which cannot be joined"):
        list(read_examples(source(tmp_path, [{"a": "x", "messages": json.dumps(CHAT)}], text=("a", "messages"))))


def test_helpsteer2_s_prompts_with_their_replies_are_pairs(tmp_path):
    row = {"prompt": MARKED["HelpSteer2"][0], "chosen": "In 1817.", "rejected": "Never."}
    (pair,) = read_pairs(source(tmp_path, [row]))
    assert (pair.prompt, pair.chosen) == (BARE, "In 1817.")


def test_nan_is_an_empty_text(tmp_path):
    (user,) = read_examples(source(tmp_path, [{"instruction": "Add.", "input": float("nan")}]))
    assert user.text == "Add."
