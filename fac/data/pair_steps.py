"""Steps of preference pairs: a data set of them, and those of it that a test does not ask."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from fac.data.example_set import load_examples, save_examples
from fac.data.examples import LoadReport
from fac.data.held_out import HeldOut
from fac.data.pairs import pairs_fingerprint, read_pairs
from fac.data.schemas import PAIR
from fac.data.source import Source
from fac.errors import FacError
from fac.store import Step

REPORT, DROPPED = "report.json", "dropped.json"


def pairs_step(source: Source) -> Step:
    """A data set of pairs, beside the report of how it was read; by the bytes of its files."""
    return Step("pairs", partial(_read, source), {"pairs": partial(pairs_fingerprint, source)})


def _read(source: Source, folder: Path) -> None:
    report = LoadReport()
    save_examples(PAIR, list(read_pairs(source, report=report)), folder)
    (folder / REPORT).write_text(json.dumps(asdict(report)), encoding="utf-8")


def kept_step(train: Step, test: Step) -> Step:
    """The pairs of one set whose prompt does not stand in another, beside how many do."""
    return Step("kept_pairs", _kept, {}, (train, test))


def load_pairs_report(folder: Path) -> LoadReport:
    """What became of the rows of a data set of pairs."""
    return LoadReport(**json.loads((folder / REPORT).read_text(encoding="utf-8")))


def load_dropped(folder: Path) -> int:
    """How many pairs were left out, since the test asks their prompt."""
    return json.loads((folder / DROPPED).read_text(encoding="utf-8"))


def _kept(folder: Path, train: Path, test: Path) -> None:
    """The pairs whose prompt does not stand in the test, and how many do. Raises FacError if all do."""
    pairs = load_examples(PAIR, [train])
    tested = HeldOut.of(PAIR.asked(pair) for pair in load_examples(PAIR, [test]))
    kept = [pair for pair in pairs if PAIR.asked(pair) not in tested]
    if not kept:
        raise FacError(
            "Every prompt of data.train stands in data.test, which is not trained on: name another data set."
        )
    save_examples(PAIR, kept, folder)
    (folder / DROPPED).write_text(json.dumps(len(pairs) - len(kept)), encoding="utf-8")
