"""Keys of the configuration: which there are, and which was meant by one that is not there or that nothing reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_NAMED = 3
TYPO, ALIKE = 0.85, 0.6  # how alike names must be, from 0 to 1


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of all values; an empty group counts as a value."""
    found = []
    for key, value in values.items():
        inner = isinstance(value, Mapping) and value
        found += leaves(value, f"{prefix}{key}.") if inner else [f"{prefix}{key}"]
    return found


def with_groups(keys: Iterable[str]) -> list[str]:
    """The keys in order, and before them the groups in which they stand."""
    parts = [key.split(".") for key in keys]
    return list(dict.fromkeys(".".join(key[:end]) for key in parts for end in range(1, len(key) + 1)))


def is_in(key: str, groups: Iterable[str]) -> bool:
    """Whether the key is one of these, or stands in a group of them."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def is_within(key: str, others: Iterable[str]) -> bool:
    """Whether the key is one of the others, stands in a group of them, or is a group in which one of them stands."""
    return any(is_in(key, [other]) or is_in(other, [key]) for other in others)


def no_such_key(key: str, known: Sequence[str], elsewhere: str = "") -> str:
    """The sentence on a key that the configuration does not have; `elsewhere` says where it would be one."""
    return f"The configuration has no key {key}{elsewhere or _meant(key, known)}."


def _meant(key: str, known: Sequence[str]) -> str:
    if f"experiment.{key}" in known:
        return f": set experiment.{key}"
    typo = difflib.get_close_matches(key, known, 1, TYPO)
    if not typo and (found := [*_options_like(key, known), *same_end(key, known)]):
        return f": set {named(found)}"
    like = typo or difflib.get_close_matches(key, known, 1, ALIKE)
    return f": did you mean {like[0]}" if like else ": --cfg job --resolve prints all that there are"


def _options_like(key: str, known: Sequence[str]) -> list[str]:
    """The option of the experiment that is called like a key, if there is one: it may be what the experiment sweeps."""
    options = [name for name in known if name.startswith("experiment.") and name.count(".") == 1]
    return difflib.get_close_matches(f"experiment.{key.rpartition('.')[2]}", options, 1, TYPO)


def same_end(key: str, known: Sequence[str]) -> list[str]:
    """The known keys that share the longest end with a key, such as train.rank with tasks.toxicity.train.rank.

    Those of its own group, else of one other; ends that many groups share say nothing.
    """
    own = key.partition(".")[0]
    parts = key.split(".")
    for start in range(len(parts)):
        end = ".".join(parts[start:])
        found = [name for name in known if name != key and (name == end or name.endswith(f".{end}"))]
        if found:
            groups = {name.partition(".")[0] for name in found}
            return [name for name in found if len(groups) == 1 or name.startswith(f"{own}.")]
    return []


def like_named(key: str, known: Sequence[str]) -> list[str]:
    """One known key whose last part is like the key's, and not the same, if there is one."""
    part = key.rpartition(".")[2]
    last = {name.rpartition(".")[2]: name for name in known}
    return [last[like] for like in difflib.get_close_matches(part, last.keys() - {part}, 1)]


def named(keys: Sequence[str]) -> str:
    """A few keys, for a sentence."""
    more = len(keys) - MOST_NAMED
    return ", ".join(keys[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
