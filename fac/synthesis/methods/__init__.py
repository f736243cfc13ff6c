"""The rows of the tables, one file per method or family of methods.

A new method is a file in this folder that defines METHOD, or METHODS where it has variants, and the prompts that it
names; nothing lists the files.
"""

from __future__ import annotations

import importlib
import pkgutil

from fac.synthesis.method import Method


def collect() -> dict[str, Method]:
    """Every method of the modules in this folder, by name. Raises ValueError if two have one name."""
    found: dict[str, Method] = {}
    for module in sorted(part.name for part in pkgutil.iter_modules(__path__)):
        held = importlib.import_module(f"{__name__}.{module}")
        for method in (*getattr(held, "METHODS", ()), *([held.METHOD] if hasattr(held, "METHOD") else ())):
            if method.name in found:
                raise ValueError(f"two methods are called {method.name}; one of them is in {held.__file__}")
            found[method.name] = method
    return found


METHODS = collect()
