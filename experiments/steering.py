"""How far do the steering vectors of CAA behaviours move a model's answers? (paper Table 1, Fig. 13 and 14)

    fac experiment=steering experiment.behavior=ROOT/generate/sycophancy model=llama31_8b

Any pair of CAA folders, or files: data.generate.path=FILE data.test.path=FILE. Several behaviours are brought to one
norm: experiment.behavior=[ROOT/generate/A,ROOT/generate/B].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from eval.steering import MULTIPLIERS, Answers
from experiments import steering_page
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Results
from experiments.harness.graph import Graph
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Page
from experiments.steering_questions import QuestionFiles, Questions, read_questions
from experiments.tasks.steering import VectorSettings, read_vector
from fac.backbone import Backbone, ModelRef, load_causal_lm, model_depth
from fac.data.choices import POLARITY
from fac.data.source import Source
from fac.errors import FacError, closest
from fac.settings import typed
from fac.store import Step
from fac.train.steering import Positions, SteeringVector, equalise

PAPER_DEPTH = 13 / 32  # layers[12] of LLaMA-3.1-8B (released script)


@dataclass(frozen=True, kw_only=True)
class Options(VectorSettings):
    """What can be set as experiment.KEY. Pairs are drawn by seeds.training; where all are taken, seeds are one run.

    No cue: from the behaviour's name. Layers count as the paper's do.
    """

    behavior: (
        str | tuple[str, ...]
    )  # folder with generate_dataset.json; the test is ../../test/NAME/test_dataset_ab.json
    method: str | None = (
        "full"  # the row of Table 1 that the pairs stand for: full (all of CAA's), fac, ...; None: none
    )
    multipliers: tuple[float, ...] = MULTIPLIERS
    batch_size: PositiveInt = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.cue) != bool(self.counter_cue):
            raise FacError("cue and counter_cue come together: give both, or neither for those of the behaviour.")
        if not {-1.0, 1.0} <= set(self.multipliers) or len(set(self.multipliers)) < len(self.multipliers):
            raise FacError("multipliers must hold -1 and 1, which SCR compares, and each only once.")
        rows = paper_table("table1").rows
        if self.method is not None and self.method not in rows:
            raise FacError(f"Table 1 has no row experiment.method={self.method}{closest(self.method, rows)}.")
        if not self.folders or len({folder.name for folder in self.folders}) < len(self.folders):
            raise FacError("behavior must name at least one behaviour, and each only once.")

    @property
    def folders(self) -> list[Path]:
        """Of the behaviours."""
        named = (self.behavior,) if isinstance(self.behavior, str) else self.behavior
        return [Path(name).expanduser().absolute() for name in named]

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


def plan(run: RunConfig, graph: Graph) -> Plan:
    """One vector for every behaviour and seed, brought to one norm; answers at all multipliers."""
    options: Options = run.experiment
    model = run.model.ref
    seeds = run.seeds.training if options.pairs is not None else run.seeds.training[:1]
    files = [_files(run, folder, alone=len(options.folders) == 1) for folder in options.folders]
    asked = {of.behavior: questions_step(of, model, options.cues(of.behavior)) for of in files}
    equal = {
        seed: equal_step({of.behavior: vector_step(of, asked[of.behavior], model, options, seed) for of in files})
        for seed in seeds
    }
    behaviors = []
    for of in files:
        questions = asked[of.behavior]
        answers = {seed: answers_step(of.behavior, questions, equal[seed], model, options) for seed in seeds}
        plain = answers_step(of.behavior, questions, None, model, options) if 0.0 in options.multipliers else None
        behaviors.append(BehaviorSteps(of, questions, answers, plain))
    tested = [step for of in behaviors for step in (*of.answers.values(), of.plain) if step is not None]
    return Plan([], partial(page, run, behaviors, equal), [*asked.values(), *equal.values(), *tested])


def _files(run: RunConfig, folder: Path, alone: bool) -> QuestionFiles:
    """The files of a behaviour: those that are named, or those that lie where CAA keeps them."""
    sources = {}
    for role, usual in files_of(folder).items():
        values = run.value(f"data.{role}")
        if values["path"] is not None and not alone:
            raise FacError(f"data.{role}.path names one file, but there are several behaviours: run one at a time.")
        given = {"name": role} | ({} if values["path"] is not None else {"path": usual})
        sources[role] = typed(Source, {**values, **given}, f"data.{role}")
    return QuestionFiles(folder.name, sources["generate"], sources["test"])


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a behaviour by their roles, where CAA keeps them."""
    test = folder.parent.parent / "test" / folder.name
    return {"generate": folder / "generate_dataset.json", "test": test / "test_dataset_ab.json"}


# Steps


def questions_step(files: QuestionFiles, model: ModelRef, cues: tuple[str, str] | None) -> Step:
    """The questions of a behaviour that the model can read, without pairs that the test asks (`Questions`)."""
    params = {"files": files.fingerprint, "model": model, "cues": cues}
    return Step("steering_questions", partial(_questions, files, model, cues), params)


def _questions(files: QuestionFiles, model: ModelRef, cues: tuple[str, str] | None, folder: Path) -> None:
    read_questions(files, model, cues).save(folder)


def vector_step(files: QuestionFiles, questions: Step, model: ModelRef, options: Options, seed: int) -> Step:
    """The vector that a seed's pairs give, as it is read."""
    params = {
        "behavior": files.behavior,
        "model": model,
        "layer": partial(layer_of, model, options.layer),
        "cues": options.cues(files.behavior),
        "drawn": None if options.pairs is None else {"pairs": options.pairs, "seed": seed},
    }
    build = partial(_vector, files, model, options, seed)
    return Step("steering_vector", build, params, (questions,), parallel=True)


def _vector(files: QuestionFiles, model: ModelRef, options: Options, seed: int, folder: Path, questions: Path) -> None:
    pairs = Questions.load(questions).pairs
    if options.pairs is not None:
        if options.pairs > len(pairs):
            raise FacError(
                f"experiment.pairs={options.pairs} will not do: {files.generate} has {len(pairs)} pairs that its test "
                "does not ask and that the model can read."
            )
        picked = np.random.default_rng(seed).choice(len(pairs), options.pairs, replace=False)
        pairs = [pairs[i] for i in sorted(picked)]
    backbone = Backbone(model, layer_of(model, options.layer))
    read_vector(backbone, pairs, files.behavior, options.cues(files.behavior), options.batch_size).save(folder)


def layer_of(model: ModelRef, layer: int | None) -> int:
    """The layer that is named, or the paper's at the same depth of this model. Raises FacError if it has no such."""
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
    for name, vector in zip(names, equalise([SteeringVector.load(one) for one in read]), strict=True):
        vector.save(folder / name)


def answers_step(behavior: str, questions: Step, vectors: Step | None, model: ModelRef, options: Options) -> Step:
    """What the model answers at every multiplier but 0 or, without vectors, at 0; a folder for each."""
    multipliers = tuple(sorted(m for m in options.multipliers if m)) if vectors is not None else (0.0,)
    params: dict[str, object] = {"model": model, "multipliers": multipliers}
    if vectors is not None:
        params |= {"behavior": behavior, "positions": options.positions}
    build = partial(_answers, behavior, model, multipliers, options.positions, options.batch_size)
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
    from eval.steering import evaluate

    vector = None if vectors is None else SteeringVector.load(vectors / behavior)
    test, loaded, draft = Questions.load(questions).test, load_causal_lm(model), folder / ".draft"
    for multiplier in multipliers:
        place = folder / f"{multiplier:g}"
        if not place.is_dir():  # a killed run got further
            draft.mkdir(exist_ok=True)
            evaluate(*loaded, test, vector, multiplier, positions, batch_size).save(draft)
            draft.rename(place)


def page(run: RunConfig, behaviors: Sequence[BehaviorSteps], equal: Mapping[int, Step], results: Results) -> Page:
    """The table, a curve for each behaviour, and the vectors beside them."""

    def measured(of: BehaviorSteps) -> steering_page.Measured:
        vectors = {seed: SteeringVector.load(results.folder(step) / of.files.behavior) for seed, step in equal.items()}
        curves = {}
        for seed, step in of.answers.items():
            steps = {m: of.plain if m == 0 and of.plain else step for m in run.experiment.multipliers}
            curves[seed] = {m: Answers.load(results.folder(at) / f"{m:g}") for m, at in steps.items()}
        return steering_page.Measured(of.files, Questions.load(results.folder(of.questions)), vectors, curves)

    found = [measured(of) for of in behaviors]
    drawn = steering_page.seeds_of(run.experiment, found)
    copies = {f"vectors/{m.name}/{seed}": results.folder(equal[seed]) / m.name for m in found for seed in drawn}
    return steering_page.page(run, [m.of_seeds(drawn) for m in found], copies)


EXPERIMENT = Experiment(
    "steering",
    "Figs. 13 and 14: how far steering vectors of CAA behaviours move a model's answers",
    plan,
    Options,
    paper="table1",
    data={"generate": {"path": None}, "test": {"path": None}},
)
