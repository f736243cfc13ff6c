"""experiments.harness.comparisons and nested: over which unit a number is replicated, and what may be said then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.harness.comparisons import compare, sentence, values_of
from experiments.harness.experiment import Record, Trial
from experiments.harness.nested import cell_of, reading_aid, replicated
from experiments.harness.views import Column, count, coverage, metric, pivot

TRIAL = Trial("toxicity", "fac", 42, 0, 42, "lab_llama", "lab_llama", "lab_llama")


def record(auprc: float, **trial: object) -> Record:
    held = {"chosen": {"any": auprc / 2}}
    return Record(replace(TRIAL, **trial), {"auprc": auprc}, held, {"added": 4 + int(10 * auprc)}, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("places", "level", "units"),
    [
        ([(0, 42, 7), (1, 42, 7), (0, 43, 7), (1, 43, 7)], "world", (0, 1)),
        ([(0, 42, 7), (0, 43, 7), (0, 42, 8), (0, 43, 8)], "generation", (42, 43)),
        ([(0, 42, 7), (0, 42, 8), (0, 42, 9)], "seed", (7, 8, 9)),
        ([(0, 42, 7)], "seed", (7,)),
    ],
)
def test_the_unit_is_the_highest_level_that_has_several(places, level, units):
    found = replicated({place: float(sum(place)) for place in places})
    assert (found.level, found.units) == (level, units)
    assert (found.estimate() is None) == (len(units) == 1)


def test_an_interval_is_over_the_means_of_the_units():
    values = {(0, g, s): mean + wobble for g, mean in ((42, 80.0), (43, 90.0)) for s, wobble in ((7, -1.0), (8, 1.0))}
    cell = cell_of("fac", "toxicity", values)
    assert (cell.values, cell.seeds, cell.n) == ((80.0, 90.0), (42, 43), 2)
    assert cell.interval == pytest.approx((85 - 63.531, 85 + 63.531), abs=1e-2)  # 12.7062 x 7.0711 / sqrt(2)


def test_claims_say_over_what_they_are_and_a_single_run_makes_none():
    by_seed = {
        "fac": {(0, 42, s): 90.0 + s for s in (1, 2, 3)},
        "full": {(0, 42, s): 80.0 + 1.1 * s for s in (1, 2, 3)},
    }
    (over_seeds,) = compare({"toxicity": by_seed}, [("toxicity", "fac", "full")])
    said = sentence(over_seeds)
    assert said.startswith("FAC, two steps (ours) more than Full (human data): +9.8 [")
    assert "over 3 training seeds of one world and one generation, p " in said
    assert said.endswith("spread by seed 0.1")
    single = {name: {(0, 42, 1): values[0, 42, 1]} for name, values in by_seed.items()}
    pairs = [("toxicity", "fac", "full"), ("toxicity", "fac", "absent")]
    (alone,) = compare({"toxicity": single}, pairs)  # what is not there is not compared
    assert sentence(alone, {"fac": "A", "full": "B"}) == "A less B: +9.9 of a single run, of which nothing follows"
    both = compare({"toxicity": by_seed, "reward": single}, [("toxicity", "fac", "full"), ("reward", "fac", "full")])
    assert both[0].corrected == pytest.approx(over_seeds.estimate.p)  # type: ignore[union-attr]  # one test, not two


def test_worlds_and_generations_never_overwrite_each_other_in_a_cell():
    """Every number of every world counts, and differences are of the same world, generation and seed."""
    numbers = {0: 0.6, 1: 0.8}
    records = [record(v + 0.01 * s, data_seed=w, seed=s) for w, v in numbers.items() for s in (1, 3)]
    records += [record(0.5, method="baseline", data_seed=w, seed=s) for w in numbers for s in (1, 3)]
    columns = [
        Column("auprc", "", metric("auprc")),
        Column("gain", "", metric("auprc"), less="baseline"),
        Column("lead", "", metric("auprc"), lead="fac"),
        Column("any", "", coverage("any")),
        Column("added", "", count("added")),
    ]
    cells = {(cell.row, cell.column): cell for cell in pivot(records, ["baseline", "fac"], columns)}
    assert cells["fac", "auprc"].values == pytest.approx((62.0, 82.0))
    assert cells["fac", "auprc"].seeds == (0, 1)
    assert cells["fac", "gain"].values == pytest.approx((12.0, 32.0))
    assert cells["fac", "gain"].unit == "points"
    assert cells["baseline", "lead"].values == pytest.approx((12.0, 32.0))
    assert ("fac", "lead") not in cells
    assert cells["fac", "any"].n == 2
    assert cells["fac", "added"].values == (10.0, 12.0)
    assert values_of(records, metric("auprc"))["fac"][1, 42, 3] == pytest.approx(83.0)


def test_the_reading_aid_names_the_unit():
    assert reading_aid([TRIAL, replace(TRIAL, seed=43)]) is None  # the table's own says it
    worlds = reading_aid([TRIAL, replace(TRIAL, data_seed=1)])
    assert worlds is not None
    assert "worlds 0 1, generations 42, training seeds 42" in worlds
    assert worlds.endswith("Student's t with the world as the unit.")
    generations = reading_aid([TRIAL, replace(TRIAL, generation=43)])
    assert generations is not None
    assert generations.endswith("with the generation as the unit.")
