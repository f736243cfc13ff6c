"""What a task's writer writes: how a reply becomes a row of training data, and which chats of a row the SAE reads.

A row is a string: a query as it is, anything else as one line of JSON with the keys that its data sets use (preference
pairs: prompt, chosen, rejected; CAA: question, answer_matching_behavior, answer_not_matching_behavior; Alpaca:
instruction, output). Large models wrap what they are asked for: in announcements, numbers, quotes, code fences, bold
type; that is looked through, and none of it stays in a row. Whether a reply refuses is decided in
`fac.synthesis.replies`.
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
from fac.data.pairs import LAYOUTS, Pair
from fac.data.source import Malformed, Row

MARKER = re.compile(  # the released prompts' form
    r"(?:\[query[-\s_]?\d+\][*_`]*[:：]?|\bquery[-\s_]?(?:#|no\. ?)?\d+[*_`]*\s*[:：])[\s*_`]*", re.IGNORECASE
)
_LABEL_BEHIND = re.compile(  # "...<TAB>1", and what it becomes: "... | 1", "... (label: 1)"
    r"\s*(?:(?:\t|\\t|<tab>|\|| {2,})\s*[01]|[(\[](?:label[:=]? ?)?[01][)\]]|[,;]? label[:=] ?[01])[\s*_`\"'”’]*$",
    re.IGNORECASE,
)
_BEFORE = re.compile(  # a quotation, a bullet, a number, a name in front of a text
    r"^(?:[\s>*_#`|•·–—-]+|\(?\d{1,3}[.)]\s+|query[-\s_]?\d{1,3}\s*(?:[.)]|[–—-])\s+"
    r"|[*_]*(?:(?:example|sample|user|toxic|harmful|test|generated|synthetic|new|final) ){0,2}"
    r"(?:answer|query|request|prompt|output|response|reply|result|example|sample|instruction|user|human|question"
    r"|test item|item)(?:[ -]?\d{1,3}| [a-e])?[*_]*\s*[:：][\s*_]*)",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"^[\s*_]*(?:instruction|prompt|user|human|query)(?:[ -]?\d{1,3})?[*_]*\s*[:：][\s*_]*", re.IGNORECASE
)
_ANNOUNCED = re.compile(  # "Sure! Here is one: " in front of a text, in its line
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok|alright|great|yes)\b(?: thing)?[!,.:]*\s+)?"
    r"here(?:'s| is| you go| you are)\b(?: [\w'-]+){0,12}? ?[:：]\s*(?=\S)",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "”": "”", "„": "“", "«": "»", "‘": "’", "`": "`", "「": "」"}
_TAGGED = re.compile(r"<(\w+)>(.*)</\1>")  # a text between tags, on one line
_TAG = re.compile(r"</?\w+>")
_INSTRUCTION = re.compile(r"<instruction>(.*?)(?:</instruction>|\Z)", re.IGNORECASE | re.DOTALL)
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)  # a string, or a comma too many
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NOTHING = " \t\r\n.…"  # blanks, and the dots that stand for a text in a prompt
_WORDS = (3, 60)  # the released prompts ask for 5-60; three only catches debris in the lab
_LONGEST = 600  # words of an instruction between marks: it may hold the text that it is about


@dataclass(frozen=True)
class Form:
    """One format.

    `parse(reply, strict)` gives the row of a reply, or "" if it cannot be read as one; `strict` takes JSON as the
    standard has it. `around(reply)` is what stands beside what was asked for, and `asks(row)` the texts of a row that
    are put to somebody: if one of them is a refusal, the reply is. `answers(row)` are its replies, which may be.
    """

    name: str
    parse: Callable[..., str]
    chats: Callable[[str], list[list[Message]]]
    around: Callable[[str], str]
    asks: Callable[[str], list[str]]
    answers: Callable[[str], list[str]] = lambda row: []


def parse_query(reply: str, strict: bool = False) -> str:
    """The query of a reply: what its first `Query-n:` marks (the form of the released prompts), else its first line.

    Without such a mark, announcements ("Here is one:") are passed over. "" if it is too short or too long, or JSON.
    """
    lines = [line.strip() for line in reply.splitlines() if line.strip() and not line.strip().startswith("```")]
    if len(lines) > 2 and _TAG.fullmatch(lines[0]) and lines[-1] == lines[0].replace("<", "</"):
        lines = lines[1:-1]
    for number, line in enumerate(lines):
        if mark := MARKER.search(line):
            # "**Query-1:**" may stand alone, above its query
            found = _unwrapped(line[mark.end() :]) or (_unwrapped(lines[number + 1]) if number + 1 < len(lines) else "")
            return found if _is_query(found) else ""
    announced = len(lines) > 1 and lines[0][:1].isupper() and lines[0].rstrip("*_ ").endswith((":", "："))
    text = _unwrapped(lines[announced]) if lines else ""
    return text if _is_query(text) else ""


def parse_pair(reply: str, strict: bool = False) -> str:
    """The preference pair of a reply; "" unless it is JSON with a prompt and two replies that differ.

    The two sides may also be whole conversations, as lists of messages that differ in the last reply.
    """
    for values in _objects(reply, strict):
        found = _strings(values, ("prompt", "chosen", "rejected"))
        if found:
            found["prompt"] = _NAMED.sub("", found["prompt"]) or found["prompt"]
            return json.dumps(found) if plain(found["chosen"]) != plain(found["rejected"]) else ""
        if all(isinstance(values.get(side), list) for side in ("chosen", "rejected")):
            try:
                pair = LAYOUTS["pair"](dict(values), Row("reply", {}), "")[0]
                check_characters(pair_row(pair))
                return pair_row(pair) if plain(pair.chosen) != plain(pair.rejected) else ""
            except Malformed:
                return ""
    return ""


def parse_choice(reply: str, strict: bool = False) -> str:
    """The CAA item of a reply; "" unless it is JSON that `fac.data.choices` can read, with options that differ."""
    for values in _objects(reply, strict):
        found = _strings(values, (QUESTION, MATCHING, OTHER))
        if found:
            try:
                options = [plain(option) for option in to_choice(found).options]
            except Malformed:
                return ""
            return json.dumps(found) if len(set(options)) == len(options) else ""
    return ""


def parse_instruction(reply: str, strict: bool = False) -> str:
    """The instruction of a reply, still without an answer; "" if it is none.

    What stands between <instruction> and </instruction> (or the reply's end) is one, of as many lines as it needs; else
    it is read as a query is.
    """
    marked = _INSTRUCTION.search(reply)
    text = _NAMED.sub("", marked[1].strip()) if marked else parse_query(reply)
    text = text if _are_characters(text) else ""
    return json.dumps({"instruction": text, "output": ""}) if 0 < len(text.split()) <= _LONGEST else ""


def asked(form: Form, row: str) -> str:
    """What the user says in a row."""
    return "\n\n".join(message["content"] for message in form.chats(row)[0] if message["role"] == "user")


def plain(text: str) -> str:
    """A text as far as it matters whether it is another one: letters and digits, in lower case."""
    return re.sub(r"\W+", " ", text.casefold()).strip() or text.strip()


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


def _pair_asks(row: str) -> list[str]:
    return [turn["content"] for turn in pair_of(row).prompt if turn["role"] == "user"]


def _pair_answers(row: str) -> list[str]:
    return [pair_of(row).chosen, pair_of(row).rejected]


def choice_chats(row: str) -> list[list[Message]]:
    return [as_chat(json.loads(row)[QUESTION])]


def instruction_chats(row: str) -> list[list[Message]]:
    """The instruction alone: an answer is written only for instructions that activate their feature."""
    return [as_chat(json.loads(row)["instruction"])]


def _choice_asks(row: str) -> list[str]:
    return [to_choice(json.loads(row)).marks[0].rpartition("\n")[0]]  # the question without its options


def _around_json(reply: str) -> str:
    """What stands before the first `{` and behind the last `}`."""
    before, brace, rest = reply.partition("{")
    return f"{before}\n{rest.rpartition('}')[2] if '}' in rest else ''}" if brace else before


def _around_marks(reply: str) -> str:
    return _INSTRUCTION.sub("\n", reply)


QUERY = Form("query", parse_query, lambda row: [as_chat(row)], lambda reply: reply, lambda row: [row])
PAIR = Form("pair", parse_pair, pair_chats, _around_json, _pair_asks, _pair_answers)
CHOICE = Form("choice", parse_choice, choice_chats, _around_json, _choice_asks)
INSTRUCTION = Form(
    "instruction", parse_instruction, instruction_chats, _around_marks, lambda row: [json.loads(row)["instruction"]]
)


def _is_query(text: str) -> bool:
    return (
        _WORDS[0] <= len(text.split()) <= _WORDS[1]
        and not text.startswith(("{", "[", "<"))
        and not text.endswith((":", "："))
        and _are_characters(text)
    )


def _unwrapped(line: str) -> str:
    """A line without announcement, number, bullet, name, quotes, bold type and label around it."""
    line, before = line.strip(), None
    while line != before:
        before = line
        line = _LABEL_BEHIND.sub("", _ANNOUNCED.sub("", _BEFORE.sub("", line))).strip().strip("*_`").strip()
        if tagged := _TAGGED.fullmatch(line):
            line = tagged[2].strip()
        if len(line) > 1 and _QUOTES.get(line[0]) == line[-1] and not set(line[1:-1]) & {line[0], line[-1]}:
            line = line[1:-1].strip()
        elif line.count('"') == 1 or line.count("“") != line.count("”"):  # its other one stood before the mark
            line = line.strip('"“”').strip()
    return line


def _objects(reply: str, strict: bool) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a reply, one behind the other; a `{` that begins none is passed over.

    Unless `strict`, what large models do and JSON does not allow is let pass: lines that break within strings; and, if
    nothing else can be read, commas behind the last value and backslashes before any character.
    """
    decoder = json.JSONDecoder(strict=strict)
    for text in [reply] if strict else [reply, _mended(reply)]:
        start = text.find("{")
        while start >= 0:
            try:
                found, length = decoder.raw_decode(text[start:])
            except (ValueError, RecursionError):
                length = 1
            else:
                yield found
            start = text.find("{", start + length)


def _mended(reply: str) -> str:
    without = _COMMA.sub(r"\1", reply)
    return _ESCAPE.sub(lambda m: m[0] if m[1] in '"\\/bfnrtu' else m[1] if m[1] == "'" else "\\" + m[0], without)


def _are_characters(text: str) -> bool:
    try:
        check_characters(text)
    except Malformed:
        return False
    return True


def _strings(found: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, str] | None:
    """The values of `keys`; None unless all are texts and neither empty nor the "..." of a prompt."""
    values = {key: found.get(key) for key in keys}
    texts = {key: value.strip() for key, value in values.items() if isinstance(value, str) and value.strip(_NOTHING)}
    try:
        check_characters("".join(texts.values()))
    except Malformed:
        return None
    return texts if len(texts) == len(keys) else None
