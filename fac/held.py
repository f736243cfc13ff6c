"""What a value is made of: what containers, dataclasses and functions with arguments hold, by name.

So the steps of a plan are looked through without asking anything of what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any


def parts(name: str, value: Any) -> list[tuple[str, Any]]:
    """What `value`, held under `name`, holds itself; a part without a name of its own has that of the whole."""
    if isinstance(value, type):
        return []
    if isinstance(value, Mapping):
        return [(str(key), held) for key, held in value.items()]
    if isinstance(value, (list, tuple)):
        return [(name, held) for held in value]
    if isinstance(value, partial):
        return [(name, held) for held in (value.func, *value.args, *value.keywords.values())]
    if isinstance(value, MethodType):
        return [(name, value.__self__)]
    if isinstance(value, FunctionType):
        return [(name, held) for held in enclosed(value)]
    if is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    return []


def enclosed(function: Callable[..., Any]) -> list[Any]:
    """The values that a function took from where it was defined."""
    cells = getattr(function, "__closure__", None) or ()
    return [cell.cell_contents for cell in cells]
