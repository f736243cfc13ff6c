"""The prompts: one Jinja file per prompt set, task and role, e.g. `lab/toxicity/write.jinja`. Roles that all tasks of a
set share lie in the set's own folder, e.g. `lab/explain.jinja`.

A new task brings a folder of such files and nothing else. How replies to a set's prompts are read (does JSON have to be
strict, which languages may a writer refuse in) is said in its `set.yaml`. Digests of both are in store keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import yaml

from fac.errors import FacError

ROOT = Path(__file__).parent
RULES = "set.yaml"
LANGUAGES = "refusals.yaml"
LISTS = ("refusal", "persona", "offer", "user")  # the patterns of a language; refusals.yaml says what each is for
FRAME = 5  # words
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


@dataclass(frozen=True)
class ReplyRules:
    """How the replies to a set's prompts are read: whether JSON must be strict, and how a writer refuses, by language.

    A language maps the names of `LISTS` to patterns, `parts` to pieces of patterns, `joins` to words between clauses.
    """

    strict: bool = False
    languages: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def digest(self) -> str:
        """Short hash of all of it, patterns included."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


class Prompts:
    """The prompts of one task in one prompt set ("lab": short, for the tiny models; "paper": for large ones).

    `folder` may also be any folder of Jinja files of one's own. `known` are values that every prompt may use, such as a
    description of the task. Raises FacError if the folder does not exist.
    """

    def __init__(self, folder: str | Path, known: Mapping[str, object] | None = None) -> None:
        self.folder = ROOT / folder  # an absolute folder stays itself
        self.known = dict(known or {})
        if not self.folder.is_dir():
            shipped = sorted(str(p.parent.relative_to(ROOT)) for p in ROOT.rglob("write.jinja"))
            raise FacError(
                f"There is no prompt folder {folder}: name one of {shipped} or the folder of your own .jinja files."
            )
        self._search = [self.folder, self.folder.parent]  # what a task does not say itself, its prompt set says
        self._env = jinja2.Environment(
            loader=jinja2.FileSystemLoader(self._search), undefined=jinja2.StrictUndefined, keep_trailing_newline=False
        )

    def render(self, role: str, **values: object) -> str:
        """Fill `role`.jinja. Raises FacError if the file is missing or asks for a value that it does not get."""
        try:
            return self._env.get_template(f"{role}.jinja").render(**{**self.known, **values}).strip()
        except jinja2.TemplateNotFound:
            raise self._missing(role) from None
        except jinja2.TemplateError as error:
            raise FacError(f"The prompt {self.folder / role}.jinja cannot be filled: {error}.") from None

    def is_blank(self, role: str) -> bool:
        """Whether `role`.jinja says nothing (comments aside): what this set's models cannot do, and is left out.

        Raises FacError if the file is missing.
        """
        self.digest(role)
        source = self._env.get_template(f"{role}.jinja").filename
        return not _COMMENT.sub("", Path(str(source)).read_text(encoding="utf-8")).strip()

    @cached_property
    def rules(self) -> ReplyRules:
        """What the set's (or the task's own) set.yaml says; without one, JSON need not be strict and refusals are
        English. Raises FacError for what cannot stand there."""
        file = next((f for folder in self._search if (f := folder / RULES).is_file()), None)
        said = _yaml(file) if file else {}
        if unknown := set(said) - {"strict", "refusals"}:
            raise FacError(f"{file} sets {', '.join(sorted(unknown))}: it may set strict and refusals.")
        strict, refusals = said.get("strict", False), said.get("refusals", ["en"])
        if not isinstance(strict, bool):
            raise FacError(f"{file} sets strict to {strict!r}: write true or false.")
        return ReplyRules(strict, _languages(refusals, file))

    def digest(self, role: str) -> str:
        """Short hash of what decides one prompt beside the values that it is filled with.

        That is its source, what it says of the `known` values and, in a folder of one's own, the files that it
        includes. Raises FacError if the file is missing.
        """
        if role not in self._digests:
            raise self._missing(role)
        used = {name: self.known[name] for name in sorted(self.known) if name in self._named(role)}
        if not used and len(self._behind(role)) == 1:
            return self._digests[role]
        told = [{part: self._digests[part] for part in self._behind(role)}, used]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]

    def _behind(self, role: str) -> list[str]:
        """The role and, in a folder of one's own, those that it includes: the shipped ones are known by their own."""
        found = [role]
        for part in found:
            names = jinja2.meta.find_referenced_templates(self._parsed(part)) if self._is_own else ()
            roles = (name.removesuffix(".jinja") for name in names if name)
            found += [other for other in roles if other in self._digests and other not in found]
        return found

    def _named(self, role: str) -> set[str]:
        """The values that a prompt, or what it includes, asks for."""
        return set().union(*(jinja2.meta.find_undeclared_variables(self._parsed(part)) for part in self._behind(role)))

    def _parsed(self, role: str) -> jinja2.nodes.Template:
        assert self._env.loader is not None
        try:
            return self._env.parse(self._env.loader.get_source(self._env, f"{role}.jinja")[0])
        except jinja2.TemplateError as error:
            raise FacError(f"The prompt {self.folder / role}.jinja cannot be read: {error}.") from None

    def is_repeated(self, text: str) -> bool:
        """Whether a text has FRAME words in a row of what a prompt of this folder or set says itself.

        Small models tell of a prompt in place of what it asks for ("A good example, which shows it clearly").
        """
        return not self._frames.isdisjoint(_runs(text))

    @cached_property
    def _frames(self) -> set[tuple[str, ...]]:
        literals = (part for role in self._digests for part in self._parsed(role).find_all(jinja2.nodes.TemplateData))
        return set().union(*(_runs(literal.data) for literal in literals))

    @property
    def _is_own(self) -> bool:
        return not self.folder.is_relative_to(ROOT)

    def _missing(self, role: str) -> FacError:
        return FacError(f"The prompt folder {self.folder} has no {role}.jinja: add it.")

    @cached_property
    def _digests(self) -> dict[str, str]:
        files = [file for folder in reversed(self._search) for file in sorted(folder.glob("*.jinja"))]
        return {f.stem: hashlib.sha256(f.read_bytes()).hexdigest()[:12] for f in files}


def _runs(text: str) -> set[tuple[str, ...]]:
    """All runs of FRAME words of a text, without case and marks."""
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[at : at + FRAME]) for at in range(len(words) - FRAME + 1)}


def _languages(named: Any, file: Path | None) -> Mapping[str, Mapping[str, Any]]:
    """The lists of every language: those of refusals.yaml that are named, or a mapping that says them itself."""
    shipped = _yaml(ROOT / LANGUAGES)
    if isinstance(named, Sequence) and not isinstance(named, str) and all(name in shipped for name in named):
        return {name: shipped[name] for name in named}
    lists = (*LISTS, "parts", "joins")
    if isinstance(named, Mapping) and all(isinstance(v, Mapping) and set(v) <= set(lists) for v in named.values()):
        return named
    raise FacError(
        f"{file} says {named!r} of refusals: name languages of {sorted(shipped)} as a list, or write a mapping from a "
        f"language to its patterns ({', '.join(lists)}), as in {ROOT / LANGUAGES}."
    )


def _yaml(file: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FacError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(found, Mapping):
        raise FacError(f"{file} is no mapping of settings: see {ROOT / 'paper' / RULES}.")
    return found
