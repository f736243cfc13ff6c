"""Rows to instructions and their answers, whatever the layout: the data of supervised fine-tuning and its tests.

The columns are those of Alpaca, LIMA, AlpacaEval, ShareGPT, HH-RLHF and their like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fac.chat import Message, exchange
from fac.data.examples import LoadReport, check_characters, sift
from fac.data.files import read_rows
from fac.data.source import Malformed, Row, Source, listing, lookup
from fac.data.turns import CHATS, string_of, turns_of

ANSWERS = ("output", "response", "completion", "answer")  # where an answer stands beside its instruction
TRANSCRIPTS = ("chosen", "transcript")  # of HH-RLHF
PROMPTS = ("prompt", "question", "text")


@dataclass(frozen=True)
class Rule:
    """An answer must begin with `start`, end with `end` and hold one of `hold` ("" and () ask for nothing)."""

    start: str = ""
    end: str = ""
    hold: tuple[str, ...] = ()

    def holds(self, answer: str) -> bool:
        """Whether whole words of the answer are where the rule wants them."""
        padded = f" {' '.join(answer.split())} "
        return (
            padded.startswith(f" {self.start} " if self.start else " ")
            and padded.endswith(f" {self.end} " if self.end else " ")
            and (not self.hold or any(f" {word} " in padded for word in self.hold))
        )


@dataclass(frozen=True)
class Instruction:
    """What a user asks, and the answer to it; "" if there is none."""

    instruction: str
    output: str = ""
    subjects: tuple[str, ...] = ()  # of the lab's: the concepts that an answer has to name
    rules: tuple[Rule, ...] = ()  # ... and the rules that it has to follow


def read_instructions(source: Source, report: LoadReport | None = None) -> Iterator[Instruction]:
    """Yield the instructions of `source`, in order; `report` is filled on the way.

    The columns are recognised in every row: `instruction` with `input` (joined by a blank line) and an answer; a
    conversation, of which the first question and the reply to it count; or a prompt. `text` of the source, if it names
    a column, is the instruction or the conversation. The source's options `label` and
    `turns` have no meaning here. Raises FacError as `fac.data.examples.read_examples` does.
    """

    def convert(_: Row, values: dict[str, Any], __: int) -> list[Instruction]:
        question, answer = _first_exchange(values, source.text)
        if not question.strip():
            raise Malformed("the instruction is empty")
        check_characters(question + answer)
        return [Instruction(question, answer)]

    return sift(source, read_rows(source), convert, asdict, report, "instruction")


def _first_exchange(values: Mapping[str, Any], text: str | tuple[str, ...]) -> tuple[str, str]:
    """The first question of a row and the reply to it."""
    if text != "auto":
        names = (text,) if isinstance(text, str) else text
        held = [lookup(values, name) for name in names]
        if len(held) == 1:
            return _exchange(held[0], names[0], values)
        return _joined([string_of(value, name) for value, name in zip(held, names, strict=True)]), _answer(values)
    if isinstance(values.get("instruction"), str):
        parts = [string_of(values.get(name), name) for name in ("instruction", "input")]
        return _joined(parts), _answer(values)
    for name in CHATS + TRANSCRIPTS + PROMPTS:
        held = values.get(name)
        if isinstance(held, list) and name in CHATS:
            return _exchange(held, name, values)
        if isinstance(held, str) and (name not in TRANSCRIPTS or turns_of(held, name) is not None):
            return _exchange(held, name, values)
    raise Malformed(f"there is no instruction, conversation or prompt (found: {listing(values)})")


def _exchange(value: Any, name: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """What a cell asks, and the reply to it that stands there, or in the column of answers."""
    turns = _plain_turns(value) or turns_of(value, name)
    if turns is None:
        return string_of(value, name), _answer(values)
    question, reply = _of_chat(turns)
    return question, reply or _answer(values)


def _plain_turns(chat: Any) -> list[Message]:
    """The first two of plain texts (LIMA, UltraChat), which are the user's and the assistant's in turn."""
    if isinstance(chat, list) and len(chat) > 1 and all(isinstance(turn, str) for turn in chat):
        return exchange(chat[0], chat[1])
    return []


def _answer(values: Mapping[str, Any]) -> str:
    return next((values[name] for name in ANSWERS if isinstance(values.get(name), str)), "")


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part.strip())


def _of_chat(turns: list[Message]) -> tuple[str, str]:
    """The first thing that the user says, and what stands right behind it."""
    for turn, following in zip(turns, [*turns, {"role": "", "content": ""}][1:], strict=True):
        if turn["role"] == "user":
            return turn["content"], following["content"] if following["role"] == "assistant" else ""
    raise Malformed("the user says nothing")
