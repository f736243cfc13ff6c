"""What becomes of a writer's reply: a row, or the reason why there is none."""

from __future__ import annotations

from typing import NamedTuple

from fac.llm.base import Completion
from fac.prompts import ReplyRules
from fac.synthesis.forms import MARKER, Form, plain
from fac.synthesis.refusals import refusals_of
from fac.synthesis.samples import CUT_OFF, REFUSAL, UNREADABLE


class Read(NamedTuple):
    """The row of a reply and "", or "" and why there is none."""

    row: str
    why: str = ""


def read_reply(form: Form, completion: Completion, rules: ReplyRules, prompt: str = "") -> Read:
    """Read a reply in the form that was asked for, by the rules of the prompt set.

    What repeats the form that the `prompt` shows ("THE INSTRUCTION") is unreadable. Refused is what the server says it
    refused or filtered, and a reply with a refusal on any line around what was asked for, or in a text that is put to
    somebody (a query, a pair's prompt, a question, an instruction): also where something harmless follows, since that
    is not what was asked. A pair's replies may refuse (that one of them does can be the very difference that it
    teaches); only where both do, the writer did. A reply that was cut off counts if what is missing could not change
    its row.
    """
    reply, refusals = completion.text, refusals_of(rules)
    around = form.around(reply)

    def parsed(text: str) -> str:
        if around == reply:  # courtesies stand on lines of their own, beside the one that was asked for
            text = "\n".join(line for line in text.splitlines() if not refusals.offers(line))
        return form.parse(text, rules.strict)

    row = parsed(reply)
    answers = form.answers(row) if row else []
    if (
        completion.refused
        or refusals.refuses(MARKER.sub("\n", around))
        or (row and any(map(refusals.refuses, form.asks(row))))
        or (answers and all(map(refusals.declines, answers)))
    ):
        return Read("", REFUSAL)
    if not completion.finished and (not row or parsed(f"{reply} and") != row):
        return Read("", CUT_OFF)
    if not row or plain(row) == plain(form.parse(prompt)):
        return Read("", UNREADABLE)
    return Read(row)


def read_answer(completion: Completion, rules: ReplyRules) -> str:
    """Why a writer's answer to an instruction is not trained on; "" if it is.

    A refusal stands in its first line; an answer that was cut would teach to stop in the middle.
    """
    if completion.refused or refusals_of(rules).declines(completion.text):
        return REFUSAL
    if not completion.finished:
        return CUT_OFF
    return "" if completion.text else UNREADABLE
