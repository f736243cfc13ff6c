"""What becomes of a writer's reply: an example, or the reason why there is none."""

from __future__ import annotations

from typing import Any, NamedTuple

from fac.data.reply_text import MARKER
from fac.data.schemas import Schema
from fac.llm.base import Completion
from fac.prompts import ReplyRules
from fac.synthesis.refusals import refusals_of
from fac.synthesis.samples import CUT_OFF, REFUSAL, UNREADABLE


class ParsedReply(NamedTuple):
    """The example of a reply and "", or None and why there is none (one of `samples.REASONS`)."""

    example: Any | None
    rejected_because: str = ""


def read_reply(schema: Schema[Any], completion: Completion, rules: ReplyRules, prompt: str = "") -> ParsedReply:
    """Read a reply by the schema that was asked for and the rules of the prompt set.

    What repeats the form that the `prompt` shows ("THE INSTRUCTION") is unreadable. Refused is what the server says it
    refused or filtered, and a reply with a refusal on any line around what was asked for, or in a text that is put to
    somebody (a query, a pair's prompt, a question, an instruction): also where something harmless follows, since that
    is not what was asked. A pair's replies may refuse (that one of them does can be the very difference that it
    teaches); only where both do, the writer did. A reply that was cut off counts if what is missing could not change
    its example.
    """
    reply, refusals = completion.text, refusals_of(rules)
    around = schema.around(reply)

    def parsed(text: str) -> Any | None:
        if around == reply:  # courtesies stand on lines of their own, beside the one that was asked for
            text = "\n".join(line for line in text.splitlines() if not refusals.offers(line))
        return schema.parse(text, rules.strict)

    example = parsed(reply)
    asks, answers = ([], []) if example is None else (schema.asks(example), schema.answers(example))
    if (
        completion.refused
        or refusals.refuses(MARKER.sub("\n", around))
        or any(map(refusals.refuses, asks))
        or (answers and all(map(refusals.declines, answers)))
    ):
        return ParsedReply(None, REFUSAL)
    if not completion.finished and (example is None or parsed(f"{reply} and") != example):
        return ParsedReply(None, CUT_OFF)
    shown = schema.parse(prompt, False)
    if example is None or (shown is not None and schema.plain(shown) == schema.plain(example)):
        return ParsedReply(None, UNREADABLE)
    return ParsedReply(example)


def read_answer(completion: Completion, rules: ReplyRules) -> str:
    """Why a writer's answer to an instruction is not trained on (one of `samples.REASONS`); "" if it is.

    A refusal stands in its first line; an answer that was cut would teach to stop in the middle.
    """
    if completion.refused or refusals_of(rules).declines(completion.text):
        return REFUSAL
    if not completion.finished:
        return CUT_OFF
    return "" if completion.text else UNREADABLE
