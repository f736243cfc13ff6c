"""What every check returns, and how a check that fails becomes a finding itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from fac.errors import FacError
from fac.model_ref import ModelRef

Status = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, and what was found, with the way out where something is missing."""

    status: Status
    what: str
    said: str


def checked(what: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check, and one more if it ends with an exception."""
    found: list[Finding] = []
    try:
        for finding in check():
            found.append(finding)
    except FacError as error:
        found.append(Finding("missing", what, str(error)))
    except Exception as error:  # a doctor must not fall ill over what it looks at
        found.append(Finding("warning", what, f"could not be checked ({type(error).__name__}: {short(error)})"))
    return found


def short(error: Exception) -> str:
    """The beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:160]


def name_of(ref: ModelRef) -> str:
    """A model as a line calls it: hub id, or the last part of its folder."""
    return ref.name
