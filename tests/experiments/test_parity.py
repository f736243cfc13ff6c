"""experiments.parity: parity=official turns every way of the released code on, each can be turned on or off alone, and
the notes name what was on."""

import json
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf
from support.cli import fac_here

from experiments import config
from experiments.lab_page import Row
from experiments.main_results import jobs_of, task_plans
from experiments.parity import QUIRKS, notes, read_by
from experiments.results import Table
from experiments.run import CONF
from experiments.tasks.base import TaskData
from fac.backbone import ModelRef
from fac.data.held_out import HeldOut
from fac.errors import FacError
from fac.features import FeatureSettings
from fac.pipeline import ReadSettings
from fac.store import Artifact, Store
from fac.synthesis.method import Outcome
from fac.synthesis.settings import Settings

OFFICIAL = OmegaConf.load(CONF / "parity" / "official.yaml")


def compose(*overrides: str):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


def held(cfg: Any, key: str) -> str:
    """A value as an override writes it."""
    return json.dumps(OmegaConf.select(cfg, key))


def test_official_turns_every_way_on_and_paper_none():
    (note,) = notes(compose("parity=official", "experiment=main_results"), QUIRKS)
    assert all(f"({key})" in note for key in QUIRKS)
    assert notes(compose("experiment=main_results"), QUIRKS) == ()
    assert notes(compose("scale=paper", "sae.release=r"), QUIRKS) == ()


@pytest.mark.parametrize("key", QUIRKS)
def test_each_way_is_a_switch_of_its_own(key: str):
    table = "experiment=main_results"
    alone = compose(table, f"{key}={held(OFFICIAL, key)}")
    rest = compose(table, "parity=official", f"{key}={held(compose(table), key)}")
    (on,), (others,) = notes(alone, QUIRKS), notes(rest, QUIRKS)
    assert [other for other in QUIRKS if f"({other})" in on] == [key]
    assert [other for other in QUIRKS if f"({other})" not in others] == [key]
    for cfg in (alone, rest):
        config.feature_settings(cfg)
        config.read_settings(cfg)
        config.synthesis_settings(cfg)


def test_the_switches_reach_the_settings():
    cfg = compose("parity=official")
    features, read, writing = config.feature_settings(cfg), config.read_settings(cfg), config.synthesis_settings(cfg)
    assert (features.rule, features.shift, features.double_bos, features.span_end) == ("official", 31, True, "before")
    assert (read.missing, read.verified, read.span_tokens) == ("annotation", True, 10)
    assert (writing.pair, writing.summary, writing.spans) == ("official", "analysis", 0)
    assert (writing.label_scored, writing.ratio, writing.filter) == (True, 0.2, False)
    assert {plan.protocol for plan in task_plans(compose("parity=official", "experiment=main_results"))} == {"alone"}


def test_the_paper_s_way_is_what_a_library_user_gets_too():
    cfg = compose("scale=paper", "sae.release=r")
    for made, default, names in (
        (config.feature_settings(cfg), FeatureSettings(), ("rule", "shift", "double_bos", "span_end")),
        (config.read_settings(cfg), ReadSettings(), ("missing", "verified", "spans", "span_tokens")),
        (config.synthesis_settings(cfg), Settings(), ("pair", "summary", "filter", "label_scored", "ratio", "spans")),
    ):
        assert [getattr(made, name) for name in names] == [getattr(default, name) for name in names]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("features.shift=-1", "features.shift=-1 will not do"),
        ("features.span_end=after", "features.span_end='after' will not do"),
        ("missing.rule=x", "missing.rule='x' will not do"),
        ("synthesis.ratio=1.5", "synthesis.ratio=1.5 will not do"),
        ("synthesis.spans=-1", "synthesis.spans=-1 will not do"),
        ("synthesis.pair=worst", "synthesis.pair='worst' will not do"),
        ("tasks.reward.protocol=both", "tasks.reward.protocol='both' will not do"),
    ],
)
def test_a_wrong_switch_is_named(override: str, said: str):
    cfg = compose("experiment=main_results", override)
    readers = (config.feature_settings, config.read_settings, config.synthesis_settings, task_plans)
    with pytest.raises(FacError) as failure:
        assert not [read(cfg) for read in readers]
    assert said in str(failure.value)


def test_only_what_an_experiment_reads_is_in_its_notes():
    (note,) = notes(compose("parity=official"), ("features",))
    assert [key for key in QUIRKS if f"({key})" in note] == [key for key in QUIRKS if key.startswith("features.")]
    plans = task_plans(compose("experiment=main_results"))
    (note,) = notes(compose(), QUIRKS, [plan.train for plan in plans])
    assert note == "Ways of the released code that were on: steering vectors added at all positions (positions=all)."
    after = task_plans(compose("experiment=main_results", "+tasks.sycophancy.train.positions=after_prompt"))
    assert notes(compose(), QUIRKS, [plan.train for plan in after if plan.task.name == "sycophancy"]) == ()


@pytest.mark.parametrize(("protocol", "kept"), [("added", ["safe", "seed", "rows"]), ("alone", ["safe", "rows"])])
def test_trained_alone_what_is_written_stands_in_place_of_the_seed_s_rows(
    tmp_path: Path, protocol: str, kept: list[str]
):
    (plan,) = task_plans(
        compose("experiment=main_results", "experiment.tasks=[toxicity]", f"tasks.toxicity.protocol={protocol}")
    )
    corpora = {name: Artifact(name, name, tmp_path) for name in ("safe", "seed", "rows", "test")}
    seed = corpora["seed"]
    data = TaskData(seed, seed, (corpora["safe"],), seed, [], [], corpora["test"], HeldOut())
    row = Row("fac", Outcome(["a b c"]), corpora["rows"])
    model = ModelRef("x")
    jobs = jobs_of(plan, Store(tmp_path), data, row, model, None, {})
    assert {tuple(part.name for part in job.train) for job in jobs} == {tuple(kept)}
    nothing = jobs_of(plan, Store(tmp_path), data, Row("baseline", Outcome([]), None), model, None, {})
    assert {job.train for job in nothing} == {(corpora["safe"], seed)}  # a row that adds nothing has the seed's
    twice = jobs_of(
        plan, Store(tmp_path), data, Row("seed_twice", Outcome(["a b c"]), corpora["rows"]), model, None, {}
    )
    assert len(twice) == (3 if protocol == "added" else 0)  # in place of themselves they are the baseline


@pytest.mark.parametrize("task", ["instruction", "reward"])
def test_what_is_trained_is_the_base_model_where_the_task_says_so(tmp_path: Path, task: str):
    (plan,) = task_plans(compose("experiment=main_results", f"experiment.tasks=[{task}]"))
    seed, rows, test = (Artifact(name, name, tmp_path) for name in ("seed", "rows", "test"))
    data = TaskData(seed, seed, (), seed, [], [], test, HeldOut())
    model, base = ModelRef("instruct"), ModelRef("base")
    jobs = jobs_of(plan, Store(tmp_path), data, Row("fac", Outcome(["a"]), rows), model, base, {})
    assert {job.model for job in jobs} == {base if task == "instruction" else model}
    assert {job.judge for job in jobs} == {model}
    assert [job.seed for job in jobs] == [42, 43, 44]
    untrained = jobs_of(plan, Store(tmp_path), data, Row("base", Outcome([]), None), model, base, {})
    assert [(job.model, job.untrained, job.train) for job in untrained] == [(base, True, ())] * (task == "instruction")


@pytest.mark.slow
def test_a_whole_run_with_every_other_way_on(tmp_path: Path):
    """Top-K stays on: without it every feature is active, and reading all of them takes minutes. The lab's chats open
    with three tokens where LLaMA's have 31, so that is what is skipped."""
    sizes = "{anchor: 24, safe: 20, seed: 8, human: 8, labelled: 20, validation: 9, test: 40, known: 6}"
    done = fac_here(
        *("experiment=main_results", "experiment.tasks=[toxicity]", "experiment.rows=[baseline,fac]"),
        *("parity=official", "features.rule=paper", "features.shift=3", "interpret.max_new_tokens=16"),
        *(f"tasks.toxicity.sizes={sizes}", "tasks.toxicity.seeds=[42]", "tasks.toxicity.budget=8", "interpret.spans=2"),
        *("tasks.toxicity.train.epochs=1", "workers=1", "out=out", "tracking.enabled=false"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    (ways,) = [note for note in table.notes if note.startswith("Ways of the released code")]
    assert [key for key in QUIRKS if f"({key})" not in ways and key in read_by(["toxicity"])] == ["features.rule"]
    assert "tasks.reward" not in ways  # of a task that was not run
    assert table.name("toxicity") == "Toxicity AUPRC, alone"
    assert "in place of the seed's rows" in table.notes[0]
    assert table.cell("fac", "toxicity_fac") is not None
