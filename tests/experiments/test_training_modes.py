"""experiments.training_modes: what each mode changes, and the reduced lab in all four."""

from experiments.harness.config import read_config
from experiments.training_modes import EXPERIMENT, row_of


def test_lora_is_the_trial_of_other_tables_and_every_mode_has_its_own_training():
    run = read_config(["experiment=figure12", "seeds.training=[42]"])
    trials = {row_of(trial): trial for trial in EXPERIMENT.plan(run, None).trials}  # type: ignore[arg-type]
    assert list(trials) == ["head", "lora", "partial", "full"]
    assert trials["lora"].settings == ()
    for mode in ("head", "partial", "full"):
        assert run.with_(dict(trials[mode].settings)).tasks["toxicity"].train.mode == mode
