"""Settings as mappings become dataclasses: types are checked, and all that is wrong is said at once, key by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fac.errors import FacError, closest

T = TypeVar("T")
UNSET = "???"  # a value that must be given


class SettingsError(FacError):
    """One or several settings that will not do; `sentences` has a sentence for each."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(dict.fromkeys(sentences))
        told = "\n".join(f"  {sentence}" for sentence in self.sentences)
        several = f"{len(self.sentences)} settings will not do:\n{told}"
        super().__init__(self.sentences[0] if len(self.sentences) == 1 else several)


class Problems:
    """What is wrong with settings, collected until everything has been looked at."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._said: set[str] = set()

    def add(self, sentence: str, instead_of: str = "") -> None:
        """Keep a sentence; one that it stands in place of is left out, should it come."""
        self.sentences.append(sentence)
        self._said.add(instead_of)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """A FacError within it is kept, and the code behind it goes on."""
        try:
            yield
        except SettingsError as error:
            self.sentences += error.sentences
        except FacError as error:
            self.sentences.append(str(error))

    def check(self) -> None:
        """Raise SettingsError if there were any."""
        if left := [sentence for sentence in self.sentences if sentence not in self._said]:
            raise SettingsError(left)


def typed(cls: type[T], values: Mapping[str, Any], name: str, positive: Iterable[str] = ()) -> T:
    """`cls(**values)` with types checked; `name` is the group's in the configuration, empty for none.

    `positive` names numbers that must be above 0. A FacError of the class itself whose sentence begins with one of its
    fields ("ratio=2 will not do: ...") gets the group's name before it. Raises SettingsError with a sentence for every
    wrong key, type or value and for every value that is not set.
    """
    problems = Problems()
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    held = {}
    for key, value in values.items():
        if key not in known:
            problems.add(f"{_key(name, key)} is no setting{closest(key, known)}.")
        elif is_unset(value):
            problems.add(not_set(_key(name, key)))
        else:
            held[key] = value
    for key in positive:
        if _is_number(held.get(key)) and not held[key] > 0:
            problems.add(f"{_key(name, key)}={held.pop(key)} will not do: it must be above 0.")
    wanting = {key for key in values if key not in held}  # said already
    try:
        made = _adapter(cls).validate_python(held)
    except ValidationError as error:
        problems.sentences += _sentences(name, error, wanting)
        made = None
    except FacError as error:
        problems.add(_named(str(error), name, known))
        made = None
    problems.check()
    assert made is not None
    return made


def checked(kind: Any, value: Any, key: str) -> Any:
    """One value, checked to be of `kind` (a type, also `list[int]` or `int | None`). Raises SettingsError."""
    if is_unset(value):
        raise SettingsError([not_set(key)])
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise SettingsError(_sentences(key, error, set())[:1]) from None


def is_unset(value: object) -> bool:
    """Whether a value must still be given."""
    return isinstance(value, str) and value == UNSET


def not_set(key: str) -> str:
    """What is said of a value that must be given."""
    return f"{key} is not set: give it on the command line, {key}=VALUE."


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _sentences(name: str, error: ValidationError, wanting: set[str]) -> list[str]:
    """One for each field; of the alternatives of a type the first is named."""
    said: dict[str, str] = {}
    for found in error.errors():
        place = [str(part) for part in found["loc"]]
        field = place[0] if place else ""
        if found["type"] == "missing" and len(place) == 1:
            if field not in wanting:
                said.setdefault(field, f"{_key(name, field)} is missing: give it a value.")
            continue
        key = ".".join(part for part in (name, *place) if part)
        said.setdefault(field, f"{key}={found['input']!r} will not do: {found['msg'].lower()}.")
    return list(said.values())


def _named(sentence: str, name: str, known: Iterable[str]) -> str:
    """The sentence with the group's name before the field that it begins with."""
    begins = any(sentence.startswith((f"{field}=", f"{field}:", f"{field} ", f"{field},")) for field in known)
    return f"{name}.{sentence}" if begins and name else sentence


def _key(name: str, key: str) -> str:
    return f"{name}.{key}" if name else str(key)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
