"""How far a score moves when only the rounding of floating-point sums changes: `make lab`'s classifiers, trained again.

    python -m experiments.bench.rounding [--out results/lab/choices/rounding.json] [KEY=VALUE ...]

Runs `fac experiment=lab` once; then its classifiers again, same texts and seeds, with the instructions of an older CPU
(other widths of vectors, so other partial sums). Prints the largest change that a seed's score makes. KEY=VALUE changes
the run, such as seeds.training=[42,43].
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from experiments.bench.lab import lab_run
from experiments.harness.results import provenance, versions
from fac.jsonl import write_json_atomic
from fac.provenance import REPOSITORY

RETRAINED = ("classifier", "scores")  # done again; what was measured and written stays
OLDER_CPU = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
Scores = Mapping[tuple[str, str, int], float]  # by row, column and seed, in percent


def main() -> None:
    """Run, compare, print and write."""
    parser = argparse.ArgumentParser(description="How far a score moves when only rounding changes.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "lab" / "choices" / "rounding.json")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first = lab_scores(Path(folder), options.overrides, {})
        for stage in RETRAINED:
            shutil.rmtree(Path(folder, "store", stage))
        second = lab_scores(Path(folder), options.overrides, OLDER_CPU)
    changes = {key: second[key] - value for key, value in first.items()}
    largest = max(map(abs, changes.values()))
    print(
        f"{len(changes)} scores under {OLDER_CPU['ATEN_CPU_CAPABILITY']}: at most {largest:.3f} points from those here"
    )
    record = {
        "largest": largest,
        "changes": by_cell(changes),
        "scores": by_cell(first),
        "here": torch.backends.cpu.get_cpu_capability(),
        "changed_to": OLDER_CPU,
        "run": options.overrides,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(options.out, record | {"versions": versions(), "provenance": provenance()})


def lab_scores(folder: Path, overrides: list[str], environment: Mapping[str, str]) -> Scores:
    """AUPRC of every row, protocol and seed of one run of the lab in `folder`, in percent."""
    table = lab_run(folder, overrides, environment)
    return {
        (cell.row, cell.column, seed): value
        for cell in table.cells
        if cell.column.startswith("auprc")
        for seed, value in zip(cell.seeds, cell.values, strict=True)
    }


def by_cell(scores: Scores) -> dict[str, list[float]]:
    """The scores of all seeds, by row and column."""
    found: dict[str, list[float]] = {}
    for (row, column, _), value in scores.items():
        found.setdefault(f"{row}/{column}", []).append(value)
    return found


if __name__ == "__main__":
    main()
