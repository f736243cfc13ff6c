"""What a task's writer writes: how a reply becomes a row of training data, and which chats of a row the SAE reads.

A row is a string: a query as it is, anything else as one line of JSON with the keys that its data sets use (preference
pairs: prompt, chosen, rejected; CAA: question, answer_matching_behavior, answer_not_matching_behavior; Alpaca:
instruction, output). Knows: the formats. Does not know: prompts, models, what rows are used for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fac.chat import Message, as_chat
from fac.data.choices import MATCHING, OTHER, QUESTION, to_choice
from fac.data.examples import check_characters
from fac.data.files import Malformed
from fac.data.pairs import Pair

_QUERY_LINE = re.compile(r"^\s*query-\d+\s*:\s*(.+?)\s*(?:\t\s*[01]\s*)?$", re.IGNORECASE)
_WORDS = (3, 60)  # the released prompts ask for 5-60; three only catches debris in the lab


@dataclass(frozen=True)
class Form:
    """One format. `parse` gives the row of a reply, or "" if it cannot be read as one."""

    name: str
    parse: Callable[[str], str]
    chats: Callable[[str], list[list[Message]]]


def parse_query(reply: str) -> str:
    """The query of a reply: its first `Query-n:` line (the released prompts' form), else its first line; "" if bad."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    if not lines:
        return ""
    marked = [found[1] for line in lines if (found := _QUERY_LINE.match(line))]
    text = marked[0] if marked else lines[0]
    return text if _WORDS[0] <= len(text.split()) <= _WORDS[1] else ""


def parse_pair(reply: str) -> str:
    """The preference pair of a reply; "" unless it is JSON with a prompt and two replies that differ."""
    found = _strings(reply, ("prompt", "chosen", "rejected"))
    return json.dumps(found) if found and found["chosen"] != found["rejected"] else ""


def parse_choice(reply: str) -> str:
    """The CAA item of a reply; "" unless it is JSON that `fac.data.choices` can read."""
    found = _strings(reply, (QUESTION, MATCHING, OTHER))
    try:
        return json.dumps(found) if found and to_choice(found) else ""
    except Malformed:
        return ""


def parse_instruction(reply: str) -> str:
    """The instruction of a reply, still without an answer; "" if it is none."""
    text = parse_query(reply)
    return json.dumps({"instruction": text, "output": ""}) if text else ""


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


def _strings(reply: str, keys: tuple[str, ...]) -> dict[str, str] | None:
    """The values of `keys` in the first JSON object of a reply; None unless all are texts and not empty."""
    start = reply.find("{")
    if start < 0:
        return None
    try:
        found: Any = json.JSONDecoder().raw_decode(reply[start:])[0]
    except ValueError:
        return None
    if not isinstance(found, Mapping):
        return None
    values = {key: found.get(key) for key in keys}
    texts = {key: value.strip() for key, value in values.items() if isinstance(value, str) and value.strip()}
    try:
        check_characters("".join(texts.values()))
    except Malformed:
        return None
    return texts if len(texts) == len(keys) else None
