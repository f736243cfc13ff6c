"""The rows of the tables, one file per method or family of methods.

A new method is a file in this folder that defines METHOD, or METHODS where it has variants, and the prompts that it
names; nothing lists the files.
"""

from __future__ import annotations

from fac.parts import parts
from fac.synthesis.method import Method


def collect() -> dict[str, Method]:
    """Every method of the modules in this folder, by name. Raises ValueError if two have one name."""
    return parts(__name__, __path__, "method")


METHODS = collect()
