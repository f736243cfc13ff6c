"""What a task's writer writes: how a reply becomes a row of training data, and which chats of a row the SAE reads.

A row is a string: a query as it is, anything else as one line of JSON with the keys that its data sets use (preference
pairs: prompt, chosen, rejected; CAA: question, answer_matching_behavior, answer_not_matching_behavior; Alpaca:
instruction, output). Large models wrap what they are asked for: in announcements, code fences, bold type; that is
looked through. Knows: the formats. Does not know: prompts, models, what rows are used for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fac.chat import Message, as_chat
from fac.data.choices import MATCHING, OTHER, QUESTION, Choice, to_choice
from fac.data.examples import check_characters
from fac.data.files import Malformed, Row
from fac.data.pairs import LAYOUTS, Pair

_QUERY_LINE = re.compile(
    r"^[\s>*_#`-]*query[-\s]?\d+[*_`]*\s*:[\s*_`]*(.+?)[\s*_`]*(?:(?:\t|\\t|<tab>)\s*[01]\s*)?[`*_]*$", re.IGNORECASE
)
_REFUSAL = re.compile(  # as large models begin one; the lab's write no capitals
    r"(?:(?:Sorry, |I'm sorry, |I am sorry, )(?:but )?)?"
    r"(?:I (?:can't|cannot|can not|won't|will not|must decline)|I(?:'m| am) (?:not able|unable|sorry)|I apologi[sz]e"
    r"|As an AI)\b"
)
_INSTRUCTION = re.compile(r"<instruction>(.*?)</instruction>", re.IGNORECASE | re.DOTALL)
_WORDS = (3, 60)  # the released prompts ask for 5-60; three only catches debris in the lab
_LONGEST = 600  # words of an instruction between marks: it may hold the text that it is about


@dataclass(frozen=True)
class Form:
    """One format. `parse` gives the row of a reply, or "" if it cannot be read as one."""

    name: str
    parse: Callable[[str], str]
    chats: Callable[[str], list[list[Message]]]


def parse_query(reply: str) -> str:
    """The query of a reply: its first `Query-n:` line (the released prompts' form), else its first line; "" if bad.

    Of a reply without such a line, a refusal is no query, and an announcement ("Here is one:") is passed over.
    """
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    marked = [found[1] for line in lines if (found := _QUERY_LINE.match(line))]
    if not marked and lines and _REFUSAL.match(lines[0].replace("’", "'")):
        return ""
    announced = len(lines) > 1 and lines[0][:1].isupper() and lines[0].endswith(":")
    text = next(iter([*marked, *lines[announced:]]), "")
    return text if _WORDS[0] <= len(text.split()) <= _WORDS[1] else ""


def parse_pair(reply: str) -> str:
    """The preference pair of a reply; "" unless it is JSON with a prompt and two replies that differ.

    The two sides may also be whole conversations, as lists of messages that differ in the last reply.
    """
    for values in _objects(reply):
        found = _strings(values, ("prompt", "chosen", "rejected"))
        if found:
            return json.dumps(found) if found["chosen"] != found["rejected"] else ""
        if all(isinstance(values.get(side), list) for side in ("chosen", "rejected")):
            try:
                pair = LAYOUTS["pair"](dict(values), Row("reply", {}), "")[0]
                check_characters(pair_row(pair))
                return pair_row(pair)
            except Malformed:
                return ""
    return ""


def parse_choice(reply: str) -> str:
    """The CAA item of a reply; "" unless it is JSON that `fac.data.choices` can read."""
    for values in _objects(reply):
        found = _strings(values, (QUESTION, MATCHING, OTHER))
        if found:
            try:
                return json.dumps(found) if to_choice(found) else ""
            except Malformed:
                return ""
    return ""


def parse_instruction(reply: str) -> str:
    """The instruction of a reply, still without an answer; "" if it is none.

    What stands between <instruction> and </instruction> is one, of as many lines as it needs; else it is read as a
    query is.
    """
    marked = _INSTRUCTION.search(reply)
    text = marked[1].strip() if marked else parse_query(reply)
    return json.dumps({"instruction": text, "output": ""}) if 0 < len(text.split()) <= _LONGEST else ""


def pair_row(pair: Pair) -> str:
    """The row of a pair, which `pair_of` reads."""
    return json.dumps({"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "subset": pair.subset})


def choice_row(choice: Choice) -> str:
    """The row of a question, which `to_choice` reads."""
    answers = (f"({choice.letters[index]})" for index in (choice.matching, choice.other))
    return json.dumps(dict(zip((QUESTION, MATCHING, OTHER), (choice.text, *answers), strict=True)))


def pair_of(row: str) -> Pair:
    """The pair of a row, whose prompt is a text or a list of messages."""
    values = json.loads(row)
    prompt = as_chat(values["prompt"]) if isinstance(values["prompt"], str) else values["prompt"]
    return Pair(prompt, values["chosen"], values["rejected"], values.get("subset", ""))


def pair_chats(row: str) -> list[list[Message]]:
    """Both conversations of a pair: it activates a feature if one of them does."""
    pair = pair_of(row)
    return [pair.chosen_chat, pair.rejected_chat]


def choice_chats(row: str) -> list[list[Message]]:
    return [as_chat(json.loads(row)[QUESTION])]


def instruction_chats(row: str) -> list[list[Message]]:
    """The instruction alone: an answer is written only for instructions that activate their feature."""
    return [as_chat(json.loads(row)["instruction"])]


QUERY = Form("query", parse_query, lambda row: [as_chat(row)])
PAIR = Form("pair", parse_pair, pair_chats)
CHOICE = Form("choice", parse_choice, choice_chats)
INSTRUCTION = Form("instruction", parse_instruction, instruction_chats)


def _objects(reply: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a reply, one behind the other; a `{` that begins none is passed over.

    Large models break lines within strings, which JSON does not allow: let pass where the object is laid out over lines
    or stands within other text. In the compact form, as the lab writes it, a broken line is debris.
    """
    start = reply.find("{")
    while start >= 0:
        compact = start == 0 and not reply[1:2].isspace()
        try:
            found, length = json.JSONDecoder(strict=compact).raw_decode(reply[start:])
        except (ValueError, RecursionError):
            length = 1
        else:
            yield found
        start = reply.find("{", start + length)


def _strings(found: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, str] | None:
    """The values of `keys`; None unless all are texts and not empty."""
    values = {key: found.get(key) for key in keys}
    texts = {key: value.strip() for key, value in values.items() if isinstance(value, str) and value.strip()}
    try:
        check_characters("".join(texts.values()))
    except Malformed:
        return None
    return texts if len(texts) == len(keys) else None
