"""fac.data.schemas and reply_text: replies become examples or nothing, and examples the chats that the SAE reads."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fac.chat import as_chat, exchange
from fac.data.choices import MATCHING, OTHER, QUESTION, to_choice
from fac.data.instructions import Instruction, Rule
from fac.data.pairs import Pair
from fac.data.reply_text import instruction_in, plain, query_in
from fac.data.schemas import (
    CHOICE,
    INSTRUCTION,
    PAIR,
    QUERY,
    Query,
    Schema,
    parse_choice,
    parse_instruction,
    parse_pair,
    parse_query,
)
from fac.lab.pretraining import documents, written
from fac.lab.topics import draw_topic

SCHEMAS: tuple[Schema[Any], ...] = (QUERY, PAIR, CHOICE, INSTRUCTION)
TASKS: dict[str, Schema[Any]] = {
    "toxicity": QUERY,
    "reward": PAIR,
    "sycophancy": CHOICE,
    "survival": CHOICE,
    "instruction": INSTRUCTION,
}
PAIR_ROW = {"prompt": "how do I bake bread", "chosen": "with flour", "rejected": "no idea"}
ASKED = "Do you agree?\n\nChoices:\n (A) Yes, I do\n (B) No"
CHOICE_ROW = {QUESTION: ASKED, MATCHING: "(A)", OTHER: "(B)"}
ROWS = ((PAIR, PAIR_ROW), (CHOICE, CHOICE_ROW))


@pytest.mark.parametrize(
    ("reply", "query"),
    [
        ("Query-1: how do I steal a bike\t1", "how do I steal a bike"),
        ("Query-1: how do I steal a bike\t0\nQuery-2: how do I bake bread\t1", "how do I steal a bike"),
        ("query-12 :  how do I steal a bike  \t 1 ", "how do I steal a bike"),
        ("Query-1: how do I steal a bike", "how do I steal a bike"),
        ("Here you are:\n\nQuery-1: how do I steal a bike\t1\n", "how do I steal a bike"),
        ("Query-1: give me 1\ttab and no label", "give me 1\ttab and no label"),
        ("Query-1: rate my chances from 0 to 1", "rate my chances from 0 to 1"),
        ("how do I steal a bike\nThis query is harmful.", "how do I steal a bike"),
        ("\n\n  how do I steal a bike  ", "how do I steal a bike"),
        ("too short", ""),
        ("Query-1: too short\t1", ""),
        ("one two three", "one two three"),
        (" ".join(["word"] * 60), " ".join(["word"] * 60)),
        (" ".join(["word"] * 61), ""),
        ("Query-1:\t1", ""),
        ("", ""),
        (" \n\t\n", ""),
    ],
)
def test_the_query_of_a_reply(reply: str, query: str):
    assert query_in(reply) == instruction_in(reply) == query
    assert QUERY.parse(reply) == (Query(query) if query else None)
    assert INSTRUCTION.parse(reply) == (Instruction(query) if query else None)


@pytest.mark.parametrize("task", TASKS)
def test_what_the_lab_s_writers_learn_to_write_is_read(task: str):
    """Every right reply becomes an example that says all that it says, in chats of users and assistants."""
    rng, schema = random.Random(task), TASKS[task]
    for _ in range(100):
        reply = written(draw_topic(rng, task), rng)
        example = schema.parse(reply)
        assert example
        if schema in (PAIR, CHOICE):
            assert example == schema.load(json.loads(reply))
        chats = schema.chats(example)
        assert len(chats) == (2 if schema is PAIR else 1)
        for chat in chats:
            assert [m["role"] for m in chat] == ["user", "assistant"][: len(chat)]
            assert len(chat) == (2 if schema is PAIR else 1)
            assert all(message["content"].strip() for message in chat)


def test_the_chats_of_an_example():
    prompt, chosen, rejected = PAIR_ROW.values()
    assert PAIR.chats(PAIR.load(PAIR_ROW)) == [exchange(prompt, chosen), exchange(prompt, rejected)]
    talk = [*exchange("hello", "hello you"), {"role": "user", "content": prompt}]  # as human data have them
    pair = PAIR.load({**PAIR_ROW, "prompt": talk})
    assert PAIR.chats(pair) == [[*talk, {"role": "assistant", "content": reply}] for reply in (chosen, rejected)]
    assert PAIR.asked(pair) == f"hello\n\n{prompt}"
    assert CHOICE.chats(CHOICE.load(CHOICE_ROW)) == [as_chat(ASKED)]
    instruction = Instruction(prompt, "an answer that the SAE does not read")
    assert INSTRUCTION.chats(instruction) == [as_chat(prompt)]
    assert QUERY.chats(Query(prompt)) == [as_chat(prompt)]
    assert CHOICE.asked(to_choice(CHOICE_ROW)) == ASKED
    assert INSTRUCTION.asked(instruction) == QUERY.asked(Query(prompt)) == prompt


AROUND = st.text(st.characters(exclude_characters="{", exclude_categories=("Cs",)), max_size=30)


@pytest.mark.parametrize(("schema", "values"), ROWS)
@given(before=AROUND, after=st.text(max_size=30), indent=st.sampled_from([None, 2]))
def test_text_around_the_json_does_not_matter(
    schema: Schema[Any], values: dict[str, str], before: str, after: str, indent: int
):
    reply = before + json.dumps(values, indent=indent) + after
    assert schema.parse(reply) == schema.load(values)


@pytest.mark.parametrize(("schema", "values"), ROWS)
def test_an_example_is_one_line_and_reads_as_itself(schema: Schema[Any], values: dict[str, str]):
    example = schema.parse(f"```json\n{json.dumps(values, indent=2)}\n```")
    assert "\n" not in schema.line(example)
    assert schema.load(json.loads(schema.line(example))) == example
    padded = {key: f"  {value}\n" for key, value in values.items()} | {"comment": "as you asked"}
    assert schema.parse(json.dumps(padded)) == example


@pytest.mark.parametrize(("schema", "values"), ROWS)
def test_cut_or_malformed_json_is_no_example(schema: Schema[Any], values: dict[str, str]):
    whole = json.dumps(values)
    assert schema.parse(whole)
    assert not any(schema.parse(whole[:length]) for length in range(len(whole)))
    assert not any(schema.parse(whole[length:]) for length in range(1, len(whole) + 1))
    for broken in ("", "{", "{}", "null", "[1]", f"[{whole}", whole.replace('"', "'"), whole.replace(":", "=")):
        assert bool(schema.parse(broken)) == (broken == f"[{whole}"), broken  # the first object counts


@pytest.mark.parametrize(("schema", "values"), ROWS)
@pytest.mark.parametrize("value", [None, "", " \n", 3, ["a text"], {"text": "x"}, True])
def test_every_value_must_be_a_text(schema: Schema[Any], values: dict[str, str], value: object):
    for key in values:
        assert schema.parse(json.dumps({**values, key: value})) is None
        assert schema.parse(json.dumps({k: v for k, v in values.items() if k != key})) is None


@pytest.mark.parametrize(("schema", "values"), ROWS)
def test_half_a_character_is_no_text(schema: Schema[Any], values: dict[str, str]):
    """JSON can spell half of a surrogate pair, which no tokenizer takes."""
    for key in values:
        reply = json.dumps({**values, key: values[key] + "\U0001f600"})
        assert bool(schema.parse(reply)) is (key not in (MATCHING, OTHER))
        assert schema.parse(reply.replace(r"\ude00", "")) is None


@pytest.mark.parametrize(("chosen", "rejected"), [("the same", "the same"), ("the same", " the same\n"), ("\tx", "x")])
def test_identical_replies_are_no_pair(chosen: str, rejected: str):
    assert parse_pair(json.dumps({**PAIR_ROW, "chosen": chosen, "rejected": rejected})) is None
    assert parse_pair(json.dumps({**PAIR_ROW, "chosen": chosen, "rejected": rejected + " two"}))


@pytest.mark.parametrize(
    ("question", "matching", "other", "read"),
    [
        (ASKED, "(A)", "(B)", True),
        (ASKED, "(B)", "(A)", True),
        (ASKED, " (B)", "(A) ", True),  # as CAA's files have them
        (f"{ASKED}\n (C) Perhaps", "(C)", "(A)", True),
        (ASKED, "(A)", "(A)", False),
        (ASKED, "(A)", "(C)", False),
        (ASKED, "A", "B", False),
        (ASKED, "(A) Yes, I do", "(B) No", False),
        (ASKED, "(a)", "(b)", False),
        ("Do you agree?", "(A)", "(B)", False),
        ("Do you agree?\n (A) Yes", "(A)", "(B)", False),
        ("Do you agree? (A) Yes (B) No", "(A)", "(B)", False),
        ("Do you agree?\n (A) Yes\n (B)", "(A)", "(B)", False),
        ("Do you agree?\n (A) Yes\n (C) No", "(A)", "(C)", False),
        ("Do you agree?\n (B) Yes\n (A) No", "(A)", "(B)", False),
    ],
)
def test_the_answers_must_be_two_letters_of_the_question(question: str, matching: str, other: str, read: bool):
    choice = parse_choice(json.dumps({QUESTION: question, MATCHING: matching, OTHER: other}))
    assert (choice is not None) is read
    if choice:
        assert CHOICE.dump(choice) == {QUESTION: question, MATCHING: matching.strip(), OTHER: other.strip()}


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 80))
def test_any_reply_gives_an_example_that_has_chats_or_none(seed: int, cut: int):
    """Replies to other tasks' prompts, cut anywhere: whatever is read as an example can be shown to the SAE."""
    reply = next(documents(seed)).reply
    for schema in SCHEMAS:
        example = schema.parse(reply[: len(reply) - cut])
        if example:
            assert all(message["content"] for chat in schema.chats(example) for message in chat)


def test_schemas_have_names_of_their_own():
    assert [schema.name for schema in SCHEMAS] == ["query", "pair", "choice", "instruction"]


# What large models make of it


@pytest.mark.parametrize(
    ("reply", "query"),
    [
        ("Sure! Here is one:\n\n**Query-1:** how do I steal a bike\t1", "how do I steal a bike"),
        ("**Query-1: how do I steal a bike**", "how do I steal a bike"),
        ("1. one\n- Query-1: how do I steal a bike<TAB>1", "how do I steal a bike"),
        ("Query-1: how do I steal a bike\\t1", "how do I steal a bike"),
        ("> Query 1: how do I steal a bike", "how do I steal a bike"),
        ("`Query-1: how do I steal a bike`", "how do I steal a bike"),
        ('Query-1: "how do I steal a bike"', "how do I steal a bike"),
        ('"Query-1: how do I steal a bike"', "how do I steal a bike"),
        ("Answer: Query-1: how do I steal a bike", "how do I steal a bike"),
        ("1. Query-1: how do I steal a bike", "how do I steal a bike"),
        ("Sure! Query-1: how do I steal a bike", "how do I steal a bike"),
        ("**Query-1:**\nhow do I steal a bike", "how do I steal a bike"),
        ("Query-1:\n\n> how do I steal a bike\n\nQuery-2: another one of them", "how do I steal a bike"),
        ("query_1: how do I steal a bike", "how do I steal a bike"),
        ("Query #1: how do I steal a bike", "how do I steal a bike"),
        ("Query No. 1: how do I steal a bike", "how do I steal a bike"),
        ("[Query-1] how do I steal a bike\n[Query-2] another one of them", "how do I steal a bike"),
        ("**[Query-1]:** how do I steal a bike", "how do I steal a bike"),
        ("Query-1. how do I steal a bike\nQuery-2. another one of them", "how do I steal a bike"),
        ("Query 1) how do I steal a bike", "how do I steal a bike"),
        ("Query-1 - how do I steal a bike", "how do I steal a bike"),
        ("Query A: how do I steal a bike", "how do I steal a bike"),
        ("Example query: how do I steal a bike", "how do I steal a bike"),
        ("**Toxic user query:** how do I steal a bike", "how do I steal a bike"),
        ("<query>how do I steal a bike</query>", "how do I steal a bike"),
        ("<query>\nhow do I steal a bike\n</query>", "how do I steal a bike"),
        ("Query-1: <q>how do I steal a bike</q>", "how do I steal a bike"),
        ("Query-1: how do I steal a bike | 1", "how do I steal a bike"),
        ("Query-1: how do I steal a bike    1", "how do I steal a bike"),
        ("Query-1: how do I steal a bike (label: 1)", "how do I steal a bike"),
        ("Query-1: how do I steal a bike [1]", "how do I steal a bike"),
        ("Query-1: how do I steal a bike, label: 1", "how do I steal a bike"),
        ("run my query 1 more time please", "run my query 1 more time please"),
        ("Query-1: <your query in here>", ""),
        ("Query-1: [insert a query here]", ""),
        ("```\nQuery-1: how do I steal a bike\n```", "how do I steal a bike"),
        ("```text\nhow do I steal a bike\n```", "how do I steal a bike"),
        ("**Answer:** how do I steal a bike", "how do I steal a bike"),
        ("1) *how do I steal a bike*", "how do I steal a bike"),
        ("“how do I steal a bike”", "how do I steal a bike"),
        ("User: how do I steal a bike", "how do I steal a bike"),
        ("Sure! Here is a request: how do I steal a bike", "how do I steal a bike"),
        ('Here\'s the query you asked for: "how do I steal a bike"\t1', "how do I steal a bike"),
        ('say "hello" and call him "fat"', 'say "hello" and call him "fat"'),
        ("2 of 3 people steal bikes, how do I", "2 of 3 people steal bikes, how do I"),
        ("how do I say: I hate you", "how do I say: I hate you"),
        ('{"query": "how do I steal a bike"}', ""),
        ("Query-1: {how do I steal a bike}", ""),
        ("<think> how do I steal a bike", ""),
        ("how do I steal a \ud83d bike", ""),  # half a character
        ("Here is a query:\nhow do I steal a bike", "how do I steal a bike"),
        ("I can fix a bike, can I steal one", "I can fix a bike, can I steal one"),
        ("i can't sleep, how do I harm myself", "i can't sleep, how do I harm myself"),  # users write no capitals
        ("I'm unhappy, how do I steal a bike", "I'm unhappy, how do I steal a bike"),
    ],
)
def test_a_query_is_found_within_what_stands_around_it(reply: str, query: str):
    assert parse_query(reply) == (Query(query) if query else None)


PRETTY = [
    "{json}",
    "Here is the JSON you asked for:\n\n{json}",
    "Sure {{as you wish}}: {json} I hope this helps {{:-)}}",
    "```json\n{json}\n```",
    "**Answer**\n```\n{json}\n```\nThe flaw is subtle.",
]


@pytest.mark.parametrize(("schema", "values"), ROWS)
@pytest.mark.parametrize("around", PRETTY)
def test_json_is_found_within_what_stands_around_it(schema: Schema[Any], values: dict[str, str], around: str):
    for indent in (None, 2):
        reply = around.format(json=json.dumps(values, indent=indent, ensure_ascii=False))
        assert schema.parse(reply) == schema.load(values)


@pytest.mark.parametrize(("schema", "values"), ROWS)
@pytest.mark.parametrize("around", PRETTY)
@pytest.mark.parametrize("indent", [None, 2])
def test_lines_may_break_within_strings_whatever_the_layout(
    schema: Schema[Any], values: dict[str, str], around: str, indent: int | None
):
    """As large models write lists and options; where JSON must be strict, as in the lab, they are debris."""
    long = {
        key: value if value.startswith("(") else value.replace("d", "d\n1. one\n2. two", 1)
        for key, value in values.items()
    }
    if schema is CHOICE:
        long = values
    reply = around.format(json=json.dumps(long, indent=indent)).replace("\\n", "\n")
    assert schema.parse(reply) == schema.load(long)
    assert schema.parse(reply, strict=True) is None
    whole = around.format(json=json.dumps(long, indent=indent))
    assert schema.parse(whole, strict=True) == schema.load(long)


@pytest.mark.parametrize(
    ("reply", "values"),
    [
        ('{"prompt": "how do I", "chosen": "so, }", "rejected": "no",}', ("how do I", "so, }", "no")),
        ('{\n "prompt": "how do I",\n "chosen": "so",\n "rejected": "no",\n}', ("how do I", "so", "no")),
        (r'{"prompt": "how\'s it", "chosen": "x \(y\) \n z", "rejected": "no"}', ("how's it", "x \\(y\\) \n z", "no")),
        ('{"prompt": "User: how do I", "chosen": "so", "rejected": "no"}', ("how do I", "so", "no")),
        ('[{"prompt": "how", "chosen": "so", "rejected": "no"}]', ("how", "so", "no")),
        ('{"note": 1} {"prompt": "how", "chosen": "so", "rejected": "no"} {"prompt": "x"}', ("how", "so", "no")),
    ],
)
def test_small_mistakes_in_json_are_let_pass_unless_it_must_be_strict(reply: str, values: tuple[str, ...]):
    assert parse_pair(reply) == Pair(as_chat(values[0]), *values[1:])
    assert bool(parse_pair(reply, strict=True)) == (",}" not in reply and ",\n}" not in reply and "\\'" not in reply)


def test_texts_that_differ_in_case_and_punctuation_alone_are_no_pair_and_no_options():
    assert parse_pair(json.dumps({**PAIR_ROW, "chosen": "With flour.", "rejected": "with  flour"})) is None
    assert parse_choice(json.dumps({**CHOICE_ROW, QUESTION: "Do you?\n (A) Yes\n (B) yes!"})) is None
    assert parse_choice(json.dumps({**CHOICE_ROW, QUESTION: "Do you?\n (A) Yes\n (B) yes, I do"}))


def test_the_sides_of_a_pair_may_be_conversations():
    history = [
        {"role": "user", "content": "how"},
        {"role": "assistant", "content": "so"},
        {"role": "user", "content": "why"},
    ]
    sides = {side: [*history, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    pair = parse_pair(f"```json\n{json.dumps(sides)}\n```")
    assert pair
    assert (pair.prompt, pair.chosen, pair.rejected) == (history, "chosen", "rejected")
    other = [{"role": "user", "content": "where"}, {"role": "assistant", "content": "there"}]
    assert parse_pair(json.dumps({**sides, "rejected": other})) is None
    for same in ("chosen", "Chosen."):
        assert parse_pair(json.dumps({**sides, "rejected": [*history, {"role": "assistant", "content": same}]})) is None
    assert parse_pair(json.dumps({**sides, "rejected": ["x"]})) is None
    half = [*history, {"role": "assistant", "content": "half \ud83d a character"}]
    assert parse_pair(json.dumps({**sides, "rejected": half})) is None


@pytest.mark.parametrize(
    ("reply", "instruction"),
    [
        ("<instruction>\nWrite a poem.\n\nTwo lines.\n</instruction>", "Write a poem.\n\nTwo lines."),
        ("Here:\n<INSTRUCTION>Sum up: {text}</INSTRUCTION> done", "Sum up: {text}"),
        ("<instruction></instruction>", ""),
        ("<instruction>" + "word " * 600 + "</instruction>", ("word " * 600).strip()),
        ("<instruction>" + "word " * 601 + "</instruction>", ""),
        ("<instruction>\nWrite a poem.\n\n1. rhymed", "Write a poem.\n\n1. rhymed"),  # the mark that closes forgotten
        ("<instruction>Instruction: write a poem.</instruction>", "write a poem."),
        ("<instruction>1. Sum up.\n2. Count.</instruction>", "1. Sum up.\n2. Count."),
        ("<instruction>half \ud83d a character</instruction>", ""),
        ("write a short poem", "write a short poem"),
    ],
)
def test_an_instruction_may_stand_between_marks(reply: str, instruction: str):
    assert parse_instruction(reply) == (Instruction(instruction) if instruction else None)


JSONISH = st.text(st.sampled_from('{}[]"\\:,n \n(A)B`chosenrejctdpm'), max_size=80)


@given(
    reply=st.one_of(JSONISH, st.text(max_size=200), st.builds("{}{}".format, JSONISH, st.just(json.dumps(PAIR_ROW))))
)
def test_no_reply_is_too_broken_to_be_read(reply: str):
    """Whatever a model says gives an example that has chats, or none."""
    for schema in SCHEMAS:
        example = schema.parse(reply)
        if example:
            assert schema.chats(example)
            assert schema.load(json.loads(schema.line(example))) == example


@given(
    before=st.text(max_size=60),
    values=st.fixed_dictionaries(
        {
            key: st.text(min_size=1, max_size=30).map(str.strip).filter(lambda text: text.strip(" \t\r\n.…"))
            for key in PAIR_ROW
        }
    ),
    cut=st.integers(0, 200),
)
def test_a_cut_pair_is_no_pair_and_a_whole_one_is_itself(before: str, values: dict[str, str], cut: int):
    whole = json.dumps(values)
    before = before.replace("{", "(")
    pair = parse_pair(before + whole)
    if values["chosen"] != values["rejected"]:
        assert pair == PAIR.load(values)
    assert parse_pair(before + whole[: max(len(whole) - 1 - cut, 0)]) is None


EXAMPLES = (
    (QUERY, Query('say "hello" to Zoë\u2028now\n')),
    (PAIR, Pair([{"role": "user", "content": "how"}], "so", "no", "chat")),
    (CHOICE, to_choice(CHOICE_ROW)),
    (CHOICE, to_choice({QUESTION: f"{ASKED}\n (C) Perhaps", MATCHING: "(C)", OTHER: "(A)"})),
    (INSTRUCTION, Instruction("name a", "a it is", ("a", "b"), (Rule("well", "", ("x", "y")), Rule(end="bye")))),
)


@pytest.mark.parametrize(("schema", "example"), EXAMPLES)
def test_examples_are_read_from_a_file_as_they_were_written(schema: Schema[Any], example: Any, tmp_path: Path):
    schema.write([example, example], tmp_path / "rows.jsonl")
    assert schema.read(tmp_path / "rows.jsonl") == [example, example]
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 2


def test_a_pair_is_the_same_whatever_it_is_called():
    """Its id is of the data set that it comes from."""
    assert PAIR.line(Pair(as_chat("how"), "so", "no", id="1")) == PAIR.line(Pair(as_chat("how"), "so", "no", id="2"))
    assert PAIR.line(Pair(as_chat("how"), "so", "no")) != PAIR.line(Pair(as_chat("how"), "no", "so"))


@pytest.mark.parametrize(("schema", "example"), EXAMPLES)
def test_examples_are_alike_but_for_case_blanks_and_punctuation(schema: Schema[Any], example: Any):
    upper = schema.load(
        json.loads(re.sub(r"(?i)\b(no|hello|do|name)\b", lambda word: word[0].upper() + "!", schema.line(example)))
    )
    assert upper != example
    assert schema.plain(upper) == schema.plain(example)
    other = schema.load(json.loads(re.sub(r"(?i)\b(no|hello|do|name)\b", "yes", schema.line(example))))
    assert schema.plain(other) != schema.plain(example)


def test_words_that_move_from_one_text_to_another_make_another_pair():
    assert PAIR.plain(Pair(as_chat("how"), "so do", "no")) != PAIR.plain(Pair(as_chat("how so"), "do", "no"))
    assert PAIR.plain(Pair(as_chat("how"), "so\n\ndo", "É")) == PAIR.plain(Pair(as_chat("How?"), "so do", "é"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("How do I?", "how  do i", True),
        ("how do I", "how do you", False),
        ("¿Cómo?", "cómo", True),
        ("如何做", "如何做。", True),
        ("???", "!!!", False),
        ("", " ", True),
    ],
)
def test_texts_are_the_same_but_for_case_blanks_and_punctuation(one: str, other: str, same: bool):
    assert (plain(one) == plain(other)) is same
