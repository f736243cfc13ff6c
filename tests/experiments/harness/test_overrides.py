"""What stands on the command line: odd names of files are meant as they are, and no job of a sweep is lost."""

import json
import re
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import QuotedString

from experiments.harness import overrides
from experiments.harness.outputs import config_hash
from experiments.harness.overrides import as_written, own_folders, parsed, quoted, resolved, with_experiment
from fac.errors import FacError
from fac.settings import Problems

ODD = [
    *("seed (1).jsonl", "seed=1.jsonl", "seed#1.jsonl", "seed&x.jsonl", "sëëd.jsonl", "种子.jsonl", "seed[1].jsonl"),
    *("{seed}.jsonl", "seed's.jsonl", 'seed"s.jsonl', "seed;x.jsonl", "a (b)/c=d, e.jsonl", "~/sae", "~nobody/x"),
    *("seed!.jsonl", "[1].jsonl", "`x`.jsonl", "a\\b (1)", "^a<b>.jsonl", "2024", "1e3", "seed,b (1).jsonl"),
    *("a'b\"c.jsonl", "C:/x y.jsonl", "50%.jsonl", "$x.jsonl"),
]


def composed(settings):
    return overrides.composed(["experiment=probe", *settings])


@pytest.mark.parametrize("name", ODD)
def test_a_path_needs_no_quotes_for_hydra(name):
    setting = parsed(quoted(f"paths.outputs={name}", sweep=False))
    assert setting is not None
    value = setting.value()
    assert (value.text if isinstance(value, QuotedString) else value) == name


def test_what_is_quoted_reaches_the_configuration_as_it_is():
    name = '~/a (b)/c=d, [e]\'s "f".jsonl'
    assert composed([quoted(f"paths.outputs={name}", sweep=False)]).paths.outputs == name


@pytest.mark.parametrize(
    "value", ["null", "[a, b]", "hub:owner/name", "outputs/${experiment.name}", "'as (it) is'", "a b"]
)
def test_a_value_that_hydra_takes_as_it_was_meant_is_left_alone(value):
    assert quoted(f"data.seed.path={value}", sweep=False) == f"data.seed.path={value}"


@pytest.mark.parametrize("name", ["seed,b.jsonl", "[a,b]", "range(3)"])
def test_a_file_is_meant_where_there_is_one_of_that_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("")
    assert composed([quoted(f"paths.outputs={name}", sweep=False)]).paths.outputs == name
    assert quoted("workers=1", sweep=False) == "workers=1"


def test_in_lists_and_sweeps_each_value_is_quoted():
    assert composed([quoted("experiment.rows=[a (1),b,ç]", sweep=False)]).experiment.rows == ["a (1)", "b", "ç"]
    assert quoted("out=a (1),b,ç", sweep=True) == "out='a (1)',b,'ç'"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "seeds.data=0,1",
            r"seeds.data=0,1 is a sweep over several values: put -m before it, or quote .*: \"seeds.data='0,1'\"",
        ),
        ("sëed=1", "where 'sëed' is no name of a key"),
        ("seeds.data", "'seeds.data' is no setting: write KEY=VALUE"),
        ("seeds.training=[1", None),
    ],
)
def test_what_cannot_be_read_is_one_sentence(override, said):
    given = quoted(override, sweep=False)
    if said is None:
        assert composed([given]).seeds.training == "[1"  # which its type then refuses by name
        return
    with pytest.raises(FacError, match=said):
        composed([given])


def test_a_command_without_an_experiment_runs_the_one_that_its_scale_names():
    assert with_experiment(["seeds.data=1"]) == ["experiment=lab", "seeds.data=1"]
    assert with_experiment(["seeds.data=1", "scale=paper"]) == [
        "experiment=main_results",
        "seeds.data=1",
        "scale=paper",
    ]
    for settings in (["experiment=probe", "scale=paper"], ["+experiment=probe"]):
        assert with_experiment(settings) == settings


# Sweeps


def test_jobs_that_would_share_a_folder_get_one_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, outs = own_folders(["experiment=probe", "seeds.data=0,1", "model=lab_llama,lab_qwen"])
    names = [f"seeds.data={seed},model={model}" for seed in (0, 1) for model in ("lab_llama", "lab_qwen")]
    assert outs == [tmp_path / "outputs" / "probe" / name for name in names]
    assert settings[-1] == "out='outputs/${experiment.name}/seeds.data=${seeds.data},model=${model.name}'"


@pytest.mark.parametrize("swept", ["data.seed.path=a/x.jsonl,b/x.jsonl", "seeds.data=0,0"])
def test_jobs_without_names_are_numbered(swept, tmp_path):
    experiment = "own_data" if swept.startswith("data.seed.path") else "probe"
    settings, outs = own_folders([f"experiment={experiment}", swept, f"out={tmp_path}"])
    assert outs == [tmp_path / "0", tmp_path / "1"]
    assert settings[-1] == f"out='{tmp_path}/${{hydra:job.num}}'"


@pytest.mark.parametrize(
    "out", ["outputs/w${seeds.data}", "outputs/${hydra:job.num}", "outputs/${hydra.job.num}", "a,b"]
)  # fmt: skip
def test_jobs_with_folders_of_their_own_keep_them(out):
    given = ["experiment=probe", f"out={out}", *([] if "," in out else ["seeds.data=0,1"])]
    settings, outs = own_folders(given)
    assert settings == [argument.replace("hydra.job", "hydra:job") for argument in given]
    assert len(set(outs)) == 2


def test_results_of_another_sweep_are_not_overwritten(tmp_path):
    kept = tmp_path / "seeds.data=0"
    kept.mkdir()
    own = resolved(as_written(composed(["seeds.data=0"])), Problems())
    for digest, refused in ((config_hash(own), False), ("0123456789ab", True)):
        (kept / "table.json").write_text(json.dumps({"config_hash": digest}, indent=1))
        sweep = ["experiment=probe", "seeds.data=0,1", f"out={tmp_path}"]
        if refused:
            with pytest.raises(FacError, match=f"{re.escape(str(kept))} holds the results of another configuration"):
                own_folders(sweep)
        else:
            assert own_folders(sweep)[1][0] == kept


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["seeds.data=0,1", "workers=1,2", "out=a,b"], "write to one folder: leave out out="),
        (["seeds.dta=0,1"], "no key seeds.dta: did you mean seeds.data"),
        (["hydra/sweeper=optuna", "seeds.data=0,1"], r"add \"out='outputs/NAME/\$\{hydra:job.num\}'\""),
        (["seeds.data=0,1", "lab.seed=3", "train.rank=2"], "2 settings will not do:\n.*lab.seed.*\n.*train.rank"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_sentence(settings, said):
    with pytest.raises(FacError, match=said):
        own_folders(["experiment=probe", *settings])


def test_a_path_may_name_its_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_folders(["experiment=probe", "seeds.data=0,1", "out='~/x'"])[1][0] == Path(tmp_path, "x", "seeds.data=0")


def test_another_configuration_is_read_while_a_run_goes_on():
    """Such as the paper's, beside whose numbers a table may stand."""
    with hydra.initialize_config_dir(str(overrides.CONF), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert as_written(composed(["seeds.data=3"]))["seeds"]["data"] == 3
        assert GlobalHydra.instance().hydra is running
