"""experiments.worlds: what a claim may say, and the whole experiment, reduced."""

from pathlib import Path

import pytest
from support.cli import fac_here

from experiments.harness.comparisons import cell_of, comparisons, sentence
from experiments.harness.results import Table

WORLDS, GENERATIONS, SEEDS = (0, 1, 2), (42, 43), (7, 8)
PLACES = [(w, g, s) for w in WORLDS for g in GENERATIONS for s in SEEDS]
FULL = (
    "tasks.toxicity.sizes={anchor: 30, safe: 30, seed: 16, human: 10, labelled: 20, validation: 9, test: 60, known: 6}"
)


def numbers(by_world, wobble=0.0):
    """Numbers whose world means are `by_world`."""
    return {(w, g, s): by_world[w] + wobble * (s - 7.5) for w, g, s in PLACES}


def test_a_cell_is_the_mean_over_worlds_with_the_world_as_the_unit():
    cell = cell_of("fac", "toxicity", numbers((80.0, 90.0, 100.0), wobble=4.0))
    assert (cell.mean, cell.std, cell.n) == (pytest.approx(90), pytest.approx(10), 3)
    assert cell.values == pytest.approx((80, 90, 100))
    assert cell.seeds == WORLDS
    assert cell.interval == pytest.approx((90 - 24.841, 90 + 24.841), abs=1e-2)  # 4.302653 x 10 / sqrt(3)


def test_every_other_row_is_compared_and_all_comparisons_are_corrected_together():
    rows = {
        "fac": numbers((90.0, 92.0, 91.0)),
        "full": numbers((90.0, 92.5, 90.5)),
        "baseline": numbers((80.0, 82.1, 80.9)),
    }
    to_full, to_baseline = comparisons({"toxicity": rows}, "fac")
    assert (to_full.other, to_baseline.other) == ("full", "baseline")
    assert to_baseline.estimate is not None
    assert to_full.estimate is not None
    assert to_baseline.estimate.mean == pytest.approx(10.0)
    assert to_baseline.corrected == pytest.approx(2 * to_baseline.estimate.p)  # the smaller of two
    assert to_full.corrected == pytest.approx(to_full.estimate.p)
    assert sentence(to_baseline).startswith("FAC, two steps (ours) more than Baseline (seed data): +10.0 [+9.")
    assert sentence(to_full).startswith("FAC, two steps (ours) and Full (human data) not told apart: +0.0 [")


def test_one_world_is_refused_before_anything_is_made(tmp_path: Path):
    done = fac_here("experiment=worlds", "experiment.worlds=[3]", cwd=tmp_path)
    assert "experiment.worlds needs at least two for an interval over them, each only once" in done.failure
    assert not list(tmp_path.glob("outputs/store/*"))


@pytest.mark.slow
def test_worlds_and_generations_are_all_run_and_come_back_from_the_store(tmp_path: Path):
    command = [
        "experiment=worlds", "experiment.worlds=[0,1]", "experiment.generations=[42,43]", FULL,
        "experiment.methods=[baseline,fac]", "tasks.toxicity.budget=8", "seeds.training=[42,43]",
        "tasks.toxicity.train.epochs=1", "interpret.spans=2", "synthesis.n=1", "synthesis.m=1", "workers=1", "out=out",
        "tracking.enabled=false",
    ]  # fmt: skip
    done = fac_here(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    ours, base, less = (
        table.cell(*at) for at in (("fac", "toxicity"), ("baseline", "toxicity"), ("fac", "toxicity_gain"))
    )
    assert ours is not None
    assert base is not None
    assert less is not None
    assert (ours.seeds, ours.n) == ((0, 1), 2)
    assert less.values == pytest.approx([a - b for a, b in zip(ours.values, base.values, strict=True)], abs=1e-5)
    written = (tmp_path / "out" / "table.md").read_text()
    assert "LAB RESULT" in written
    assert "Student's t with the world as the unit" in written
    claims = Table.from_json((tmp_path / "out" / "claims.json").read_text())
    difference = claims.cell("toxicity/fac/baseline", "difference")
    assert difference is not None
    assert difference.mean == pytest.approx(less.mean, abs=1e-5)

    plan = fac_here(*command, "dry_run=true", cwd=tmp_path)
    assert plan.code == 0
    assert "16 of 16 trials stored" in plan.out
    again = fac_here(*command, cwd=tmp_path)
    assert again.code == 0
    assert Table.from_json((tmp_path / "out" / "table.json").read_text()).cells == table.cells
