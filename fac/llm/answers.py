"""What a server of OpenAI's chat completions answers: a reply, or a problem in the server's own words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fac.llm.base import Completion, thought

FILTERED = ("content_filter", "content management policy", "responsibleaipolicyviolation")
CUT = ("length", "max_tokens", "model_length", "max_output_tokens")  # how servers say that a reply was cut
LIMITS = ("max_tokens", "max_completion_tokens")  # how a limit may be called; the second by GPT-5 and the o-series


@dataclass(frozen=True)
class Problem:
    """Why there is no reply."""

    kind: Literal["timeout", "connection", "stream", "unreadable", "error"]
    said: str  # in the words of the server or of the wire
    status: int = 0  # of the answer, or the one that an error names
    code: str = ""
    parameter: str = ""  # of the request, which the error is about
    retry_after: float | None = None  # seconds

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered later."""
        if self.kind != "error":
            return self.kind != "stream"
        return not self.is_quota and (self.status in (200, 408, 409, 425, 429) or self.status >= 500)

    @property
    def is_quota(self) -> bool:
        """Whether what was paid for is used up."""
        return self.status == 402 or "insufficient_quota" in self.code

    @property
    def is_filtered(self) -> bool:
        """Whether the server will not answer this prompt: the refusal of one request, not of all."""
        told = f"{self.code} {self.said}".lower()
        return self.kind == "error" and self.status < 500 and any(words in told for words in FILTERED)

    def refuses(self, parameter: str) -> bool:
        return self.parameter == parameter or re.search(rf"\b{parameter}\b", self.said) is not None


def estimated_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """Tokens of a prompt by its characters, on the high side for English: three a token, and ten for every turn."""
    return sum(math.ceil(len(message["content"]) / 3) + 10 for message in messages)


def read_answer(status: int, headers: Mapping[str, str], text: str, prompt_tokens: int) -> Completion | Problem:
    """The reply that an answer holds, or what the server says instead; with status 200, too, it may be an error.

    `prompt_tokens` stands in where the server counts none.
    """
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if status < 300 and (reply := _reply(told, prompt_tokens)) is not None:
        return reply
    if text.startswith("data:") or "event-stream" in headers.get("content-type", ""):
        return Problem("stream", "", status)
    error = _error(told)
    if error is None and status < 300:
        return Problem("unreadable", _short(text, 60), status)
    error = {"message": text} if error is None else error
    message = next((error[key] for key in ("message", "msg", "detail") if error.get(key)), error)
    named = error.get("code")
    if status < 300 and isinstance(named, int | str) and re.fullmatch("[45][0-9][0-9]", str(named)):
        status = int(named)
    return Problem(
        "error",
        _short(message if isinstance(message, str) else json.dumps(message)),
        status,
        str(named or error.get("type") or ""),
        str(error.get("param") or ""),
        _seconds(headers.get("retry-after", "")),
    )


def _error(told: Any) -> dict[str, Any] | None:
    """The error in an answer, however it is laid out; None if it holds none."""
    told = told[0] if isinstance(told, list) and told else told
    if not isinstance(told, dict):
        return None
    choices = told.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    inside = choice if isinstance(choice, dict) and choice.get("error") else told
    for key in ("error", "errors", "detail", "message"):
        if found := inside.get(key):
            return found if isinstance(found, dict) else {**told, "message": found}
    return None


def _reply(told: Any, prompt_tokens: int) -> Completion | None:
    """A chat completion as a Completion; None if it is none."""
    try:
        choice = told["choices"][0]
        message, usage = choice["message"], told.get("usage") or {}
        raw, counted, reason = _raw(message), usage.get("completion_tokens"), choice.get("finish_reason")
        if not raw and choice.get("error"):
            return None
        return Completion(
            raw,
            int(usage.get("prompt_tokens") or prompt_tokens),
            int(estimated_tokens([{"content": raw}]) if counted is None else counted),
            str(reason).lower() not in CUT,
            refused=bool(message.get("refusal")) or reason == "content_filter",
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None


def _raw(message: Mapping[str, Any]) -> str:
    """All that a message holds: the thoughts that a server sends apart, marked as such, then the words.

    Content is a text, or a list of parts that are texts or thoughts; of other parts (images, sounds) nothing is read.
    """
    thoughts = [text for key in ("reasoning_content", "reasoning") if isinstance(text := message.get(key), str)][:1]
    content: Any = message.get("content")
    words: list[str] = []
    parts: list[Any] = [content] if isinstance(content, str | dict) else content or []
    for part in parts:
        if isinstance(part, str):
            words.append(part)
            continue
        kind = str(part.get("type", "text"))
        if "think" in kind or "reason" in kind:
            thoughts.append(_thought_of(part))
        elif kind in ("text", "output_text", "refusal"):
            words.append(str(part.get("text") or part.get("refusal") or ""))
    said = "".join(words).strip() or str(message.get("refusal") or "").strip()
    return ("".join(thought(text) for text in thoughts if text.strip()) + said).strip()


def _thought_of(part: Mapping[str, Any]) -> str:
    """The text of a part that thinks: under its own name, or a list of parts again (Mistral's)."""
    held = next((part[key] for key in ("thinking", "reasoning", "text", "summary") if part.get(key)), "")
    parts = [held] if isinstance(held, str) else held
    return "".join(part if isinstance(part, str) else str(part.get("text") or "") for part in parts)


def _short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _seconds(retry_after: str) -> float | None:
    try:
        seconds = float(retry_after)
    except ValueError:  # a date, which no such server was seen to send
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
