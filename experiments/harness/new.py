"""fac new task NAME: a folder with the generic prompts of experiments on one's own data, to be edited.

fac new task bank
fac experiment=fill task.prompts=bank task.description="questions that angry customers ask a bank" ...
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fac.errors import FacError
from fac.prompts import ROOT, RULES

SETS = (ROOT / "paper", ROOT / "paper" / "own")  # what stands in the second goes before what all tasks share
TOLD = {  # by file: what it is for, and what it is filled with
    "explain.jinja": "what a feature is, from its spans",
    "verify.jinja": "whether an explanation (summary) fits the spans; asked with interpret.verified=true",
    "judge.jinja": "whether a feature (summary) belongs to the task (description); asked with relevance=llm",
    "write.jinja": "the first text for a feature, from its explanation (summary) and spans",
    "contrast.jinja": "a better text, from a good and a bad example",
    RULES: "how replies are read: whether JSON is strict, and the languages in which a writer may refuse",
}


def new(arguments: Sequence[str]) -> str:
    """Make what `fac new` is asked for; returns what to do with it.

    Raises FacError for anything but `task NAME`, and where the folder exists.
    """
    if len(arguments) != 2 or arguments[0] != "task" or arguments[1].startswith("-"):
        raise FacError("fac new makes a folder of prompts: fac new task NAME, where NAME is the folder.")
    folder = Path(arguments[1]).expanduser()
    if folder.exists():
        raise FacError(f"{folder} exists, and nothing in it is overwritten: name another folder, or move it away.")
    try:
        folder.mkdir(parents=True)
        for name in TOLD:
            source = next(place / name for place in reversed(SETS) if (place / name).is_file())
            shutil.copyfile(source, folder / name)
    except OSError as error:
        raise FacError(f"{folder} cannot be written ({error.strerror or error}): name another folder.") from None
    width = max(map(len, TOLD))
    lines = [f"  {name:{width}}  {told}" for name, told in TOLD.items()]
    return "\n".join(
        [
            f"{folder} holds the generic prompts. Edit what you like; {{{{ description }}}} is task.description:",
            *lines,
            f"Use it: fac experiment=fill task.prompts={folder} task.description=... data.anchor.path=... "
            f"data.seed.path=...",
        ]
    )
