"""What every method of selection chooses from a pool of texts for what the seed misses, and what that covers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fac.corpus_features import CorpusFeatures
from fac.data.examples import Placed, read_placed
from fac.data.source import Source
from fac.errors import FacError
from fac.gap import MissingFeatures
from fac.store import Step
from fac.synthesis.method import Method, Pool, SynthesisInput
from fac.synthesis.methods import METHODS
from fac.synthesis.methods.selection import Sets, activated
from fac.synthesis.settings import Settings

CHOSEN, CURVE = "chosen", "curve.json"
FOR_MISSING = "select_fac"
OF_ROWS = ("rows", "covered", "tokens", "active")  # of Drawn
SERVES = {"missing", "pool"}  # needs that a pool of measured texts can serve


@dataclass(frozen=True)
class Drawn:
    """What one method chose with one seed. All sequences have an entry for each row, in the order of choice."""

    method: str
    seed: int
    rows: tuple[int, ...]  # of the pool, from 0
    covered: tuple[int, ...]  # missing features that the rows up to this one activate
    tokens: tuple[int, ...]  # content tokens that were measured
    active: tuple[int, ...]  # features that the row activates, relevant or not, missing or not


def selecting() -> list[Method]:
    """The methods that choose from a pool by what was measured of it."""
    return [m for m in METHODS.values() if "pool" in m.needs and SERVES.issuperset(m.needs)]


def selection_step(
    methods: Sequence[Method],
    source: Source,
    wanted: Step,
    pool: Step,
    features: Step,
    budget: int,
    seeds: Sequence[int],
) -> Step:
    """At most `budget` rows of the pool by each method (`load_drawn`), those that draw at random with each seed.

    The folder holds CHOSEN/METHOD.jsonl, the rows of each method (of the first seed) as they stand in the `source`,
    with their place, what they cover and how long they are.
    """
    names = tuple(method.name for method in methods)
    params = {"methods": names, "budget": budget, "seeds": list(seeds)}
    build = partial(_select, names, source, budget, tuple(seeds))
    return Step("selected", build, params, (wanted, pool, features))


def _select(
    names: Sequence[str],
    source: Source,
    budget: int,
    seeds: Sequence[int],
    folder: Path,
    wanted: Path,
    pool: Path,
    features: Path,
) -> None:
    found, measured = MissingFeatures.load(wanted), CorpusFeatures.load(features)
    count, missing = measured.pooled.n_texts, np.flatnonzero(found.missing())
    if budget > count:
        raise FacError(f"budget={budget} is more than the {count:,} texts of the pool {source}: lower it.")
    texts = Pool(range(count), np.arange(count), measured.pooled, measured.lengths)
    covers = activated(texts, found.thresholds, missing.tolist())
    if not any(map(len, covers)):
        raise FacError(
            f"None of the {count:,} texts of the pool {source} activates one of the {len(missing):,} missing features "
            f"above δ = {found.grid.thresholds[found.chosen]}: name another pool, or lower thresholds.default."
        )
    active = active_counts(measured, found.thresholds)
    choices = [(name, seed) for name in names for seed in (seeds if METHODS[name].drawn else seeds[:1])]
    drawn = [
        told(name, seed, _rows(METHODS[name], texts, found, missing, budget, seed), covers, measured.lengths, active)
        for name, seed in tqdm(choices, desc="selecting", unit="selection", leave=False)
    ]
    (folder / CURVE).write_text(json.dumps([vars(one) for one in drawn]), encoding="utf-8")
    _write_rows(source, [one for one in drawn if one.seed == seeds[0]], covers, missing, folder / CHOSEN)


def _rows(
    method: Method, pool: Pool, found: MissingFeatures, missing: NDArray[np.int64], budget: int, seed: int
) -> list[int]:
    """The rows that a method chooses: the pool's examples are their own numbers."""
    given = SynthesisInput(
        [], [], missing.tolist(), [], {}, found.thresholds, found.anchor_max, budget, Settings(seed=seed),
        pool=lambda: pool,
    )  # fmt: skip
    return method.run(given, None).examples  # type: ignore[arg-type]  # nothing is written


def told(
    method: str,
    seed: int,
    rows: Sequence[int],
    covers: Sets,
    lengths: NDArray[np.integer],
    active: NDArray[np.integer],
) -> Drawn:
    """A choice with what it comes to, row by row; `covers` are the missing features of every row of the pool."""
    curve = tuple(len(seen) for seen in _seen(rows, covers))
    tokens, fires = (tuple(values[list(rows)].tolist()) for values in (lengths, active))
    return Drawn(method, seed, tuple(rows), curve, tokens, fires)


def _seen(rows: Sequence[int], covers: Sets) -> Iterator[set[int]]:
    """The features that the first row activates, the first two, and so on: one set that grows."""
    seen: set[int] = set()
    for row in rows:
        seen.update(covers[row].tolist())
        yield seen


def active_counts(measured: CorpusFeatures, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many features each text activates above the thresholds [width]; shape [texts]."""
    found = np.zeros(measured.pooled.n_texts, np.int64)
    for rows in measured.pooled.chunks():
        above = rows.row_of_entry()[rows.values > thresholds[rows.indices]]
        found += np.bincount(above, minlength=len(found))
    return found


def _write_rows(source: Source, drawn: Sequence[Drawn], covers: Sets, missing: NDArray[np.int64], folder: Path) -> None:
    """Each method's rows as they stand in the source: read once, and only those kept that somebody chose."""
    wanted = {row for one in drawn for row in one.rows}
    placed = {row: held for row, held in enumerate(read_placed(source)) if row in wanted}
    folder.mkdir()
    for one in drawn:
        lines, seen = [], set[int]()
        for rank, row in enumerate(one.rows):
            own = covers[row].tolist()
            lines.append(_line(placed[row], rank, one.tokens[rank], sorted({*own} - seen), len(own)))
            seen.update(own)
        (folder / f"{one.method}.jsonl").write_text("".join(lines), encoding="utf-8")


def _line(placed: Placed, rank: int, tokens: int, new: Sequence[int], own: int) -> str:
    assert isinstance(placed.row.values, Mapping)
    value: dict[str, Any] = {
        "rank": rank + 1,
        "source": placed.row.place,
        "tokens": tokens,
        "covers": new,  # missing features that no row before it activates
        "missing_features": own,  # how many missing features it activates
        "row": placed.row.values,
    }
    return json.dumps(value, ensure_ascii=False, default=str) + "\n"


def load_drawn(folder: Path) -> list[Drawn]:
    """What every method chose, by method and seed."""
    told = json.loads((folder / CURVE).read_text(encoding="utf-8"))
    return [Drawn(one["method"], one["seed"], *(tuple(one[name]) for name in OF_ROWS)) for one in told]
