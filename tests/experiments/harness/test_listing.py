"""experiments.harness.listing: a module of experiments/ that defines EXPERIMENT is an experiment, with nothing else."""

from pathlib import Path

import pytest
from support.cli import fac_here
from support.declared import declare

from experiments.harness.config import read_config
from experiments.harness.listing import experiment_lines, experiments, of_paper, summary
from fac.errors import FacError
from fac.settings import SettingsError

TABLE = '''
"""A table of one's own."""
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

@dataclass(frozen=True)
class Options:
    file: Path
    kind: Literal["a", "b"] = "a"
    sweep: tuple[float, ...] = (0.4, 0.8)
    names: dict[str, int] = field(default_factory=lambda: {"x": 1})
    folder: Path = Path("here")

def plan(run):
    return f"{run.experiment.file} {run.seeds.training} {run.tasks['toxicity'].train.mode}"

EXPERIMENT = SimpleNamespace(
    name="own_table", options=Options, help="a table of one's own", plan=plan,
    settings={"seeds.training": (7, 8), "synthesis.n": 3, "out": "outputs/${model.name}"},
    defaults=({"override /tasks": "${scale}_heads"},),
)
'''


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(tmp_path / "more", monkeypatch, own_table=TABLE, heavy="raise RuntimeError('imported')")


def test_a_module_is_all_that_an_experiment_needs(table: None):
    """It is found, composed and typed; what it sets stands over its scale's and under the command line's."""
    assert list(experiments()) == sorted(experiments())
    run = read_config(["experiment=own_table", "experiment.file=a b.csv", "experiment.sweep=[1,2]"])
    options = run.experiment
    assert (type(options).__name__, options.file, options.sweep) == ("Options", Path("a b.csv"), (1.0, 2.0))
    assert (options.kind, options.names, options.folder) == ("a", {"x": 1}, Path("here"))
    assert run.name == "own_table"
    assert run.seeds.training == (7, 8)
    assert run.synthesis("toxicity").n == 3
    assert run.out.name == "lab_llama"
    paper = ["experiment=own_table", "experiment.file=x", "scale=paper"]
    assert read_config(paper).tasks["toxicity"].train.mode == "head"
    changed = read_config([*paper, "tasks=paper", "seeds.training=[1]", "out=there"])
    assert (changed.tasks["toxicity"].train.mode, changed.seeds.training, changed.out.name) == ("lora", (1,), "there")


def test_its_options_are_checked_like_all_others(table: None):
    with pytest.raises(SettingsError) as failure:
        read_config(["experiment=own_table", "experiment.kind=c", "experiment.swep=[1]", "workers=0"])
    assert [sentence.split(":")[0] for sentence in failure.value.sentences] == [
        "The configuration has no key experiment.swep",
        "workers=0 will not do",
        "experiment.file is not set",
        "experiment.kind='c' will not do",
    ]
    with pytest.raises(SettingsError, match="experiment.x is no setting: own_data has no options"):
        read_config(["experiment=own_data", "data.anchor.path=x", "data.seed.path=x", "+experiment.x=1"])


def test_experiments_and_methods_are_listed_on_the_command_line(table: None, tmp_path: Path):
    lines = fac_here("experiments", cwd=tmp_path).out.splitlines()
    assert ["own_table", "a table of one's own"] in [line.split(maxsplit=1) for line in lines]
    assert experiment_lines().splitlines() == lines
    methods = fac_here("methods", cwd=tmp_path)
    assert methods.code == 0
    assert {"baseline", "fac"} <= {line.split()[0] for line in methods.out.splitlines()}
    assert "fac experiments lists them all: leave out x=1" in fac_here("experiments", "x=1", cwd=tmp_path).failure


def test_what_it_is_stands_in_its_help_its_title_or_its_docstring():
    class Titled:
        title = "Table 1"

    def method() -> None:
        """Write like these.

        And more.
        """

    assert [summary(thing) for thing in (Titled(), method, object())] == ["Table 1", "Write like these.", ""]


def test_an_experiment_that_is_not_there_is_said(tmp_path: Path):
    said = fac_here("experiment=own_dat", cwd=tmp_path).failure
    assert said == "fac: There is no experiment=own_dat: did you mean own_data."


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("EXPERIMENT = 1 / 0", "The experiment experiments.broken cannot be imported (ZeroDivisionError: division by"),
        ("import nowhere\nEXPERIMENT = 1", "cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
        (TABLE, "experiments.own_table and experiments.broken are both called own_table: rename one"),
    ],
)
def test_a_module_that_cannot_be_used_is_said(table: None, source: str, said: str, tmp_path: Path, monkeypatch):
    declare(tmp_path / "less", monkeypatch, broken=source)
    with pytest.raises(FacError) as failure:
        experiments()
    assert said in str(failure.value)


CLAIMING = """
from types import SimpleNamespace
EXPERIMENT = SimpleNamespace(name="claiming", title="A claim", plan=None, paper={})
"""


def test_an_experiment_is_chosen_by_what_it_makes_of_the_paper(tmp_path: Path, monkeypatch):
    """In a run, in a sweep and by the doctor; its own name is what the configuration then holds."""
    declare(tmp_path / "more", monkeypatch, claiming=CLAIMING.format('("table77", "figure9"  "9")'))
    assert read_config(["experiment=table77"]).name == "claiming"
    assert read_config(["experiment=figure99"]).values == read_config(["experiment=claiming"]).values
    assert of_paper()["table1"] == "main_results"
    lines = [line.split(maxsplit=2) for line in fac_here("paper", cwd=tmp_path).out.splitlines()]
    assert ["table77", "claiming", "A claim"] in lines
    assert [name for name, *_ in lines] == sorted(
        (n for n, *_ in lines), key=lambda n: (n[0] == "f", int(n[5 + (n[0] == "f") :]))
    )


def test_no_two_experiments_claim_one_name_of_the_paper():
    assert of_paper()  # which raises if they do


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ('("figure98", "table1")', "The experiments claiming and main_results both claim table1: leave it to one."),
        ('"tabel1"', "The experiment claiming claims 'tabel1' of the paper: write table9 or figure4."),
    ],
)
def test_a_claim_that_cannot_be_is_said(claim: str, said: str, tmp_path: Path, monkeypatch):
    declare(tmp_path / "more", monkeypatch, claiming=CLAIMING.format(claim))
    with pytest.raises(FacError) as failure:
        of_paper()
    assert str(failure.value) == said


def test_a_table_that_nothing_makes_yet_is_said(tmp_path: Path):
    for command in (["experiment=table99"], ["doctor", "experiment=table99"]):
        said = fac_here(*command, cwd=tmp_path).failure
        assert said == "fac: No experiment makes Table 99 of the paper yet: `fac paper` lists what is made."
