"""The `fac` command: every failure that a user can cause is said in sentences, with exit status 1 and no traceback."""

import pytest
from support.cli import fac_here


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seeds.dta=1"], "no key seeds.dta: did you mean seeds.data"),
        (["experiment=prob"], "There is no experiment=prob: did you mean probe"),
        (["model=llma"], "There is no model=llma: did you mean lab_llama"),
        (["model=local"], "model.path is not set"),
        (["model=local", "model.path=a/${x}"], "model.path cannot be resolved (Interpolation key 'x' not found)"),
        (["-m", "out=${x}/a", "seeds.data=1,2"], "out cannot be resolved"),
        (["foo"], "'foo' is no setting: write KEY=VALUE"),
        (["-m", "seeds.dta=1,2"], "no key seeds.dta: did you mean seeds.data"),
        (["seeds.data=1,2"], "seeds.data=1,2 is a sweep over several values: put -m before it"),
        (["tasks.reward.train.epochs=x"], "tasks.reward.train.epochs='x' will not do"),
        (["scale=paper", "model.sae=null"], "No SAE is named for meta-llama/Llama-3.1-8B-Instruct"),
        (["-m", "features.max_tokens=0,x"], "job 0: features.max_tokens=0 will not do"),
        (
            ["seeds.data=1"],
            "Nothing in this run reads seeds.data, so seeds.data=1 would change no number: leave it out",
        ),
    ],
)
def test_a_wrong_configuration_is_one_sentence(arguments, said, tmp_path):
    command = arguments if "experiment" in arguments[0] else ["experiment=probe", *arguments]
    if "-m" in arguments:
        command = ["-m", *(argument for argument in command if argument != "-m")]
    failure = fac_here(*command, cwd=tmp_path).failure
    assert failure.startswith("fac: ")
    assert said in failure
    assert not (tmp_path / "outputs" / "store").exists()


def test_several_mistakes_are_a_line_each(tmp_path):
    done = fac_here("experiment=probe", "train.rank=2", "tasks.toxicty.budget=3", cwd=tmp_path)
    assert done.code == 1
    assert done.err == (
        "fac: 2 settings will not do:\n"
        "  The configuration has no key train.rank: set tasks.toxicity.train.rank, tasks.reward.train.rank, "
        "tasks.instruction.train.rank.\n"
        "  The configuration has no key tasks.toxicty.budget: did you mean tasks.toxicity.budget.\n"
    )


def test_what_is_right_is_planned(tmp_path):
    done = fac_here("experiment=probe", "tasks.reward.budget=9", "dry_run=true", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.startswith("Plan of experiment=probe model=lab_llama scale=lab: 0 trials.")
    shown = fac_here("experiment=own_data", "--cfg", "job", cwd=tmp_path)  # with values that are not set
    assert shown.code == 0, shown.err
    assert "path: ???" in shown.out
    assert "name: own_data" in shown.out


def test_the_doctor_takes_settings_only(tmp_path):
    assert "fac doctor takes settings only" in fac_here("doctor", "--help", cwd=tmp_path).failure
    assert "no key seeds.dta" in fac_here("doctor", "experiment=probe", "seeds.dta=1", cwd=tmp_path).failure
