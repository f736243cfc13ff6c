"""`fac report [outputs=DIR ...] [out=DIR]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.harness.site.write import write
from fac.errors import FacError

USAGE = "fac report takes outputs=DIR, as often as there are folders of runs, and out=DIR"


def report(arguments: Sequence[str]) -> str:
    """Write the site; returns what is printed. Raises FacError for other settings, and as `write` does."""
    folders: list[Path] = []
    out: Path | None = None
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in ("outputs", "out") or not equals or not value:
            raise FacError(f"{USAGE}: leave out {argument}.")
        if key == "outputs":
            folders.append(Path(value).expanduser())
        elif out is not None:
            raise FacError(f"{USAGE}, once.")
        else:
            out = Path(value).expanduser()
    folders = folders or [Path("outputs")]
    site = out if out is not None else folders[0] / "site"
    done = write(folders, site, _bar)
    for sentence in done.left_out:
        tqdm.write(f"fac: {sentence}", file=sys.stderr)
    return f"{done}\nsite: {site / 'index.html'}"


def _bar(items: Iterator[Any], total: int) -> Iterator[Any]:
    return iter(tqdm(items, total=total, desc="sets of features", unit="set", disable=total < 2))
