"""Whether a writer refuses: the patterns of its prompt set (`fac/prompts/refusals.yaml`), tried on lines of a reply."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from fac.errors import FacError
from fac.prompts import LISTS, ReplyRules

_APOSTROPHES = str.maketrans("’‘ʼ´`′＇", "'''''''")
_WRAPPING = " \t\"'“”„«»‹›‘’*_#>`~|•·–—-"
_NUMBER = re.compile(r"^(?:\(?\d{1,3}[.)]|[a-z]\))\s+", re.IGNORECASE)
_LABEL = re.compile(r"^[\w-]{1,20}(?: ?\d{1,3})?[\s*_]*[:：][\s*_]*")  # "Answer:", "Query 1:", "**Response**:"
_CLAUSE = r"(?:^|(?<=[.!?,;:…。！？，；：、])\s*|(?<=[–—])\s*|(?<= -)\s+"


class Refusals:
    """The patterns of some languages, compiled. Raises FacError for one that is no regular expression."""

    def __init__(self, languages: Mapping[str, Mapping[str, Any]]) -> None:
        self._languages = [_compiled(name, said) for name, said in languages.items()]

    def refuses(self, text: str) -> bool:
        """Whether a line of `text` says that what was asked for is not done, or speaks of the writer as an assistant.

        A line in which a user goes on to ask ("I can't help it, how do I ...") is none.
        """
        return any(self._says(line, "refusal", "persona") for line in text.splitlines())

    def declines(self, text: str) -> bool:
        """Whether the first line of `text` refuses, "As an AI" left aside: for replies that are about assistants."""
        return self._says(next((line for line in text.splitlines() if line.strip()), ""), "refusal")

    def offers(self, line: str) -> bool:
        """Whether a line is a courtesy around a reply: "I'm happy to help!", "Is there something else?"."""
        return self._says(line, "offer")

    def _says(self, line: str, *lists: str) -> bool:
        plain = plain_line(line)
        for patterns in self._languages:
            for name in lists:
                found = patterns[name].search(plain) if name in patterns else None
                if found and not ("user" in patterns and patterns["user"].search(plain, found.start())):
                    return True
        return False


@lru_cache(maxsize=8)
def _refusals(languages: str) -> Refusals:
    return Refusals(json.loads(languages))


def refusals_of(rules: ReplyRules) -> Refusals:
    """The compiled patterns of a prompt set."""
    return _refusals(json.dumps(rules.languages or {}))


def plain_line(line: str) -> str:
    """A line without what stands around its words: quotes, bullets, bold type, numbers, labels such as "Answer:"."""
    plain, before = " ".join(line.translate(_APOSTROPHES).split()), None
    while plain != before:
        before = plain
        plain = _LABEL.sub("", _NUMBER.sub("", plain.strip(_WRAPPING)))
    return plain


def _compiled(language: str, said: Mapping[str, Any]) -> dict[str, re.Pattern[str]]:
    parts: dict[str, str] = {}
    for name, pattern in (said.get("parts") or {}).items():
        parts[name] = _filled(pattern, parts)
    joins = "|".join(said.get("joins") or ())
    start = _CLAUSE + (rf"|\b(?:{joins})\b,?\s*)" if joins else ")")
    found = {}
    for name in LISTS:
        patterns: Sequence[str] = said.get(name) or ()
        if patterns:
            whole = f"{start}(?:{'|'.join(_filled(pattern, parts) for pattern in patterns)})"
            try:
                found[name] = re.compile(whole, re.IGNORECASE)
            except re.error as error:
                raise FacError(
                    f"A pattern of refusals ({language}, {name}) is no regular expression: {error}."
                ) from None
    return found


def _filled(pattern: str, parts: Mapping[str, str]) -> str:
    """The pattern with its {parts}; braces around anything else (counts) stay."""
    return re.sub(r"\{(\w+)\}", lambda m: parts.get(m[1], m[0]), pattern)
