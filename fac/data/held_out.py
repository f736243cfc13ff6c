"""Texts that nothing may be trained on, as digests: whoever asks whether a text is one of them cannot read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fac.data.corpus import normal_digest

FILE = "held_out.json"


@dataclass(frozen=True)
class HeldOut:
    """A set of texts. `text in held_out` looks through case, spacing and Unicode forms, except where it says exact."""

    normal: frozenset[bytes] = frozenset()  # `normal_digest` of each
    exact: frozenset[str] = frozenset()  # `exact_digest` of each, of texts that are only known so

    @classmethod
    def of(cls, texts: Iterable[str], exact: Iterable[str] = ()) -> HeldOut:
        """The texts, and those behind the digests `exact`."""
        return cls(frozenset(map(normal_digest, texts)), frozenset(exact))

    def save(self, folder: Path) -> None:
        """Write the digests to the folder."""
        told = {"normal": sorted(digest.hex() for digest in self.normal), "exact": sorted(self.exact)}
        (folder / FILE).write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> HeldOut:
        """What `save` wrote."""
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(frozenset(map(bytes.fromhex, told["normal"])), frozenset(told["exact"]))

    def __contains__(self, text: str) -> bool:
        return normal_digest(text) in self.normal or exact_digest(text) in self.exact


def exact_digest(text: str) -> str:
    """The first twelve hex digits of the SHA-256 of a text, letter by letter."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
