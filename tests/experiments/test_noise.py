"""experiments.noise on the reduced lab: every row is filled, and the row without noise is that of Table 1."""

from experiments.harness.config import read_config
from experiments.harness.experiment import grid
from experiments.noise import EXPERIMENT


def test_the_row_without_noise_is_the_trial_that_other_tables_have():
    run = read_config(["experiment=table6"])
    trials = EXPERIMENT.plan(run, None).trials  # type: ignore[arg-type]
    assert set(grid(run, task="toxicity", method=("baseline", "fac"))) < set(trials)
    assert len(trials) == 6 * len(run.seeds.training)
