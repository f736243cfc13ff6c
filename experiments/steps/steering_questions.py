"""The questions of a CAA behaviour: its files, what of them has a part in the numbers, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.harness.config import RunConfig
from experiments.tasks.steering import cued
from fac.chat import encode
from fac.data.choices import Choice, read_choices
from fac.data.examples import LoadReport
from fac.data.files import fingerprint
from fac.data.held_out import HeldOut
from fac.data.schemas import CHOICE
from fac.data.source import Source
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.settings import typed
from fac.store import Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CAA = "https://github.com/nrimsky/CAA"
PAIRS, TEST, LEFT_OUT = "pairs.jsonl", "test.jsonl", "left_out.json"


@dataclass(frozen=True)
class QuestionFiles:
    """The files of one behaviour."""

    behavior: str
    generate: Source  # what the vector is read from
    test: Source

    def fingerprint(self) -> dict[str, Any]:
        """What decides which questions they hold. Raises FacError if one is not there."""
        return {source.name: _fingerprint(source) for source in (self.generate, self.test)}


def _fingerprint(source: Source) -> dict[str, Any]:
    if not source.on_hub and not any(path.exists() for path in source.paths):
        raise FacError(
            f"There is no {source.paths[0]}: set experiment.behavior to a folder such as ROOT/generate/sycophancy with "
            f"its test in ROOT/test/sycophancy, or data.{source.name}.path to a file. CAA's own behaviours: git clone "
            f"{CAA}, then experiment.behavior=CAA/datasets/generate/sycophancy."
        )
    return fingerprint(source)


def question_files(run: RunConfig, folders: Sequence[Path]) -> list[QuestionFiles]:
    """The files of behaviours: those that data.generate and data.test name, or those that lie where CAA keeps them.

    Raises FacError if files are named for several behaviours.
    """
    return [_files(run, folder, alone=len(folders) == 1) for folder in folders]


def _files(run: RunConfig, folder: Path, alone: bool) -> QuestionFiles:
    sources = {}
    for role, usual in files_of(folder).items():
        values = run.value(f"data.{role}")
        if values["path"] is not None and not alone:
            raise FacError(f"data.{role}.path names one file, but there are several behaviours: run one at a time.")
        given = {"name": role} | ({} if values["path"] is not None else {"path": usual})
        sources[role] = typed(Source, {**values, **given}, f"data.{role}")
    return QuestionFiles(folder.name, sources["generate"], sources["test"])


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a behaviour by their roles, where CAA keeps them."""
    test = folder.parent.parent / "test" / folder.name
    return {"generate": folder / "generate_dataset.json", "test": test / "test_dataset_ab.json"}


@dataclass(frozen=True)
class Questions:
    """The pairs that a vector is read from, and the questions that it is tested with."""

    pairs: Sequence[Choice]
    test: Sequence[Choice]
    asked: int = 0  # pairs left out, since the test asks their question
    long: Mapping[str, int] = field(default_factory=dict)  # by role: left out, since the model reads no such length
    reports: Mapping[str, LoadReport] = field(default_factory=dict)  # by role

    def save(self, folder: Path) -> None:
        CHOICE.write(self.pairs, folder / PAIRS)
        CHOICE.write(self.test, folder / TEST)
        reports = {role: asdict(report) for role, report in self.reports.items()}
        told = {"asked": self.asked, "long": dict(self.long), "reports": reports}
        (folder / LEFT_OUT).write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Questions:
        told = json.loads((folder / LEFT_OUT).read_text(encoding="utf-8"))
        reports = {role: LoadReport(**report) for role, report in told.pop("reports").items()}
        return cls(CHOICE.read(folder / PAIRS), CHOICE.read(folder / TEST), reports=reports, **told)

    def notes(self, name: str) -> list[str]:
        """Which questions of the files have no part in the numbers of the behaviour `name`."""
        notes = []
        if self.asked:
            notes.append(f"{name}: {self.asked} pairs were left out, since the test asks their question.")
        for role, what in (("generate", "pairs"), ("test", "questions of the test")):
            if self.long.get(role):
                notes.append(
                    f"{name}: {self.long[role]} {what} were left out, since they are longer than the model reads."
                )
        return notes


def questions_step(files: QuestionFiles, model: ModelRef, cues: tuple[str, str] | None) -> Step:
    """The questions of a behaviour that the model can read, without pairs that the test asks (`Questions`)."""
    params = {"files": files.fingerprint, "model": model, "cues": cues}
    return Step("steering_questions", partial(_questions, files, model, cues), params)


def _questions(files: QuestionFiles, model: ModelRef, cues: tuple[str, str] | None, folder: Path) -> None:
    read_questions(files, model, cues).save(folder)


def read_questions(files: QuestionFiles, model: ModelRef, cues: tuple[str, str] | None) -> Questions:
    """The questions of the files, without what the test asks and what is longer than the model reads.

    Raises FacError if none are left.
    """
    reports = {"generate": LoadReport(), "test": LoadReport()}
    read = read_choices(files.generate, reports["generate"])
    asked = read_choices(files.test, reports["test"])
    tested = HeldOut.of(item.text for item in asked)
    pairs = [item for item in read if item.text not in tested and item.swapped().text not in tested]
    if not pairs:
        raise FacError(f"Every question of {files.generate} stands in its test: name other files.")
    from fac.backbone import load_config, load_tokenizer, positions_of
    from fac.train.steering import fits

    tokenizer, positions = load_tokenizer(model), positions_of(load_config(model))
    kept = {
        "generate": [item for item in pairs if _is_read(tokenizer, item, cues, positions)],
        "test": [item for item in asked if fits(tokenizer, item, positions)],
    }
    for role, source in (("generate", files.generate), ("test", files.test)):
        if not kept[role]:
            raise FacError(
                f"All questions of {source} are longer than the {positions} tokens that {model.path} reads: use "
                "another model."
            )
    long = {"generate": len(pairs) - len(kept["generate"]), "test": len(asked) - len(kept["test"])}
    return Questions(kept["generate"], kept["test"], len(read) - len(pairs), long, reports)


def _is_read(
    tokenizer: PreTrainedTokenizerBase, item: Choice, cues: tuple[str, str] | None, positions: int | None
) -> bool:
    """Whether a vector can be read from a question: with its answer, or behind the cues."""
    from fac.train.steering import fits

    if cues is None or positions is None:
        return fits(tokenizer, item, positions)
    lengths = [len(encode(tokenizer, chat, add_generation_prompt=True).ids) for chat in cued(item, cues)]
    return max(lengths) <= positions
