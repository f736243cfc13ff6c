"""The kinds of training examples, one `Schema` each: how a reply becomes one, what a model reads of it, its JSON.

In memory an example is its dataclass; in files it is one JSON value a line, with the keys that the kind's data sets use
(a query is its text; pairs: prompt, chosen, rejected; CAA: question, answer_matching_behavior,
answer_not_matching_behavior; Alpaca: instruction, output).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from fac.chat import Message, as_chat
from fac.data.choices import MATCHING, OTHER, QUESTION, Choice, to_choice
from fac.data.examples import check_characters
from fac.data.instructions import Instruction, Rule
from fac.data.pairs import LAYOUTS, Pair
from fac.data.reply_text import (
    NAMED,
    around_json,
    around_marks,
    around_text,
    instruction_in,
    objects_in,
    plain,
    query_in,
    several_instructions,
    several_objects,
    several_queries,
    several_texts,
    text_in,
    texts_of,
)
from fac.data.source import Malformed, Row


@dataclass(frozen=True)
class Query:
    """What a user asks; no answer belongs to it."""

    text: str


E = TypeVar("E")


@dataclass(frozen=True)
class Schema(Generic[E]):
    """One kind of training example."""

    name: str
    parse: Callable[..., E | None]  # (reply, strict=False): None if it holds none; strict: JSON as the standard has it
    chats: Callable[[E], list[list[Message]]]  # what the SAE reads: it activates a feature if one of them does
    several: Callable[[str], list[str]]  # the parts of a reply that hold an example each; [] if it is no list
    around: Callable[[str], str]  # what stands in a reply beside what was asked for
    asks: Callable[[E], list[str]]  # texts that are put to somebody: if one is a refusal, the writer refused
    answers: Callable[[E], list[str]]  # texts that reply to those, which may refuse
    dump: Callable[[E], Any]  # its JSON value
    load: Callable[[Any], E]  # the example of a JSON value

    def line(self, example: E) -> str:
        """One line of JSON, the same for the same example."""
        return json.dumps(self.dump(example))

    def plain(self, example: E) -> str:
        """What is the same for examples that differ in case, blanks and punctuation alone."""
        return json.dumps([plain(text) for text in _texts(self.dump(example))])

    def asked(self, example: E) -> str:
        """What the user says in an example."""
        return "\n\n".join(turn["content"] for turn in self.chats(example)[0] if turn["role"] == "user")

    def write(self, examples: Iterable[E], file: Path) -> None:
        """One example a line."""
        file.write_text("".join(f"{self.line(example)}\n" for example in examples))

    def read(self, file: Path) -> list[E]:
        """What `write` wrote."""
        return [self.load(json.loads(line)) for line in file.read_text().splitlines()]


def parse_query(reply: str, strict: bool = False) -> Query | None:
    """The query of a reply; see `query_in`."""
    text = query_in(reply)
    return Query(text) if text else None


def parse_text(reply: str, strict: bool = False) -> Query | None:
    """The text of a reply, of as many lines as it has; see `text_in`."""
    text = text_in(reply)
    return Query(text) if text else None


def parse_pair(reply: str, strict: bool = False) -> Pair | None:
    """The preference pair of a reply; None unless it is JSON with a prompt and two replies that differ.

    The two sides may also be whole conversations, as lists of messages that differ in the last reply.
    """
    for value in objects_in(reply, strict):
        if texts := texts_of(value, ("prompt", "chosen", "rejected")):
            prompt = NAMED.sub("", texts["prompt"]) or texts["prompt"]
            return _differing(Pair(as_chat(prompt), texts["chosen"], texts["rejected"]))
        if all(isinstance(value.get(side), list) for side in ("chosen", "rejected")):
            try:
                (pair,) = LAYOUTS["pair"](dict(value), Row("reply", {}), "")
                check_characters(json.dumps(_pair_value(pair), ensure_ascii=False))
            except Malformed:
                return None
            return _differing(pair)
    return None


def parse_choice(reply: str, strict: bool = False) -> Choice | None:
    """The CAA item of a reply; None unless it is JSON that `to_choice` can read, with options that differ."""
    for value in objects_in(reply, strict):
        if texts := texts_of(value, (QUESTION, MATCHING, OTHER)):
            try:
                choice = to_choice(texts)
            except Malformed:
                return None
            return choice if len(set(map(plain, choice.options))) == len(choice.options) else None
    return None


def parse_instruction(reply: str, strict: bool = False) -> Instruction | None:
    """The instruction of a reply, still without an answer; see `instruction_in`."""
    text = instruction_in(reply)
    return Instruction(text) if text else None


def _texts(value: Any) -> Iterator[str]:
    """All texts of a JSON value, in order."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from _texts(part)


def _differing(pair: Pair) -> Pair | None:
    return pair if plain(pair.chosen) != plain(pair.rejected) else None


def _pair_value(pair: Pair) -> dict[str, Any]:
    """Without its id: the same pair of two data sets is one."""
    return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "subset": pair.subset}


def _pair(value: Mapping[str, Any]) -> Pair:
    prompt = as_chat(value["prompt"]) if isinstance(value["prompt"], str) else value["prompt"]
    return Pair(prompt, value["chosen"], value["rejected"], value.get("subset", ""))


def _choice_value(choice: Choice) -> dict[str, str]:
    answers = (f"({choice.letters[index]})" for index in (choice.matching, choice.other))
    return dict(zip((QUESTION, MATCHING, OTHER), (choice.text, *answers), strict=True))


def _instruction(value: Mapping[str, Any]) -> Instruction:
    rules = (Rule(rule["start"], rule["end"], tuple(rule["hold"])) for rule in value.get("rules", ()))
    return Instruction(value["instruction"], value["output"], tuple(value.get("subjects", ())), tuple(rules))


def _of_user(chat: list[Message]) -> list[str]:
    return [turn["content"] for turn in chat if turn["role"] == "user"]


QUERY: Schema[Query] = Schema(
    "query",
    parse_query,
    chats=lambda query: [as_chat(query.text)],
    several=several_queries,
    around=lambda reply: reply,
    asks=lambda query: [query.text],
    answers=lambda _: [],
    dump=lambda query: query.text,
    load=Query,
)
TEXT: Schema[Query] = replace(QUERY, name="text", parse=parse_text, several=several_texts, around=around_text)
PAIR: Schema[Pair] = Schema(
    "pair",
    parse_pair,
    chats=lambda pair: [pair.chosen_chat, pair.rejected_chat],
    several=several_objects,
    around=around_json,
    asks=lambda pair: _of_user(pair.prompt),
    answers=lambda pair: [pair.chosen, pair.rejected],
    dump=_pair_value,
    load=_pair,
)
CHOICE: Schema[Choice] = Schema(
    "choice",
    parse_choice,
    chats=lambda choice: [as_chat(choice.text)],
    several=several_objects,
    around=around_json,
    asks=lambda choice: [choice.marks[0].rpartition("\n")[0]],  # the question without its options
    answers=lambda _: [],
    dump=_choice_value,
    load=to_choice,
)
INSTRUCTION: Schema[Instruction] = Schema(
    "instruction",
    parse_instruction,
    chats=lambda example: [as_chat(example.instruction)],  # answers are written only for those that are kept
    several=several_instructions,
    around=around_marks,
    asks=lambda example: [example.instruction],
    answers=lambda _: [],
    dump=asdict,
    load=_instruction,
)
