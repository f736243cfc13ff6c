"""experiments.harness.parity: parity=official turns every way of the released code on, each can be turned on or off
alone, and the notes name what was on."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cli import fac_here

from experiments.harness.config import CONF, RunConfig, read_config
from experiments.harness.experiment import grid, possible
from experiments.harness.graph import Graph, TrialSteps
from experiments.harness.parity import QUIRKS, notes
from experiments.harness.results import Table
from experiments.tasks import TASKS
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.gap import InterpretSettings
from fac.model_ref import ModelRef
from fac.synthesis.settings import Settings

OFFICIAL = yaml.safe_load((CONF / "parity" / "official.yaml").read_text())
STEERING = "steering vectors added at all positions (positions=all)"
UNSTEERED = [f"tasks.{task}.train.positions=after_prompt" for task in ("sycophancy", "survival")]


@cache
def compose(*overrides: str) -> RunConfig:
    return read_config(["experiment=main_results", *overrides])


def named(run: RunConfig, tasks: Any = TASKS) -> str:
    """The note of a run on these tasks; "" if nothing was on."""
    found = notes(run, tasks)
    assert len(found) <= 1
    return found[0] if found else ""


def official(key: str) -> Any:
    value = OFFICIAL
    for part in key.split("."):
        value = value[part]
    return value


def steps(run: RunConfig, method: str = "fac", task: str = "toxicity") -> list[TrialSteps]:
    """Of all trials of a method on a task; nothing is run."""
    with Graph(run, lambda text: None) as graph:
        return [graph.steps(trial) for trial in possible(run, grid(run, task=task, method=method))]


def test_official_turns_every_way_on_and_paper_none():
    note = named(compose("parity=official"))
    assert all(f"({key})" in note for key in QUIRKS)
    assert named(compose(*[f"+{setting}" for setting in UNSTEERED])) == ""
    assert named(compose()) == f"Ways of the released code that were on: {STEERING}."
    assert named(compose("scale=paper")) == f"Ways of the released code that were on: {STEERING}."


@pytest.mark.parametrize("key", QUIRKS)
def test_each_way_is_a_switch_of_its_own(key: str):
    alone = named(compose().with_({key: official(key)}))
    rest = named(compose("parity=official").with_({key: compose().value(key)}))
    assert [other for other in QUIRKS if f"({other})" in alone] == [key]
    assert [other for other in QUIRKS if f"({other})" not in rest] == [key]


def test_the_switches_reach_the_settings():
    run = compose("parity=official")
    features, read, writing = run.features, run.interpret, run.synthesis("toxicity")
    assert (features.rule, features.shift, features.double_bos, features.span_end) == ("official", 31, True, "before")
    assert (read.missing, read.verified, read.span_tokens) == ("annotation", True, 10)
    assert (writing.pair, writing.summary, writing.spans) == ("official", "analysis", 0)
    assert (writing.label_scored, writing.ratio, writing.filter) == (True, 0.2, False)
    assert {task.protocol for task in run.tasks.values()} == {"alone"}


def test_the_paper_s_way_is_what_a_library_user_gets_too():
    run = compose("scale=paper")
    for made, default, names in (
        (run.features, FeatureSettings(), ("rule", "shift", "double_bos", "span_end")),
        (run.interpret, InterpretSettings(), ("missing", "verified", "spans", "span_tokens")),
        (run.synthesis("toxicity"), Settings(), ("pair", "summary", "filter", "label_scored", "ratio", "spans")),
    ):
        assert [getattr(made, name) for name in names] == [getattr(default, name) for name in names]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("features.shift=-1", "features.shift=-1 will not do"),
        ("features.span_end=after", "features.span_end='after' will not do"),
        ("interpret.missing=x", "interpret.missing='x' will not do"),
        ("synthesis.ratio=1.5", "synthesis.ratio=1.5 will not do"),
        ("synthesis.spans=-1", "synthesis.spans=-1 will not do"),
        ("synthesis.pair=worst", "synthesis.pair='worst' will not do"),
        ("tasks.reward.protocol=both", "tasks.reward.protocol='both' will not do"),
    ],
)
def test_a_wrong_switch_is_named(override: str, said: str):
    with pytest.raises(FacError) as failure:
        compose(override)
    assert said in str(failure.value)


def test_only_what_an_experiment_reads_is_in_its_notes():
    (note,) = notes(compose("parity=official"), (), ("features",))
    assert [key for key in QUIRKS if f"({key})" in note] == [key for key in QUIRKS if key.startswith("features.")]
    note = named(compose("parity=official"), ["toxicity"])
    assert [key for key in QUIRKS if f"({key})" not in note] == [
        f"tasks.{task}.protocol" for task in ("reward", "sycophancy", "survival")
    ]
    assert STEERING not in note
    assert STEERING in named(compose(), ["toxicity", "survival"])
    assert named(compose(f"+{UNSTEERED[0]}"), ["sycophancy"]) == ""


@pytest.mark.parametrize("protocol", ["added", "alone"])
def test_trained_alone_what_is_written_stands_in_place_of_the_seed_s_examples(protocol: str):
    run = compose(f"tasks.toxicity.protocol={protocol}")
    for found in steps(run):
        assert found.trained is not None
        kept = [] if protocol == "alone" else [found.data.seed_examples]
        assert found.trained.inputs == (*found.data.fixed, *kept, found.added)
    for found in steps(run, "baseline"):  # a method that adds nothing has the seed's
        assert found.trained is not None
        assert found.trained.inputs == (*found.data.fixed, found.data.seed_examples)
    if protocol == "added":
        assert len(steps(run, "seed_twice")) == 3
    else:  # in place of themselves they are the baseline
        with pytest.raises(FacError, match="leaves nothing to do"):
            steps(run, "seed_twice")


@pytest.mark.parametrize("task", ["instruction", "reward"])
def test_what_is_trained_is_the_base_model_where_the_task_says_so(task: str):
    run = compose()
    model, base = run.model.ref, run.model.base_ref
    assert base is not None
    assert base != model

    def is_trained(ref: ModelRef) -> list[bool]:
        return [found.trained is not None and found.trained.params["model"] == ref for found in steps(run, task=task)]

    assert is_trained(base if task == "instruction" else model) == [True] * 3
    if task == "reward":  # which has no score untrained
        with pytest.raises(FacError, match="leaves nothing to do"):
            steps(run, "base", task)
        return
    (untrained,) = steps(run, "base", task)
    assert (untrained.trained, untrained.added, untrained.mining) == (None, None, None)
    assert untrained.scores is not None
    assert untrained.scores.params["untrained"]["model"] == base
    assert untrained.scores.params["judge"] is None  # code checks the rules


@pytest.mark.slow
def test_a_whole_run_with_every_other_way_on(tmp_path: Path):
    """Top-K stays on: without it every feature is active, and reading all of them takes minutes. The lab's chats open
    with three tokens where LLaMA's have 31, so that is what is skipped."""
    sizes = "{anchor: 24, safe: 20, seed: 8, human: 8, labelled: 20, validation: 9, test: 40, known: 6}"
    done = fac_here(
        *("experiment=main_results", "experiment.tasks=[toxicity]", "experiment.methods=[baseline,fac]"),
        *("parity=official", "features.rule=paper", "features.shift=3", "interpret.max_new_tokens=16"),
        *(f"tasks.toxicity.sizes={sizes}", "seeds.training=[42]", "tasks.toxicity.budget=8", "interpret.spans=2"),
        *("tasks.toxicity.train.epochs=1", "workers=1", "out=out", "tracking.enabled=false"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    (ways,) = [note for note in table.notes if note.startswith("Ways of the released code")]
    assert [key for key in QUIRKS if f"({key})" not in ways and "tasks." not in key] == ["features.rule"]
    assert "(tasks.toxicity.protocol)" in ways
    assert "tasks.reward" not in ways  # of a task that was not run
    assert table.name("toxicity") == "Toxicity AUPRC, alone"
    assert "in place of the seed's rows" in table.notes[0]
    assert table.cell("fac", "toxicity_fac") is not None
