"""Steering vectors of CAA behaviours, and what a model answers while multiples of them are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from eval.steering import MULTIPLIERS, evaluate
from experiments.steps.steering_questions import QuestionFiles, Questions, questions_step
from experiments.tasks.steering import VectorSettings, read_vector
from fac.data.choices import POLARITY
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.store import Step
from fac.train.settings import Positions

PAPER_DEPTH = 13 / 32  # layers[12] of LLaMA-3.1-8B (released script)


@dataclass(frozen=True, kw_only=True)
class SteeringOptions(VectorSettings):
    """How vectors are read, and how far they are added. No cue: from the behaviour's name."""

    multipliers: tuple[float, ...] = MULTIPLIERS
    batch_size: PositiveInt = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.cue) != bool(self.counter_cue):
            raise FacError("cue and counter_cue come together: give both, or neither for those of the behaviour.")
        if not {-1.0, 1.0} <= set(self.multipliers) or len(set(self.multipliers)) < len(self.multipliers):
            raise FacError("multipliers must hold -1 and 1, which SCR compares, and each only once.")

    def cues(self, behavior: str) -> tuple[str, str] | None:
        """What stands before a question for and against the behaviour; None where the answers are contrasted."""
        if self.contrast == "answer":
            return None
        if self.cue:
            return f"{self.cue}\n\n", f"{self.counter_cue}\n\n"
        if behavior not in POLARITY:
            raise FacError(f"No cue is known for {behavior}: give experiment.cue and experiment.counter_cue.")
        matching, other = POLARITY[behavior]
        return f"You are an assistant that {matching}.\n\n", f"You are an assistant that {other}.\n\n"


@dataclass(frozen=True)
class BehaviorSteps:
    """The steps of one behaviour."""

    files: QuestionFiles
    questions: Step
    answers: Mapping[int, Step]  # by seed, at all multipliers but 0
    plain: Step | None  # without the vector, which no seed changes


@dataclass(frozen=True)
class SteeringSteps:
    """The steps of all behaviours."""

    behaviors: Sequence[BehaviorSteps]
    equal: Mapping[int, Step]  # by seed: the vectors of all behaviours, at one norm

    @property
    def all(self) -> list[Step]:
        """All but those that others have as input."""
        tested = [step for of in self.behaviors for step in (*of.answers.values(), of.plain) if step is not None]
        return [*(of.questions for of in self.behaviors), *self.equal.values(), *tested]


def steering_steps(
    files: Sequence[QuestionFiles], model: ModelRef, settings: SteeringOptions, seeds: Sequence[int]
) -> SteeringSteps:
    """One vector for every behaviour and seed, brought to one norm; answers at all multipliers."""
    asked = {of.behavior: questions_step(of, model, settings.cues(of.behavior)) for of in files}
    equal = {
        seed: equal_step({of.behavior: vector_step(of, asked[of.behavior], model, settings, seed) for of in files})
        for seed in seeds
    }
    behaviors = []
    for of in files:
        questions = asked[of.behavior]
        answers = {seed: answers_step(of.behavior, questions, equal[seed], model, settings) for seed in seeds}
        plain = answers_step(of.behavior, questions, None, model, settings) if 0.0 in settings.multipliers else None
        behaviors.append(BehaviorSteps(of, questions, answers, plain))
    return SteeringSteps(behaviors, equal)


def vector_step(files: QuestionFiles, questions: Step, model: ModelRef, settings: SteeringOptions, seed: int) -> Step:
    """The vector that a seed's pairs give, as it is read."""
    params = {
        "behavior": files.behavior,
        "model": model,
        "layer": partial(layer_of, model, settings.layer),
        "cues": settings.cues(files.behavior),
        "drawn": None if settings.pairs is None else {"pairs": settings.pairs, "seed": seed},
    }
    build = partial(_vector, files, model, settings, seed)
    return Step("steering_vector", build, params, (questions,), parallel=True)


def _vector(
    files: QuestionFiles, model: ModelRef, settings: SteeringOptions, seed: int, folder: Path, questions: Path
) -> None:
    pairs = Questions.load(questions).pairs
    if settings.pairs is not None:
        if settings.pairs > len(pairs):
            raise FacError(
                f"experiment.pairs={settings.pairs} will not do: {files.generate} has {len(pairs)} pairs that its test "
                "does not ask and that the model can read."
            )
        picked = np.random.default_rng(seed).choice(len(pairs), settings.pairs, replace=False)
        pairs = [pairs[i] for i in sorted(picked)]
    from fac.backbone import Backbone

    backbone = Backbone(model, layer_of(model, settings.layer))
    read_vector(backbone, pairs, files.behavior, settings.cues(files.behavior), settings.batch_size).save(folder)


def layer_of(model: ModelRef, layer: int | None) -> int:
    """The layer that is named, or the paper's at the same depth of this model. Raises FacError if it has no such."""
    from fac.backbone import model_depth

    depth = model_depth(model)
    if layer is None:
        return max(1, round(PAPER_DEPTH * depth))
    if not 1 <= layer <= depth:
        raise FacError(f"experiment.layer={layer} will not do: {model.path} has the layers 1 to {depth}.")
    return layer


def equal_step(vectors: Mapping[str, Step]) -> Step:
    """The vectors of all behaviours at their mean norm, a folder for each."""
    names = list(vectors)
    return Step("equal_vectors", partial(_equal, names), {"behaviors": names}, tuple(vectors.values()), parallel=True)


def _equal(names: Sequence[str], folder: Path, *read: Path) -> None:
    from fac.train.steering import SteeringVector, equalise

    for name, vector in zip(names, equalise([SteeringVector.load(one) for one in read]), strict=True):
        vector.save(folder / name)


def answers_step(
    behavior: str, questions: Step, vectors: Step | None, model: ModelRef, settings: SteeringOptions
) -> Step:
    """What the model answers at every multiplier but 0 or, without vectors, at 0; a folder for each."""
    multipliers = tuple(sorted(m for m in settings.multipliers if m)) if vectors is not None else (0.0,)
    params: dict[str, object] = {"model": model, "multipliers": multipliers}
    if vectors is not None:
        params |= {"behavior": behavior, "positions": settings.positions}
    build = partial(_answers, behavior, model, multipliers, settings.positions, settings.batch_size)
    inputs = (questions,) if vectors is None else (questions, vectors)
    return Step("steering_answers", build, params, inputs, resumable=True, parallel=True)


def _answers(
    behavior: str,
    model: ModelRef,
    multipliers: Sequence[float],
    positions: Positions,
    batch_size: int,
    folder: Path,
    questions: Path,
    vectors: Path | None = None,
) -> None:
    from fac.backbone import load_causal_lm
    from fac.train.steering import SteeringVector

    vector = None if vectors is None else SteeringVector.load(vectors / behavior)
    test, loaded, draft = Questions.load(questions).test, load_causal_lm(model), folder / ".draft"
    for multiplier in multipliers:
        place = folder / f"{multiplier:g}"
        if not place.is_dir():  # a killed run got further
            draft.mkdir(exist_ok=True)
            evaluate(*loaded, test, vector, multiplier, positions, batch_size).save(draft)
            draft.rename(place)
