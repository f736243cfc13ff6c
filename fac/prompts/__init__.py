"""The prompts: one Jinja file per prompt set, task and role, e.g. `lab/toxicity/write.jinja`. Roles that all tasks of a
set share lie in the set's own folder, e.g. `lab/explain.jinja`.

Knows: where the files lie, how to fill them, their hashes (results carry them). Does not know: who answers them.
A new task brings a folder of such files and nothing else.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import jinja2

from fac.errors import FacError

ROOT = Path(__file__).parent


class Prompts:
    """The prompts of one task in one prompt set ("lab": short, for the tiny models; "paper": for large ones).

    `folder` may also be any folder of Jinja files of one's own. Raises FacError if it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = ROOT / folder  # an absolute folder stays itself
        if not self.folder.is_dir():
            known = sorted(str(p.parent.relative_to(ROOT)) for p in ROOT.rglob("write.jinja"))
            raise FacError(
                f"There is no prompt folder {folder}: name one of {known} or the folder of your own .jinja files."
            )
        self._search = [self.folder, self.folder.parent]  # what a task does not say itself, its prompt set says
        self._env = jinja2.Environment(
            loader=jinja2.FileSystemLoader(self._search), undefined=jinja2.StrictUndefined, keep_trailing_newline=False
        )

    def render(self, role: str, **values: object) -> str:
        """Fill `role`.jinja. Raises FacError if the file is missing or asks for a value that it does not get."""
        try:
            return self._env.get_template(f"{role}.jinja").render(**values).strip()
        except jinja2.TemplateNotFound:
            raise self._missing(role) from None
        except jinja2.TemplateError as error:
            raise FacError(f"The prompt {self.folder / role}.jinja cannot be filled: {error}.") from None

    def digest(self, role: str) -> str:
        """Short hash of the source of one prompt. Raises FacError if the file is missing."""
        if role not in self._digests:
            raise self._missing(role)
        return self._digests[role]

    def _missing(self, role: str) -> FacError:
        return FacError(f"The prompt folder {self.folder} has no {role}.jinja: add it.")

    @cached_property
    def _digests(self) -> dict[str, str]:
        files = [file for folder in reversed(self._search) for file in sorted(folder.glob("*.jinja"))]
        return {f.stem: hashlib.sha256(f.read_bytes()).hexdigest()[:12] for f in files}
