"""experiments.generators: who writes is a model of conf/model or an engine of conf/llm; nothing else changes."""

from pathlib import Path

import pytest
from support.cli import fac_here

from experiments.generators import writers_of
from experiments.harness.config import read_config
from experiments.harness.graph import Graph
from experiments.harness.labels import kind_of
from experiments.harness.listing import experiments

SETTINGS = ["experiment=table4", "experiment.writers=[lab_llama,openai]", "experiment.temperatures=[0.4]"]


def test_the_writer_alone_is_another_and_the_lab_is_no_lab_with_it():
    run = read_config([*SETTINGS, "seeds.training=[42]"])
    other = run.for_writer("openai")
    assert (other.model.name, other.llms.writer.follows_run) == ("lab_llama", False)
    assert run.llms.writer.follows_run
    assert run.for_writer("lab_qwen").model.name == "lab_qwen"
    assert [kind_of(one, "toxicity", ["lab_llama"]) for one in (run, other)] == ["lab", "own model"]
    with Graph(run, lambda _: None) as graph:
        ours, theirs = (graph.steps(trial) for trial in experiments()["generators"].plan(run, graph).trials)
        assert ours.mining is not None
        assert theirs.mining is not None
        assert ours.mining.missing.key == theirs.mining.missing.key
        assert ours.synthesis is not None
        assert theirs.synthesis is not None
        assert ours.synthesis.key != theirs.synthesis.key
        assert "gpt-4o-mini" in str(theirs.synthesis.params["writer"].identity)


def test_two_write_unless_named_the_model_and_the_papers_other_one():
    assert writers_of(read_config(["experiment=generators", "model=lab_qwen"])) == ("lab_qwen", "lab_llama")
    assert writers_of(read_config(["experiment=generators", "scale=paper"])) == ("llama31_8b", "openai")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("experiment.writers=[lab_llama]", "experiment.writers names two"),
        ("llm=openai", "leave out llm.path, and llm=openai"),
        ("experiment.writers=[lab_llama,opnai]", "There is no model=opnai"),
    ],
)
def test_wrong_writers_are_said(override: str, said: str, tmp_path: Path):
    assert said in fac_here("experiment=generators", override, cwd=tmp_path).failure
