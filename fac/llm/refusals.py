"""What a problem with a server is in one sentence, and the setting that mends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fac.llm.answers import LIMITS, Problem

if TYPE_CHECKING:
    from fac.llm.openai import OpenAISettings

LEFT_OUT = ("top_p", "temperature", "seed")  # what a request may do without; where two are named, the first goes
_UNKNOWN = re.compile(r"not (?:be )?found|not exist|no such|unknown|invalid|not supported|not available|decommissioned")
_LENGTH = re.compile(r"context|too long|too large|too many (?:input )?tokens|exceed|reduce the length|input length")


def way_out(problem: Problem, settings: OpenAISettings, tries: int) -> str:
    """What `settings.base` did, and what to set. Keys are named as the configuration has them."""
    at, said = settings.place, problem.said
    if problem.kind == "timeout":
        return f"did not answer within {settings.timeout:g} seconds: raise {at}.timeout, or lower {at}.concurrency"
    if problem.kind == "connection":
        return f"cannot be reached ({said}): start the server, or set {at}.url"
    if problem.kind == "stream":
        return f"answers in a stream, which is not read: turn its streaming off, or set {at}.url to one that does not"
    if problem.kind == "unreadable":
        return f'answered {tries} times with what is no chat completion ("{said}"): check {at}.url'
    told = f'"{said}"' if problem.status == 200 else f"status {problem.status}: {said}"
    return _of_error(problem, told, settings)


def _of_error(problem: Problem, told: str, settings: OpenAISettings) -> str:
    at, words = settings.place, problem.said.lower()
    if problem.status in (401, 403):
        if settings.key_env is None:
            return f"asks for a key ({told}): set {at}.key_env to the NAME of the variable that holds one"
        return f"refuses the key in {settings.key_env} ({told}): export one that is valid"
    if problem.is_quota:
        return f"is not paid any more ({told}): pay for more, or set {at}.key_env to another key"
    if problem.status == 429:
        return f"takes no more requests for now ({told}): wait, or lower {at}.concurrency"
    if problem.status >= 500 and problem.status != 501:
        return f"fails ({told}) even after {settings.retries} retries: wait until it is mended"
    if _is_unknown_model(problem, settings.model):
        return f"does not serve {settings.model} ({told}): set {at}.model to a model that it has"
    if problem.status in (404, 405, 501):
        return f"has no chat completions there ({told}): {_other_url(settings)}"
    if name := _named(problem):
        kept = ",".join(dict.fromkeys([*settings.leave_out, name]))
        return f"does not take this {name} ({told}): set {at}.leave_out=[{kept}], or the {name} that it takes"
    if re.search(r"\bstream", words):
        return f"answers in streams only ({told}): set {at}.url to a server that answers without"
    if problem.status == 413 or any(map(problem.refuses, LIMITS)) or _LENGTH.search(words):
        return (
            f"has no room for prompt and reply ({told}): lower max_new_tokens of what is asked, or raise the context "
            f"length of the server"
        )
    if problem.status == 200:
        return f"answers with an error ({told}): mend what it says, or set {at}.url or {at}.model"
    return f"refuses the request ({told}): set {at}.model, {at}.url or {at}.leave_out to what it takes"


def _is_unknown_model(problem: Problem, model: str) -> bool:
    words = problem.said.lower()
    if problem.code == "model_not_found":
        return True
    about_it = "model" in words and (problem.status == 404 or model.lower() in words) and _UNKNOWN.search(words)
    return bool(about_it) and not _named(problem) and not any(map(problem.refuses, LIMITS))


def _named(problem: Problem) -> str | None:
    """The parameter that the server does not take and that can be left out."""
    return next((name for name in LEFT_OUT if problem.parameter == name), None) or next(
        (name for name in LEFT_OUT if problem.refuses(name)), None
    )


def _other_url(settings: OpenAISettings) -> str:
    if urlsplit(settings.base).path in ("", "/"):
        return f"set {settings.place}.url={settings.base}/v1"
    return f"set {settings.place}.url to the server's base, such as http://localhost:8000/v1"
