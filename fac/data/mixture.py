"""Several data sets as one corpus without repeats, split into training and held-out texts: what large SAEs learn from.

conf/corpus/paper.yaml names the paper's. Nothing but digests is held: 16 bytes for each different text, and a number
for each that is drawn.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fac.data.corpus import Corpus, write_examples
from fac.data.examples import Example, LoadReport, read_examples, text_digest
from fac.data.files import fingerprint
from fac.data.source import Source
from fac.errors import FacError
from fac.store import Step

REPORT = "report.json"
Side = Literal["train", "held_out"]


@dataclass(frozen=True)
class Part:
    """One data set of a mixture."""

    source: Source
    sample: int | None = None  # how many of its different texts are drawn at random; None: all its texts


class Mixture(NamedTuple):
    """Steps of a corpus and of its two sides, which share no text."""

    whole: Step
    train: Step
    held_out: Step


def mix(parts: Mapping[str, Part], *, held_out: float = 0.1, seed: int = 42) -> Mixture:
    """The texts of all `parts`, each once, in random order: a share of 1 - `held_out` to train on, and the rest.

    Ids are PART/ID; a text that stands in several parts counts for the first. Sources are streamed, those that are
    sampled twice. Every step is keyed by the bytes of the sources. Raises FacError for a sample below 1; what the steps
    build raises it for sources that cannot be read, a sample that is larger than its source, or a share that leaves
    either side empty.
    """
    for name, part in parts.items():
        if part.sample is not None and part.sample < 1:
            raise FacError(f"sample.{name}={part.sample} will not do: set it to 1 or more, or leave it out for all.")
    params = {
        "parts": [[name, partial(fingerprint, part.source), part.sample] for name, part in parts.items()],
        "seed": seed if any(part.sample for part in parts.values()) else None,
    }
    whole = Step("mixture", partial(_mix, parts, seed), params)

    def side(name: Side) -> Step:
        split = {"side": name, "held_out": held_out, "seed": seed}
        return Step("mixture_split", partial(_split, name, held_out, seed), split, (whole,))

    return Mixture(whole, side("train"), side("held_out"))


def load_reports(whole: Path) -> dict[str, LoadReport]:
    """What became of the rows of each part."""
    told = json.loads((whole / REPORT).read_text(encoding="utf-8"))
    return {name: LoadReport(**report) for name, report in told.items()}


def _mix(parts: Mapping[str, Part], seed: int, folder: Path) -> None:
    reports = {name: LoadReport() for name in parts}
    write_examples(_unique(parts, reports, seed), folder)
    (folder / REPORT).write_text(json.dumps({name: asdict(report) for name, report in reports.items()}, indent=1))


def _split(side: Side, held_out: float, seed: int, folder: Path, whole: Path) -> None:
    corpus = Corpus.load(whole)
    kept_out = round(len(corpus) * held_out)
    if not 0 < kept_out < len(corpus):
        raise FacError(f"held_out={held_out} of {len(corpus)} texts leaves one side empty: set it between 0 and 1.")
    order = np.random.default_rng(seed).permutation(len(corpus)).tolist()
    chosen = order[kept_out:] if side == "train" else order[:kept_out]
    write_examples((corpus[index] for index in chosen), folder)


def _unique(parts: Mapping[str, Part], reports: Mapping[str, LoadReport], seed: int) -> Iterator[Example]:
    """The texts of all parts, each once; `reports` count what is left out."""
    seen: set[bytes] = set()
    for name, part in parts.items():
        repeats = 0
        for example in _drawn(name, part, reports[name], seed):
            digest = text_digest(example.text)
            if digest in seen:
                repeats += 1
                continue
            seen.add(digest)
            yield replace(example, id=f"{name}/{example.id}", label=None)
        reports[name].rows -= repeats
        reports[name].duplicates += repeats


def _drawn(name: str, part: Part, report: LoadReport, seed: int) -> Iterator[Example]:
    """All texts of a part, or as many as its sample, each once, in the order of the source.

    Drawn are the texts with the smallest keyed digests: every set of different texts is as likely as any other, and
    two readings of a stream are enough.
    """
    if part.sample is None:
        yield from read_examples(part.source, report)
        return
    smallest: list[int] = []  # a heap of negatives: its root is the largest digest kept
    kept: set[int] = set()
    for example in read_examples(part.source):
        key = _key(example, seed)
        if key in kept:
            continue
        if len(smallest) < part.sample:
            heapq.heappush(smallest, -key)
        elif key < -smallest[0]:
            kept.remove(-heapq.heapreplace(smallest, -key))
        else:
            continue
        kept.add(key)
    if len(kept) < part.sample:
        raise FacError(
            f"sample.{name}={part.sample} will not do: {part.source} has {len(kept)} different texts; lower it."
        )
    for example in read_examples(part.source, report):
        key = _key(example, seed)
        if key in kept:
            kept.remove(key)
            yield example
    report.rows = part.sample


def _key(example: Example, seed: int) -> int:
    digest = blake2b(example.text.encode(), digest_size=16, key=str(seed).encode())
    return int.from_bytes(digest.digest())
