"""experiments.self_improvement: what a later round is made of. That it runs as planned: test_exact_plans."""

from pathlib import Path

import pytest
from support.reduced import reduced

from experiments.harness.config import RunConfig, read_config
from experiments.harness.experiment import Trial
from experiments.harness.graph import Graph, TrialSteps
from experiments.harness.listing import of_paper
from experiments.harness.paper_numbers import paper_table
from experiments.harness.session import store_of
from experiments.self_improvement import EXPERIMENT, row_of
from fac.errors import FacError
from fac.model_ref import MadeModel, ModelRef
from fac.store import missing


def settings(folder: Path, *more: str) -> RunConfig:
    return read_config(["experiment=figure15", *reduced("toxicity"), f"paths.outputs={folder}", *more])


def laid_out(run: RunConfig, graph: Graph) -> dict[str, tuple[Trial, TrialSteps]]:
    """Trials and steps of the first training seed, by row."""
    return {row_of(trial): (trial, graph.steps(trial)) for trial in EXPERIMENT.plan(run, graph).trials}


def model_in(steps: TrialSteps) -> ModelRef:
    """Who is trained."""
    assert steps.trained is not None
    return steps.trained.params["model"]


def test_it_is_what_makes_figure_15():
    assert of_paper()["figure15"] == EXPERIMENT.name
    assert paper_table("figure15").get("round_2", "missing").mean == 113  # type: ignore[union-attr]


def test_a_later_round_is_measured_written_and_trained_with_the_model_of_the_round_before(tmp_path: Path):
    run = settings(tmp_path, "experiment.rounds=3")
    with Graph(run, lambda _: None) as graph:
        found = laid_out(run, graph)
        assert list(found) == ["baseline", "again_2", "again_3", "round_1", "round_2", "round_3"]
        first, improved = model_in(found["round_1"][1]), model_in(found["round_2"][1])
        assert not first.made_by
        assert isinstance(improved, MadeModel)
        assert improved.step.inputs == (found["round_1"][1].trained,)
        assert model_in(found["again_2"][1]) == improved
        third = model_in(found["round_3"][1])
        assert isinstance(third, MadeModel)
        assert (third.origin, third.kin) == (improved, first)
        steps = found["round_2"][1]
        assert steps.mining is not None
        assert steps.synthesis is not None
        assert steps.mining.encoder.model == improved
        assert steps.mining.encoder.origin == first  # whose SAE it is read with
        assert steps.mining.encoder.sae_step.key == found["round_1"][1].mining.encoder.sae_step.key  # type: ignore[union-attr]
        assert steps.synthesis.params["writer"].ref == improved
        assert {chat.ref for chat in steps.mining.interpretations.params["annotators"].values()} == {first}


def test_what_was_added_belongs_to_what_is_trained_on_and_is_no_longer_missing(tmp_path: Path):
    run = settings(tmp_path, "experiment.rounds=3")
    with Graph(run, lambda _: None) as graph:
        found = {row: steps for row, (_, steps) in laid_out(run, graph).items()}
    added = [found[f"round_{n}"].added for n in (1, 2)]
    for row in ("round_3", "again_3"):
        trained, mining = found[row].trained, found[row].mining
        assert trained is not None
        assert mining is not None
        assert [part for part in trained.inputs if part in added] == added
        assert [*mining.seed.inputs[1:]] == added
    assert found["again_3"].added is None


def test_everything_of_a_later_round_hangs_on_the_model_of_the_round_before(tmp_path: Path):
    """Steps that load it are built after it, and another first round makes another second one throughout."""
    keys = []
    for rate in ("1e-3", "2e-3"):
        run = settings(tmp_path, f"tasks.toxicity.train.learning_rate={rate}")
        with Graph(run, lambda _: None) as graph:
            steps = laid_out(run, graph)["round_2"][1]
            todo = missing(steps.targets, store_of(run))
            (place,) = (at for at, step in enumerate(todo) if step.name == "trained_model")
            after = {step.key for step in todo[place + 1 :]}
            assert {step.key for name, step in steps.named() if name != "draw"} <= after
            keys.append({step.key for name, step in steps.named() if name != "draw"})
    assert not keys[0] & keys[1]


def test_an_sae_that_is_trained_is_trained_on_each_round_s_model(tmp_path: Path):
    run = settings(tmp_path, "sae=train", "sae.train.steps=10")
    with Graph(run, lambda _: None) as graph:
        one, two = (laid_out(run, graph)[row][1].mining for row in ("round_1", "round_2"))
        assert one is not None
        assert two is not None
        assert two.encoder.origin is None
        assert two.encoder.sae_step.key != one.encoder.sae_step.key


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("tasks.toxicity.train.mode=head", "trains a head alone, so there is no improved model"),
        ("llm=openai", "A model that improves itself writes itself"),
        ("experiment.rounds=1", "rounds needs to be 2 or more"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(tmp_path: Path, changed: str, said: str):
    def planned() -> None:
        run = settings(tmp_path, changed)
        with Graph(run, lambda _: None) as graph:
            EXPERIMENT.plan(run, graph)

    with pytest.raises(FacError, match=said):
        planned()
