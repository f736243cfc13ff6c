"""Cells to turns of a conversation: lists of messages, lists kept as text, and texts with marks between the turns.

A text is taken for a conversation only where its column may hold one: in `CHATS` it must be, in `MARKED` and
`OF_MESSAGES` it is one if it begins as such. Elsewhere (`query`, `user_input`, `instruction`, columns of one's own) a
text is what a user says, whatever stands in it. So is one with "### Human:" and "### Assistant:" (Guanaco), since users
write these themselves (three of ToxicChat's do).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fac.data.source import Malformed

if TYPE_CHECKING:  # fac.chat needs transformers; a message is a plain dict
    from fac.chat import Message

CHATS = ("messages", "conversations", "conversation")
MARKED = ("text", "prompt", "chosen", "rejected", "transcript")
OF_MESSAGES = (  # columns of texts or lists of messages, where a list may have become a text
    *("prompt", "chosen", "rejected", "text", "transcript"),
    *("dialog", "dialogs", "dialogue", "dialogues", "chat", "chats", "turns", "history"),
)
ROLES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
LIST = re.compile(r"\s*(array\()?\[\s*\{\s*['\"](role|content|from|value)['\"]\s*:")
ALPACA = re.compile(
    r"Below is an instruction that describes a task.*?### Instruction:\s*\n(?P<instruction>.*?)"
    r"(\n+### Input:\s*\n(?P<input>.*?))?\n+### Response:[ \t]*\n?(?P<response>.*)",
    re.DOTALL,
)


class Marks(NamedTuple):
    """How turns are marked in a text."""

    start: str  # what a text begins with that is marked so
    mark: str  # what stands before a turn; its group names the speaker
    noise: str = "(?!)"  # what marks something else


MARKS = {
    "HH-RLHF": Marks(r"\n\n(Human|Assistant):(?=\s|$)", r"\n\n(Human|Assistant):(?=\s|$)"),
    "HelpSteer2": Marks(
        r"(.*?\n)?<extra_id_[01]>(System|User|Assistant)\n", r"<extra_id_[01]>(System|User|Assistant)\n"
    ),
    "ChatML": Marks(r"\s*(<s>)?<\|im_start\|>\w+\n", r"<\|im_start\|>(\w+)\n", r"<s>|<\|im_end\|>|<\|endoftext\|>"),
    "Llama 3": Marks(
        r"\s*(<\|begin_of_text\|>)?<\|start_header_id\|>",
        r"<\|start_header_id\|>(\w+)<\|end_header_id\|>",
        r"<\|(begin_of_text|eot_id|end_of_text)\|>",
    ),
    "Gemma": Marks(r"\s*(<bos>)?<start_of_turn>\w+\n", r"<start_of_turn>(\w+)\n", "<bos>|<eos>|<end_of_turn>"),
    "Zephyr, Phi-3": Marks(
        r"\s*(<s>)?<\|(system|user|assistant)\|>\n",
        r"<\|(system|user|assistant)\|>\n",
        r"</?s>|<\|(end|endoftext)\|>",
    ),
    "OpenAssistant": Marks(
        r"\s*<\|(system|prefix_begin|prompter)\|>",
        r"<\|(system|prompter|assistant)\|>",
        r"</s>|<\|(endoftext|prefix_begin|prefix_end)\|>",
    ),
    "Llama 2": Marks(r"\s*(<s>)?\s*\[INST\]", r"\[(/?INST)\]", "</?s>"),
}
INST = {"INST": "user", "/INST": "assistant"}
SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.DOTALL)  # before the first question of Llama 2


def turns_of(value: Any, name: str) -> list[Message] | None:
    """The turns that the cell of the column `name` holds; None if it is a plain text (or no text at all).

    Raises Malformed for a list that holds something else than messages, and for a list that has become a text in a way
    that cannot be read back.
    """
    if isinstance(value, list):
        return [turn_of(turn, number) for number, turn in enumerate(value, start=1)]
    column = name.rpartition(".")[2]
    if not isinstance(value, str) or column not in CHATS + MARKED + OF_MESSAGES:
        return None
    if column in CHATS + MARKED and (turns := _marked_turns(value.replace("\r\n", "\n"))):
        return turns
    if column in CHATS or (column in OF_MESSAGES and LIST.match(value)):
        return _list_in_text(value, name)
    return None


def turn_of(turn: Any, number: int) -> Message:
    """One turn of a messages column: {"role", "content"} or, as ShareGPT has it, {"from", "value"}."""
    if not isinstance(turn, Mapping):
        raise Malformed(f"turn {number} is not an object with role and content")
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str) or not role:
        raise Malformed(f"turn {number} has no role")
    content = turn.get("content", turn.get("value"))
    return {"role": _role(role), "content": string_of(content, f"turn {number}")}


def string_of(value: Any, name: str) -> str:
    """A text; a value that is missing (NaN, as pandas writes it, too) is an empty one."""
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{name} is not a text but {type(value).__name__}")
    return value


def _list_in_text(text: str, name: str) -> list[Message]:
    """The messages of a list that is kept as JSON."""
    if not text.strip():
        return []
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list):
        raise Malformed(f"{name} is a text, not a list of turns: export the data as JSONL or parquet, or lists as JSON")
    return [turn_of(turn, number) for number, turn in enumerate(turns, start=1)]


def _marked_turns(text: str) -> list[Message]:
    """The turns of a text that is marked in a way that is known; none if it is not. An open last turn of the assistant
    is left out."""
    if re.match(r"Human:\s.*\n\nAssistant:", text, re.DOTALL):
        text = f"\n\n{text}"  # HH-RLHF's first line breaks are often stripped
    if alpaca := ALPACA.fullmatch(text):
        asked = "\n\n".join(part for part in (alpaca["instruction"], alpaca["input"]) if part and part.strip())
        turns: list[Message] = [{"role": "user", "content": asked}]
        turns.append({"role": "assistant", "content": alpaca["response"].strip()})
    else:
        marks = next((marks for marks in MARKS.values() if re.match(marks.start, text, re.DOTALL)), None)
        turns = [] if marks is None else _split(text, marks)
    return turns[:-1] if len(turns) > 1 and turns[-1] == {"role": "assistant", "content": ""} else turns


def _split(text: str, marks: Marks) -> list[Message]:
    """What each speaker says; what stands before the first mark is the user's."""
    parts = re.split(marks.mark, re.sub(marks.noise, "", text))
    turns: list[Message] = []
    for speaker, words in zip(["user", *parts[1::2]], parts[::2], strict=True):
        role = INST.get(speaker, _role(speaker))
        if speaker == "INST" and (system := SYSTEM.fullmatch(words)):
            turns.append({"role": "system", "content": system[1].strip()})
            words = system[2]
        turns.append({"role": role, "content": words.strip()})
    return turns[1:] if not turns[0]["content"] else turns


def _role(speaker: str) -> str:
    return ROLES.get(speaker.lower(), speaker.lower())
