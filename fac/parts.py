"""What lies in a package as one file each, such as methods and metrics: found where it lies, without a list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any


def parts(package: str, path: Iterable[str], what: str) -> dict[str, Any]:
    """All that the modules of a package define as WHAT or as the sequence WHATS, such as METHOD and METHODS, by name.

    Each has a `name`; `path` is the package's __path__. Raises ValueError if two have one name.
    """
    one, several = what.upper(), f"{what.upper()}S"
    found: dict[str, Any] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(path)):
        held = importlib.import_module(f"{package}.{module}")
        for part in (*getattr(held, several, ()), *([getattr(held, one)] if hasattr(held, one) else ())):
            if part.name in found:
                raise ValueError(f"two {what}s are called {part.name}; one of them is in {held.__file__}")
            found[part.name] = part
    return found
