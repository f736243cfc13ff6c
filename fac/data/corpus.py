"""A corpus on disk: chats as JSON lines, and where each line starts.

Memory: 8 bytes per text; a text is read when it is asked for.
"""

from __future__ import annotations

import json
import logging
import operator
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from fac.data.examples import Example, LoadReport, read_examples, text_digest
from fac.data.files import fingerprint
from fac.data.source import Source
from fac.errors import FacError
from fac.store import Step

logger = logging.getLogger(__name__)

TEXTS, OFFSETS, REPORT = "corpus.jsonl", "offsets.npy", "report.json"


@dataclass(frozen=True, eq=False)
class Corpus:
    """A read-only sequence of `Example`; cheap to pickle, safe to read from several threads and processes."""

    folder: Path
    offsets: NDArray[np.int64]  # [texts + 1]; text i is bytes offsets[i]:offsets[i + 1]

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Open what `write_corpus` or `write_examples` wrote. Raises FacError if it is not there, or cut."""
        try:
            offsets = np.load(folder / OFFSETS)
            size = (folder / TEXTS).stat().st_size
        except FileNotFoundError as error:
            raise FacError(f"{folder} holds no whole corpus ({error.filename} is missing): write it again.") from None
        if size != offsets[-1]:
            raise FacError(
                f"{folder / TEXTS} has {size} bytes where {offsets[-1]} were written: write the corpus again."
            )
        return cls(folder, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: SupportsIndex) -> Example:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of a corpus of {len(self)}")
        start, stop = self.offsets[index % len(self)], self.offsets[index % len(self) + 1]
        with (self.folder / TEXTS).open("rb") as stream:
            stream.seek(start)
            return Example(**json.loads(stream.read(stop - start)))

    def __iter__(self) -> Iterator[Example]:
        with (self.folder / TEXTS).open("rb") as stream:
            for line in stream:
                yield Example(**json.loads(line))

    def labels(self) -> NDArray[np.int64] | None:
        """The labels, shape [texts]; None if no text has one. Raises FacError if only some have one."""
        labels = [example.label for example in self]
        known = [label for label in labels if label is not None]
        if known and len(known) < len(labels):
            raise FacError(
                f"{len(labels) - len(known)} of {len(labels)} texts in {self.folder} have no label: label all or none."
            )
        return np.array(known, np.int64) if known else None


def corpus_step(source: Source) -> Step:
    """The texts of a data set as a corpus (`Corpus.load`, `load_report`), keyed by the bytes of its files."""
    return Step("corpus", partial(write_corpus, source), {"source": partial(fingerprint, source)})


def joined(parts: Sequence[Step]) -> Step:
    """The texts of several corpora, one after the other, as a corpus."""
    return Step("joined", _join, {}, tuple(parts))


def _join(folder: Path, *parts: Path) -> None:
    write_examples((example for part in parts for example in Corpus.load(part)), folder)


def load_report(folder: Path) -> LoadReport:
    """What became of the rows of a data set that `write_corpus` wrote."""
    return LoadReport(**json.loads((folder / REPORT).read_text(encoding="utf-8")))


def write_corpus(source: Source, folder: Path) -> LoadReport:
    """Read `source` once and write it to `folder` as a corpus, beside its report (report.json).

    Raises FacError for what `read_examples` refuses. Skipped rows and dropped repeats are logged as a warning.
    """
    report = LoadReport()
    write_examples(read_examples(source, report), folder)
    (folder / REPORT).write_text(json.dumps(asdict(report), indent=1))
    if report.skipped or report.duplicates:
        logger.warning("%s: %s", source, report)
    return report


def write_examples(examples: Iterable[Example], folder: Path) -> None:
    """Write `examples` to `folder` as a corpus; it may be empty. The offsets come last: a cut corpus does not load."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OFFSETS).unlink(missing_ok=True)
    offsets = array("q", [0])
    with (folder / TEXTS).open("wb") as stream:
        for example in examples:
            line = json.dumps(asdict(example), ensure_ascii=False).encode() + b"\n"
            stream.write(line)
            offsets.append(offsets[-1] + len(line))
    np.save(folder / OFFSETS, np.frombuffer(offsets, np.int64))


def overlap(first: Corpus, second: Corpus) -> list[int]:
    """Indices of the texts of `first` that also stand in `second`, increasing.

    Texts are compared without regard to case, spacing and Unicode compatibility forms (so ToxicChat's train and test
    set share 99 texts, in 107 rows of train). Memory: one 16-byte hash per text of `second`.
    """
    known = {normal_digest(example.text) for example in second}
    return [index for index, example in enumerate(first) if normal_digest(example.text) in known]


def normal_digest(text: str) -> bytes:
    """A 16-byte hash of a text, whatever its case, spacing and Unicode compatibility forms."""
    return text_digest(" ".join(unicodedata.normalize("NFKC", text).casefold().split()))
