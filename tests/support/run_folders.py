"""Folders of finished runs, and the store behind them, as the harness leaves them, made without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.harness.experiment import Record, Trial
from experiments.harness.report import Figure, Page, Series, kept
from experiments.harness.results import LAB_LABEL, Cell, Table, measured, paired
from fac.corpus_features import LENGTHS
from fac.coverage import threshold_grid
from fac.data.schemas import QUERY, Query
from fac.gap import MissingFeatures
from fac.interpret import Interpretation
from fac.pooled import PooledWriter
from fac.store import RECORD
from fac.synthesis.generate import save_outcome
from fac.synthesis.method import Outcome
from fac.synthesis.samples import Counts, Sample

SEEDS = (42, 43, 44)
NAMES = {"baseline": "Baseline (seed data)", "full": "Full (human data)", "fac": "FAC, two steps (ours)"}
NAMES |= {"random_features": "SAE + random features", "toxicity": "Toxicity AUPRC", "toxicity_gain": "minus Baseline"}


def scores(column: str = "toxicity", **rows: Sequence[float]) -> list[Cell]:
    """A column of scores by seed and that of the differences from the baseline, as tables of tasks have them."""
    cells = [measured(row, column, dict(zip(SEEDS, values, strict=False))) for row, values in rows.items()]
    base = next(cell for cell in cells if cell.row == "baseline")
    gains = [replace(paired(cell, base, cell.row), column=f"{column}_gain") for cell in cells if cell is not base]
    return [*cells, *gains]


def table_of(cells: Sequence[Cell], name: str = "main_results", title: str = "Main results", **more: Any) -> Table:
    """A table of the lab with these cells."""
    rows, columns = (tuple(dict.fromkeys(getattr(cell, of) for cell in cells)) for of in ("row", "column"))
    origin = {"commit": "a" * 40, "versions": {}, "host": {}, "steps": 3}
    told = {"scale": "lab", "names": NAMES, "label": LAB_LABEL, "provenance": {"git_sha": "a" * 40, "steps": [origin]}}
    return Table(
        name,
        title=title,
        rows=rows,
        columns=columns,
        cells=tuple(cells),
        config_hash="0" * 12,
        versions={},
        **{**told, **more},
    )


def curve() -> Figure:
    """A figure of two lines."""
    return Figure(
        "Coverage",
        "threshold",
        "FAC (%)",
        [Series("ours", [0, 1], [90, 80]), Series("paper", [0, 1], [82, 46], dashed=True)],
    )


def write_run(
    folder: Path,
    tables: Sequence[Table],
    store: Path | None = None,
    records: Sequence[Record] = (),
    model: str = "lab_llama",
    old: bool = False,
    options: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    **page: Any,
) -> Path:
    """A run's folder; an `old` one has no page.json. `page` are fields of the page."""
    folder.mkdir(parents=True)
    name = tables[0].experiment
    config = {"experiment": {"name": name, **(options or {})}, "model": {"name": model}}
    texts = {
        "config.yaml": yaml.safe_dump({**config, "paths": {"store": str(store or folder / "none")}}),
        **(files or {}),
    }
    if records:
        texts["records.json"] = json.dumps([record.to_json() for record in records])
    if not old:
        texts["page.json"] = kept.dump(Page(tables[0].title, "", tables, **page))
    texts["report.html"] = "<!doctype html><title>its own page</title>"
    texts |= {f"{table.experiment}.json": table.to_json() for table in tables[1:]} | {"table.json": tables[0].to_json()}
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def trial(method: str, **more: Any) -> Trial:
    """One of the toxicity task of the lab's LLaMA."""
    told = {"task": "toxicity", "seed": 42, "data_seed": 0, "generation": 42, "features_of": "lab_llama"}
    return Trial(**{**told, "method": method, "writer": "lab_llama", "trained": "lab_llama", **more})


class Mined:
    """A store in which features were mined and samples written for them.

    Feature i is active on i + 1 anchor texts; even ones are missing in the seed data. Every fourth is not relevant.
    """

    def __init__(self, root: Path, features: int = 12, text: str = "how do i pick a lock", **annotated: Any) -> None:
        self.root, self.n, self.text = root, features, text
        self._step("sae", "sae1", [])
        self._features("anchor1", [("draw", "d"), ("sae", "sae1")], np.eye(features))
        self._step("interpret", "told1", [("features", "anchor1")], {"span_end": annotated.pop("span_end", "at")})
        told = [self._told(i, **annotated) for i in range(features)]
        lines = "".join(json.dumps(asdict(one)) + "\n" for one in told)
        (root / "interpret/told1/interpretations.jsonl").write_text(lines)
        self._step("missing", "missing1", [("features", "anchor1"), ("features", "seed1")])
        maxima = np.arange(1, features + 1, dtype=np.float32)
        anchor, seed = np.arange(1, features + 1), np.where(np.arange(features) % 2, 3, 0)
        relevant = np.arange(features) % 4 != 3
        grid = threshold_grid((0.0,), (), maxima)
        mined = MissingFeatures(grid, 0, anchor[None], seed[None], maxima, maxima.astype(np.float64), relevant)
        mined.save(root / "missing/missing1")

    def _told(self, i: int, explanation: str = "lockpicking", verification: str = "Yes") -> Interpretation:
        relevance = "No" if i % 4 == 3 else ("Yes", "Probably", "Maybe")[i % 3]
        return Interpretation(i, (self.text, "other words"), f"{explanation} {i}", verification, relevance)

    def write(self, method: str, samples: Sequence[Sample], active: Any, **more: Any) -> Record:
        """A trial whose method added these samples; `active` [samples, features] is what they activate."""
        key = f"{method}{len(list(self.root.glob('synthesis/*')))}"
        self._step("synthesis", key, [])
        added = [sample for sample in samples if sample.kept]
        outcome = Outcome([s.example for s in added], list(samples), added, None, Counts(requested=len(samples)))
        save_outcome(QUERY, outcome, self.root / "synthesis" / key)
        self._features(f"of-{key}", [("synthesis", key), ("sae", "sae1")], active)
        inputs = [("missing", "missing1"), ("synthesis", key), ("features", f"of-{key}"), ("synthesis", key)]
        self._step("coverage", key, inputs, {"schema": "query"})
        named = {"synthesis": key, "added": key, "coverage": key}
        return Record(trial(method, **more), {"auprc": 0.8}, {}, {"added": len(added)}, {**self.steps(), **named})

    def steps(self) -> dict[str, str]:
        """Keys of the steps of mining, as records name them."""
        return {"draw": "d", "features": "anchor1", "interpretations": "told1", "missing": "missing1"}

    def sample(self, feature: int | None, text: str, kept_: bool = True, attempt: int = 0) -> Sample:
        """One that was written for a feature, with its span at the end of the text."""
        g = None if feature is None else 2.5
        why = "" if kept_ else "does not activate"
        span = text.split()[-1] if feature is not None else ""
        made = {"example": Query(text), "reply": text, "prompt": "p", "model": "m", "seed": 0, "text": text}
        made |= {"activation": g, "relative_activation": g, "kept": kept_, "rejected_because": why, "span": span}
        return Sample(feature=feature, step=2, attempt=attempt, **made)

    def _step(
        self, name: str, key: str, inputs: Sequence[tuple[str, str]], params: Mapping[str, Any] | None = None
    ) -> None:
        folder = self.root / name / key
        folder.mkdir(parents=True)
        told = {"name": name, "params": dict(params or {}), "inputs": [{"name": n, "key": k} for n, k in inputs]}
        (folder / RECORD).write_text(json.dumps(told))

    def _features(self, key: str, inputs: Sequence[tuple[str, str]], active: Any) -> None:
        self._step("features", key, inputs)
        folder = self.root / "features" / key
        writer = PooledWriter(folder, self.n, {"rule": "paper", "max_tokens": 512})
        writer.append(np.asarray(active, np.float32).reshape(-1, self.n))
        writer.close(cut=0)
        tops = np.tile([3.0, 2.0], (self.n, 1)).astype(np.float32)
        np.savez(
            folder / "tops.npz",
            values=tops,
            texts=np.zeros((self.n, 2), np.int64),
            tokens=np.zeros((self.n, 2), np.int32),
        )
        np.save(folder / LENGTHS, np.full(len(np.atleast_2d(active)), 5, np.int32))
