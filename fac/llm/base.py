"""What the harness asks of an LLM: `ChatModel`, and `ask`, which puts many requests to one and survives a kill."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fac.chat import Message
from fac.errors import FacError
from fac.jsonl import AppendLog


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn. temperature 0 is greedy."""

    temperature: float = 0.8
    top_p: float = 0.9
    max_new_tokens: int = 900


Opens = Literal["assistant", "user", "bare user"]
"""Whose turn a model continues the chat with: the assistant's; the user's, as the tokenizer's own template opens it; or
the user's without what the template says before a first turn (`fac.chat.open_user_turn`)."""


@dataclass(frozen=True, eq=False)
class Shift:
    """A direction that is added to the residual stream while a reply is written."""

    name: str  # tells it from others, in store keys
    layer: int  # as the paper counts: the output of model.layers[layer - 1]
    direction: NDArray[np.float32]  # [d_model]; its length counts


@dataclass(frozen=True)
class Request:
    """One chat to continue. `seed` belongs to the request, so a reply does not depend on batch size or order."""

    id: str
    messages: list[Message]
    seed: int
    opens: Opens = "assistant"
    shift: Shift | None = None


@dataclass(frozen=True)
class Completion:
    """A reply. `raw` is all that the model wrote, `text` what it said; `finished` is False if it was cut.

    `refused` is True where the server itself says so (a refusal beside the content, a content filter).
    """

    raw: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool
    refused: bool = False

    @property
    def text(self) -> str:
        return spoken(self.raw)


# Marks of thoughts: <think> and its like, Mistral's [THINK], Kimi's ◁think▷, OpenThinker's <|begin_of_thought|>,
# Cohere's <|START_THINKING|>, MedGemma's <unused94>; a group that is not empty closes
_MARKS = re.compile(
    r"<(/?)(?:\w+:)?(?i:think|thinking|thoughts?|reasoning|reflection|scratchpad)>|\[(/?)THINK\]|◁(/?)think▷"
    r"|<\|(?i:begin|start|(end))_(?i:of_)?(?i:thought|thinking)\|>|<unused94>|<(unused95)>"
)
_ANSWER = re.compile(  # what some put around the words that follow a thought
    r"(?:<(answer|response|solution|output)>|<\|(?:begin|start)_(?:of_)?(?:solution|response)\|>)(.*?)"
    r"(?:</\1>|<\|end_(?:of_)?(?:solution|response)\|>)?",
    re.DOTALL | re.IGNORECASE,
)
_BARE_CHANNELS = re.compile(r"analysis(?=[A-Z]).*?(?:assistantfinal(.*)|\Z)", re.DOTALL)  # without special tokens
_CHANNELS = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_ENDS = re.compile(r"<\|(?:end|return|start|call)\|>.*", re.DOTALL)


def spoken(raw: str) -> str:
    """What a reply says: `raw` without the thoughts that reasoning models write before or between their words.

    A thought stands between <think> and </think> (or <thinking>, [THINK] and their like), or in another channel than
    the final one. What stands before a </think> that nothing opened is a thought, too, since many templates open it in
    the prompt; and so is all that follows a <think> that was never closed.
    """
    if channels := list(_CHANNELS.finditer(raw)):
        final = next((c for c in reversed(channels) if c[1].lower() == "final"), None)
        return _ENDS.sub("", raw[final.end() :]).strip() if final else ""
    if bare := _BARE_CHANNELS.fullmatch(raw):
        return (bare[1] or "").strip()
    said, end, depth = "", 0, 0
    for mark in _MARKS.finditer(raw):
        if any(mark.groups()):
            said, depth = ("" if depth == 0 else said), 0
        elif depth == 0:
            said, depth = said + raw[end : mark.start()], 1
        end = mark.end()
    said = (said if depth else said + raw[end:]).strip()
    answer = _ANSWER.fullmatch(said) if end else None
    return answer[2].strip() if answer else said


def marks_thought(token: str) -> bool:
    """Whether a special token is one that `spoken` goes by."""
    return bool(_MARKS.search(token)) or token in ("<|channel|>", "<|message|>")


def opens_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends in a thought that it opens, so that the reply begins inside it."""
    marks = list(_MARKS.finditer(prompt.rstrip()))
    return bool(marks) and marks[-1].end() == len(prompt.rstrip()) and not any(marks[-1].groups())


def thought(text: str) -> str:
    """A thought that a server sent apart from the reply, marked as `spoken` knows it."""
    return f"<think>\n{_MARKS.sub('', text).strip()}\n</think>\n"


class ChatModel(Protocol):
    """An LLM."""

    batch: int  # requests it works through well at once; `ask` hands over no more

    @property
    def identity(self) -> str: ...  # names model, revision and engine, for store keys and provenance

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Reply to every request, in order; all open the same turn. Raises FacError if it cannot open that."""
        ...


def check_unshifted(requests: Sequence[Request], engine: str) -> None:
    """Raise FacError if a request has a shift, of an engine that cannot reach into a model."""
    if any(request.shift is not None for request in requests):
        raise FacError(f"The {engine} engine cannot add directions to a model that writes: use llm=transformers.")


def request_seed(*parts: object) -> int:
    """Seed of one request: hash of (run seed, feature, step, attempt), below 2^63."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:15], 16)


def ask(
    model: ChatModel, requests: Sequence[Request], sampling: Sampling, log: Path, what: str
) -> dict[str, Completion]:
    """Replies by request id. Each batch is appended to `log` when it is done; a rerun continues behind the last one.

    Batches of `model.batch` are cut from the full list, so a resumed run computes each with the same neighbours as an
    unbroken one.
    """
    with AppendLog(log) as finished, tqdm(total=len(requests), desc=what, unit="request", leave=False) as bar:
        replies = {record["id"]: Completion(**record["reply"]) for record in finished}
        for start in range(0, len(requests), model.batch):
            part = requests[start : start + model.batch]
            if not all(request.id in replies for request in part):
                completions = model.chat(part, sampling)
                finished.append([{"id": r.id, "reply": asdict(c)} for r, c in zip(part, completions, strict=True)])
                replies.update({r.id: c for r, c in zip(part, completions, strict=True)})
            bar.update(len(part))
    return {request.id: replies[request.id] for request in requests}
