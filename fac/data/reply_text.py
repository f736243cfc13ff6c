"""The text of a model's reply without what stands around it: announcements, numbers, quotes, bold type, code fences.

Large models wrap what they are asked for. `query_in`, `instruction_in` and `objects_in` look through that; what they
find is made an example, or refused as none, by `fac.data.schemas`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fac.data.examples import check_characters
from fac.data.source import Malformed

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
NAMED = re.compile(
    r"^[\s*_]*(?:instruction|prompt|user|human|query)(?:[ -]?\d{1,3})?[*_]*\s*[:：][\s*_]*", re.IGNORECASE
)
_NAMED_TEXT = re.compile(r"^[\s*_]*(?:(?:the|new) )?text(?: \d{1,3})?[*_]*\s*[:：][\s*_]*", re.IGNORECASE)
_ANNOUNCED = re.compile(  # "Sure! Here is one: " in front of a text, in its line
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok|alright|great|yes)\b(?: thing)?[!,.:]*\s+)?"
    r"here(?:'s| is| you go| you are)\b(?: [\w'-]+){0,12}? ?[:：]\s*(?=\S)",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "”": "”", "„": "“", "«": "»", "‘": "’", "`": "`", "「": "」"}
_TAGGED = re.compile(r"<(\w+)>(.*)</\1>")  # a text between tags, on one line
_TAG = re.compile(r"</?\w+>")
TEXT = re.compile(r"<text>(.*?)(?:</text>|\Z)", re.IGNORECASE | re.DOTALL)
INSTRUCTION = re.compile(r"<instruction>(.*?)(?:</instruction>|\Z)", re.IGNORECASE | re.DOTALL)
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)  # a string, or a comma too many
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NOTHING = " \t\r\n.…"  # blanks, and the dots that stand for a text in a prompt
_WORDS = (3, 60)  # the released prompts ask for 5-60; three only catches debris in the lab
_LONGEST = 600  # words of an instruction between marks: it may hold the text that it is about


def query_in(reply: str) -> str:
    """The query of a reply: what its first `Query-n:` marks (the form of the released prompts), else its first line.

    Without such a mark, announcements ("Here is one:") are passed over. "" if it is too short or too long, or JSON.
    """
    lines = [line.strip() for line in reply.splitlines() if line.strip() and not line.strip().startswith("```")]
    if len(lines) > 2 and _TAG.fullmatch(lines[0]) and lines[-1] == lines[0].replace("<", "</"):
        lines = lines[1:-1]
    for number, line in enumerate(lines):
        if mark := MARKER.search(line):
            # "**Query-1:**" may stand alone, above its query
            text = _unwrapped(line[mark.end() :]) or (_unwrapped(lines[number + 1]) if number + 1 < len(lines) else "")
            return text if _is_query(text) else ""
    announced = len(lines) > 1 and lines[0][:1].isupper() and lines[0].rstrip("*_ ").endswith((":", "："))
    text = _unwrapped(lines[announced]) if lines else ""
    return text if _is_query(text) else ""


def instruction_in(reply: str) -> str:
    """The instruction of a reply; "" if it is none.

    What stands between <instruction> and </instruction> (or the reply's end) is one, of as many lines as it needs; else
    it is read as a query is.
    """
    return _marked_in(reply, INSTRUCTION)


def text_in(reply: str) -> str:
    """The text of a reply; "" if it is none. As an instruction is found, between <text> and </text>."""
    return _NAMED_TEXT.sub("", _marked_in(reply, TEXT))


def _marked_in(reply: str, marks: re.Pattern[str]) -> str:
    marked = marks.search(reply)
    text = NAMED.sub("", marked[1].strip()) if marked else query_in(reply)
    return text if 0 < len(text.split()) <= _LONGEST and _are_characters(text) else ""


def objects_in(reply: str, strict: bool) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a reply, one behind the other; a `{` that begins none is passed over.

    Unless `strict`, what large models do and JSON does not allow is let pass: lines that break within strings; and, if
    nothing else can be read, commas behind the last value and backslashes before any character.
    """
    decoder = json.JSONDecoder(strict=strict)
    for text in [reply] if strict else [reply, _mended(reply)]:
        start = text.find("{")
        while start >= 0:
            try:
                value, length = decoder.raw_decode(text[start:])
            except (ValueError, RecursionError):
                length = 1
            else:
                yield value
            start = text.find("{", start + length)


def several_queries(reply: str) -> list[str]:
    """The parts of a reply that each begin with a mark (`Query-n:`) on a line of their own; [] where there is none."""
    parts: list[list[str]] = []
    for line in reply.splitlines():
        if MARKER.search(line):
            parts.append([])
        if parts:
            parts[-1].append(line)
    return ["\n".join(part) for part in parts]


def several_instructions(reply: str) -> list[str]:
    """The parts of a reply between <instruction> and </instruction>, with these marks."""
    return [match[0] for match in INSTRUCTION.finditer(reply)]


def several_texts(reply: str) -> list[str]:
    """The parts of a reply between <text> and </text>, with these marks."""
    return [match[0] for match in TEXT.finditer(reply)]


def several_objects(reply: str) -> list[str]:
    """The JSON objects of a reply, each once, as JSON."""
    return list(dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in objects_in(reply, strict=False)))


def texts_of(value: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, str] | None:
    """The values of `keys`; None unless all are texts and neither empty nor the "..." of a prompt."""
    values = {key: value.get(key) for key in keys}
    texts = {key: text.strip() for key, text in values.items() if isinstance(text, str) and text.strip(_NOTHING)}
    return texts if len(texts) == len(keys) and _are_characters("".join(texts.values())) else None


def around_json(reply: str) -> str:
    """What stands before the first `{` and behind the last `}`."""
    before, brace, rest = reply.partition("{")
    return f"{before}\n{rest.rpartition('}')[2] if '}' in rest else ''}" if brace else before


def around_marks(reply: str) -> str:
    """What stands around <instruction> ... </instruction>."""
    return INSTRUCTION.sub("\n", reply)


def around_text(reply: str) -> str:
    """What stands around <text> ... </text>."""
    return TEXT.sub("\n", reply)


def plain(text: str) -> str:
    """A text as far as it matters whether it is another one: letters and digits, in lower case."""
    return re.sub(r"\W+", " ", text.casefold()).strip() or text.strip()


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


def _mended(reply: str) -> str:
    without = _COMMA.sub(r"\1", reply)
    return _ESCAPE.sub(lambda m: m[0] if m[1] in '"\\/bfnrtu' else m[1] if m[1] == "'" else "\\" + m[0], without)


def _are_characters(text: str) -> bool:
    try:
        check_characters(text)
    except Malformed:
        return False
    return True
