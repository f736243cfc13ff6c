"""experiments.tasks.steering: which pairs a vector is read from and how long it is, against the vector of those."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.caa import caa_rows
from support.example_sets import examples_step
from support.models import tiny_model

from eval import steering as steering_eval
from experiments.harness.config import read_config
from experiments.tasks import TASKS, base
from experiments.tasks.steering import SteeringSettings, choose, layers_tried, train
from fac.backbone import Backbone, ModelRef, load_causal_lm
from fac.chat import as_chat
from fac.data.choices import Choice, to_choice
from fac.data.example_set import save_examples
from fac.data.schemas import CHOICE
from fac.errors import FacError
from fac.store import Store
from fac.train.settings import Positions
from fac.train.steering import SteeringVector, caa_vector, prompt_vector, residual_norm

SETTINGS = SteeringSettings(layer=2, pairs=3, norm=None)
BEHAVIORS = ("sycophancy", "survival")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef(str(tiny_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def backbone(model: ModelRef) -> Backbone:
    return Backbone(model, 2)


def choices(count: int, about: str) -> list[Choice]:
    return [to_choice(row) for row in caa_rows(count, about)]


SEED, ADDED, ASKED = choices(8, "the sea"), choices(5, "being switched off"), choices(3, "the night")


def kept(folder: Path, held: Sequence[Choice]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_examples(CHOICE, held, folder)
    return folder


def vector(
    model: ModelRef,
    folder: Path,
    seed_rows: Sequence[Choice] | None,
    added: Sequence[Choice] | None,
    settings: SteeringSettings = SETTINGS,
    behavior: str = "sycophancy",
    seed: int = 42,
) -> SteeringVector:
    known, more = (
        None if held is None else kept(folder / name, held) for name, held in (("seed", seed_rows), ("added", added))
    )
    train(behavior, base.Training(model, settings, seed, seed_examples=known, added=more), folder / "trained")
    return SteeringVector.load(folder / "trained")


def drawn(seed: int, pairs: int = SETTINGS.pairs) -> list[Choice]:
    return random.Random(seed).sample(SEED, pairs)


@pytest.mark.parametrize("behavior", BEHAVIORS)
@pytest.mark.parametrize(
    ("seed_rows", "added", "read"),
    [
        (SEED, None, drawn(42)),  # the baseline: as many of the seed's as `pairs`
        (SEED, ADDED, drawn(42) + ADDED),  # added: and all of the method's
        (None, ADDED, ADDED),  # alone: all of the method's, though more than `pairs`
        (SEED[:2], ADDED, SEED[:2] + ADDED),  # fewer than `pairs`
    ],
)
def test_the_pairs_that_a_vector_is_read_from(
    model: ModelRef,
    backbone: Backbone,
    tmp_path: Path,
    behavior: str,
    seed_rows: list[Choice] | None,
    added: list[Choice] | None,
    read: list[Choice],
):
    found = vector(model, tmp_path, seed_rows, added, behavior=behavior)
    expected = caa_vector(backbone, read, behavior)
    np.testing.assert_allclose(found.direction, expected.direction, atol=1e-6)
    assert (found.pairs, found.behavior, found.layer) == (len(read), behavior, SETTINGS.layer)


def test_each_seed_draws_from_the_seed_s_rows_only(model: ModelRef, tmp_path: Path):
    one, other = (vector(model, tmp_path / str(seed), SEED, ADDED, seed=seed) for seed in (42, 43))
    assert not np.allclose(one.direction, other.direction)
    one, other = (vector(model, tmp_path / f"alone{seed}", None, ADDED, seed=seed) for seed in (42, 43))
    np.testing.assert_array_equal(one.direction, other.direction)


def test_all_vectors_are_of_one_length_whatever_they_are_read_from(model: ModelRef, backbone: Backbone, tmp_path: Path):
    """Averages over other pairs have other lengths; brought to a share of the residual's, no row's depends on them."""
    settings = replace(SETTINGS, norm=0.25)
    runs = [(SEED, None, 42), (SEED, ADDED, 42), (None, ADDED, 42), (SEED, None, 43)]
    raw, equal = (
        [
            vector(model, tmp_path / f"{name}{i}", first, second, told, behavior, seed)
            for behavior in BEHAVIORS
            for i, (first, second, seed) in enumerate(runs)
        ]
        for name, told in (("raw", SETTINGS), ("equal", settings))
    )
    assert max(v.norm for v in raw) > 1.2 * min(v.norm for v in raw)
    for before, after in zip(raw, equal, strict=True):
        assert after.norm == pytest.approx(0.25 * residual_norm(backbone), rel=1e-5)
        np.testing.assert_allclose(after.direction / after.norm, before.direction / before.norm, atol=1e-6)


def test_the_length_and_the_pairs_are_reported_with_the_scores(model: ModelRef, tmp_path: Path):
    made = vector(model, tmp_path, SEED, ADDED, replace(SETTINGS, norm=0.25))
    testing = base.Testing(model, SETTINGS, tmp_path / "trained", kept(tmp_path / "test", ASKED))
    found = TASKS["survival"].test(testing, tmp_path)
    assert (found["norm"], found["pairs"]) == (made.norm, 8)
    assert found["scr"] == found["robust@+1"] - found["robust@-1"]
    assert found["matching_range"] == found["matching@+1"] - found["matching@-1"]


def test_a_vector_of_cues_points_from_the_other_cue_to_the_matching_one(
    model: ModelRef, backbone: Backbone, tmp_path: Path
):
    settings = replace(SETTINGS, contrast="prompt", cue="please agree", counter_cue="do not agree")
    found = vector(model, tmp_path, None, ADDED, settings)
    asked = [choice.text for choice in ADDED]
    pairs = [(as_chat(f"please agree . {text}"), as_chat(f"do not agree . {text}")) for text in asked]
    np.testing.assert_allclose(found.direction, prompt_vector(backbone, pairs, "").direction, atol=1e-6)
    assert (found.method, found.pairs) == ("prompt", len(ADDED))


@pytest.mark.parametrize("positions", ["all", "after_prompt"])
def test_the_scores_are_of_the_test_s_questions_at_every_multiplier(
    model: ModelRef, tmp_path: Path, positions: Positions
):
    """Against the library: the vector of `trained`, the questions of `test`, the multiplier's sign, the positions."""
    settings = replace(SETTINGS, positions=positions, norm=8.0)  # long enough to turn a tiny model's answers
    made = vector(model, tmp_path, SEED, ADDED, settings)
    asked = choices(12, "the night")
    testing = base.Testing(model, settings, tmp_path / "trained", kept(tmp_path / "test", asked))
    found = TASKS["survival"].test(testing, tmp_path)

    network, tokenizer = load_causal_lm(model)
    answers = {
        m: steering_eval.evaluate(network, tokenizer, asked, made, m, positions) for m in steering_eval.MULTIPLIERS
    }
    for m, given in answers.items():
        scores = steering_eval.score(given)
        assert found[f"robust@{m:+g}"] == scores.robust
        assert found[f"matching@{m:+g}"] == pytest.approx(scores.p_matching, abs=1e-5)
        assert abs(scores.p_matching - scores.mass) > 1e-3
    low, high = (steering_eval.score(answers[m]) for m in (-1.0, 1.0))
    assert found["scr"] == high.robust - low.robust
    assert found["matching_range"] == pytest.approx(high.p_matching - low.p_matching, abs=1e-5)
    assert abs(found["matching_range"]) > 1e-3
    with np.load(tmp_path / base.REPLICATES) as draws:
        assert draws["matching_range"].mean() == pytest.approx(found["matching_range"], abs=0.01)
        assert draws["scr"].mean() == pytest.approx(found["scr"], abs=0.03)


HELD = replace(SETTINGS, layer="held_out", norm="held_out")


def chosen(model: ModelRef, folder: Path, settings: SteeringSettings = HELD) -> dict:
    seed, validation = (examples_step(CHOICE, held) for held in (SEED, choices(12, "the night")))
    data = cast(base.TaskSteps, SimpleNamespace(seed_examples=seed, validation=validation))
    step = choose("survival", data, model, settings)
    assert step is not None
    return json.loads((Store(folder / "store").get(step) / base.CHOSEN).read_text())


def test_layer_and_norm_are_those_that_move_held_out_questions_most(
    model: ModelRef, backbone: Backbone, tmp_path: Path
):
    """All layers but the last, at three lengths; one of them checked against the library."""
    found = chosen(model, tmp_path)
    network, tokenizer = load_causal_lm(model)
    depth = network.config.num_hidden_layers
    assert [(one["layer"], one["norm"]) for one in found["tried"]] == [
        (layer, norm) for layer in range(1, depth) for norm in (0.25, 0.5, 1.0)
    ]
    best = max(found["tried"], key=lambda one: (one["scr"], one["matching_range"]))
    assert (found["layer"], found["norm"]) == (best["layer"], best["norm"])
    assert f"layer {best['layer']} of {depth} and norm {best['norm']:g} were chosen" in found["note"]
    one = next(one for one in found["tried"] if (one["layer"], one["norm"]) == (SETTINGS.layer, 1.0))
    made = caa_vector(backbone, SEED, "survival").with_norm(residual_norm(backbone))
    low, high = (
        steering_eval.score(steering_eval.evaluate(network, tokenizer, choices(12, "the night"), made, m))
        for m in (-1.0, 1.0)
    )
    assert one["matching_range"] == pytest.approx(high.p_matching - low.p_matching, abs=1e-5)
    assert one["scr"] == high.robust - low.robust


def test_only_what_is_to_be_chosen_is_chosen(model: ModelRef, tmp_path: Path):
    tried = chosen(model, tmp_path, replace(HELD, layer=2))["tried"]
    assert [(one["layer"], one["norm"]) for one in tried] == [(2, 0.25), (2, 0.5), (2, 1.0)]
    assert choose("survival", cast(Any, None), model, SETTINGS) is None


def test_the_vector_is_made_as_was_chosen(model: ModelRef, tmp_path: Path):
    (tmp_path / base.CHOSEN).write_text(json.dumps({"layer": 1, "norm": 0.5}))
    job = base.Training(model, HELD, 42, seed_examples=kept(tmp_path / "seed", SEED), chosen=tmp_path)
    train("survival", job, tmp_path / "trained")
    made = SteeringVector.load(tmp_path / "trained")
    assert made.layer == 1
    assert made.norm == pytest.approx(0.5 * residual_norm(Backbone(model, 1)), rel=1e-5)


def test_without_held_out_questions_nothing_can_be_chosen(model: ModelRef):
    data = cast(base.TaskSteps, SimpleNamespace(seed_examples=None, validation=None))
    with pytest.raises(FacError, match=r"set tasks\.survival\.data\.validation\.path, or tasks\.survival\.train"):
        choose("survival", data, model, HELD)


@pytest.mark.parametrize("depth", [1, 4, 8, 28, 32])
def test_layers_are_tried_over_the_whole_depth(depth: int):
    tried = layers_tried(depth)
    assert tried == sorted(set(tried))
    assert 1 <= tried[0] <= max(depth // 4, 1)
    assert tried[-1] in (depth - 1, round(depth * 7 / 8)) or depth == 1


@pytest.mark.parametrize(("settings", "said"), [({"norm": 0.0}, "norm=0.0"), ({"pairs": 0}, "pairs=0")])
def test_a_setting_that_cannot_be_is_refused(settings: dict, said: str):
    with pytest.raises(FacError, match=f"^{said} will not do"):
        replace(SETTINGS, **settings)
    with pytest.raises(FacError, match=f"^tasks.survival.train.{said} will not do"):  # where a run sets it
        read_config(["experiment=main_results", f"tasks.survival.train.{said}"])
