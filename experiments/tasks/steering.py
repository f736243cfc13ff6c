"""Behaviour steering: questions are written, a steering vector is read from them, scored by how far it moves answers.

One task per behaviour. The lab's vectors are read from a persona's cue (contrast "prompt"): tiny models carry a liking
for a letter that drowns CAA's own contrast at the letter.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm

from experiments.tasks.base import CHOSEN, Labelled, Task, TaskSteps, Testing, Training, keep_replicates
from fac.chat import Message, as_chat
from fac.data.choices import Choice, read_choices
from fac.data.example_set import load_examples
from fac.data.examples import LoadReport
from fac.data.schemas import CHOICE
from fac.data.source import Source
from fac.errors import FacError
from fac.lab.world.tasks import TaskSizes, draw_examples
from fac.model_ref import ModelRef
from fac.store import Step

if TYPE_CHECKING:
    from fac.backbone import Backbone
    from fac.train.steering import SteeringVector


HELD_OUT = "held_out"
NORMS = (0.25, 0.5, 1.0)  # lengths that are tried, as shares of the mean residual's
EIGHTHS = 8  # a deep model's layers are tried at eighths of its depth


@dataclass(frozen=True)
class VectorSettings:
    """How a vector is read from questions, and where it is added. The defaults are CAA's, as the paper has them (J)."""

    # The output of model.layers[layer - 1]. None: as deep as the released layers[12] of 32, in whatever model
    layer: int | None = None
    contrast: Literal["answer", "prompt"] = "answer"  # CAA: the answer's letter | a cue before the question
    pairs: int | None = None  # drawn by the seed; None: all
    positions: Literal["all", "after_prompt"] = "all"  # all: the released code | after_prompt: the paper's text
    cue: str = ""  # contrast "prompt": what stands before a question for the matching answer
    counter_cue: str = ""  # ... and for the other one

    def __post_init__(self) -> None:
        if self.pairs is not None and self.pairs < 1:
            raise FacError(f"pairs={self.pairs} will not do: set it to 1 or more.")


@dataclass(frozen=True)
class SteeringSettings(VectorSettings):
    """How a task's vector is made. Layer and norm may be "held_out": what moves held-out questions most is taken."""

    # 13: the output of model.layers[12], which the released script calls layer 12
    layer: int | Literal["held_out"] = 13  # type: ignore[assignment]
    pairs: int = 50  # of the seed data, drawn by the seed; all pairs that a method adds are taken
    # Length, as a share of the mean residual there (paper 4.5: equal norm across behaviours). None: as it comes; then
    # rows of fewer pairs, whose vectors are longer, are steered harder.
    norm: float | Literal["held_out"] | None = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrast == "prompt" and not (self.cue and self.counter_cue):
            raise FacError("contrast=prompt needs cue and counter_cue: say what a user says to get either answer.")
        if not isinstance(self.norm, str | None) and not self.norm > 0:
            raise FacError(f"norm={self.norm} will not do: it is a share above 0, or null for vectors as they come.")


def train(behavior: str, job: Training, folder: Path) -> None:
    """A steering vector from pairs of the seed's, drawn by the seed, and from all that the method added."""
    from fac.backbone import Backbone
    from fac.train.steering import residual_norm

    settings: SteeringSettings = job.settings
    if job.chosen is not None:
        chosen = json.loads((job.chosen / CHOSEN).read_text(encoding="utf-8"))
        settings = replace(settings, layer=chosen["layer"], norm=chosen["norm"])
    assert not isinstance(settings.layer, str)
    assert not isinstance(settings.norm, str)
    known = [] if job.seed_examples is None else load_examples(CHOICE, [job.seed_examples])
    drawn = random.Random(job.seed).sample(known, min(settings.pairs, len(known)))
    items = drawn + ([] if job.added is None else load_examples(CHOICE, [job.added]))
    backbone = Backbone(job.model, settings.layer)
    vector = read_vector(backbone, items, behavior, cues_of(settings))
    if settings.norm is not None:
        vector = vector.with_norm(settings.norm * residual_norm(backbone))
    vector.save(folder)


def choose(behavior: str, data: TaskSteps, model: ModelRef, settings: SteeringSettings) -> Step | None:
    """Layer and norm by what the seed's pairs do to held-out questions: one choice for all methods and seeds.

    Raises FacError where there are no held-out questions.
    """
    if HELD_OUT not in (settings.layer, settings.norm):
        return None
    if data.validation is None:
        raise FacError(
            f"Layer and norm of {behavior} are to be chosen on held-out questions: set "
            f"tasks.{behavior}.data.validation.path, or tasks.{behavior}.train.layer and .norm."
        )
    decided = {key: value for key, value in asdict(settings).items() if key != "pairs"}
    params = {"task": behavior, "model": model, "norms": NORMS, **decided}
    return Step("steering_choice", partial(_choose, behavior, model, settings), params,
                (data.seed_examples, data.validation))  # fmt: skip


def layers_tried(depth: int) -> list[int]:
    """Every layer but the last of a model, of a deep one those at eighths of its depth."""
    if depth <= EIGHTHS:
        return list(range(1, depth)) or [depth]
    return sorted({round(depth * part / EIGHTHS) for part in range(1, EIGHTHS)})


def _choose(behavior: str, ref: ModelRef, settings: SteeringSettings, folder: Path, seed: Path, held: Path) -> None:
    """Try every layer and norm; the largest SCR is taken, of equals what moves P(matching) most."""
    from eval.steering import evaluate, score
    from fac.backbone import Backbone, load_causal_lm
    from fac.train.steering import residual_norm

    model, tokenizer = load_causal_lm(ref)
    depth = model.config.get_text_config().num_hidden_layers
    pairs, questions = load_examples(CHOICE, [seed]), load_examples(CHOICE, [held])
    layers = layers_tried(depth) if settings.layer == HELD_OUT else [settings.layer]
    norms = NORMS if settings.norm == HELD_OUT else (settings.norm,)
    tried = []
    for layer, norm in tqdm(list(itertools.product(layers, norms)), "choosing layer and norm", leave=False):
        backbone = Backbone(ref, layer)
        vector = read_vector(backbone, pairs, behavior, cues_of(settings))
        if norm is not None:
            vector = vector.with_norm(norm * residual_norm(backbone))
        low, high = (
            score(evaluate(model, tokenizer, questions, vector, m, settings.positions, batch_size=32)) for m in (-1, 1)
        )
        found = {"scr": high.robust - low.robust, "matching_range": high.p_matching - low.p_matching}
        tried.append({"layer": layer, "norm": norm, **found})
    best = max(tried, key=lambda one: (one["scr"], one["matching_range"]))
    length = "vectors as they come" if best["norm"] is None else f"norm {best['norm']:g}"
    note = (
        f"layer {best['layer']} of {depth} and {length} were chosen of {len(tried)} on {len(questions)} held-out "
        f"questions, where the seed's pairs reach an SCR of {100 * best['scr']:.1f}."
    )
    (folder / CHOSEN).write_text(json.dumps({**best, "note": note, "tried": tried}, indent=1), encoding="utf-8")


def cues_of(settings: VectorSettings) -> tuple[str, str] | None:
    """What stands before a question, for and against the matching answer; None: nothing, the letters differ."""
    return None if settings.contrast == "answer" else (f"{settings.cue} . ", f"{settings.counter_cue} . ")


def read_vector(
    backbone: Backbone, items: Sequence[Choice], behavior: str, cues: tuple[str, str] | None, batch_size: int = 8
) -> SteeringVector:
    """The vector of questions: at the answer's letter or, with cues for and against, at the end of cued prompts."""
    from fac.train.steering import caa_vector, prompt_vector

    if cues is None:
        return caa_vector(backbone, items, behavior, batch_size)
    return prompt_vector(backbone, [cued(item, cues) for item in items], behavior, batch_size)


def cued(item: Choice, cues: tuple[str, str]) -> tuple[list[Message], list[Message]]:
    """A question right behind the cue for its matching answer, and behind the one for the other."""
    matching, other = (as_chat(f"{cue}{item.text}") for cue in cues)
    return matching, other


def test(job: Testing, folder: Path) -> dict[str, float]:
    """Robust accuracy and mean probability of the matching answer at every multiplier, and SCR."""
    from eval.steering import MULTIPLIERS, evaluate, replicates, score, scr
    from fac.backbone import load_causal_lm
    from fac.train.steering import SteeringVector

    vector = SteeringVector.load(_vector(job))
    model, tokenizer = load_causal_lm(job.model)
    items = load_examples(CHOICE, [job.test])
    answers = {
        multiplier: evaluate(model, tokenizer, items, vector, multiplier, job.settings.positions, batch_size=32)
        for multiplier in MULTIPLIERS
    }
    keep_replicates(folder, replicates(answers[-1.0], answers[1.0]))
    scores = {multiplier: score(found) for multiplier, found in answers.items()}
    robust = {multiplier: found.robust for multiplier, found in scores.items()}
    curve = {f"robust@{m:+g}": found.robust for m, found in scores.items()}
    curve |= {f"matching@{m:+g}": found.p_matching for m, found in scores.items()}
    moved = scores[1.0].p_matching - scores[-1.0].p_matching
    return {"scr": scr(robust), "matching_range": moved, **curve, "norm": vector.norm, "pairs": float(vector.pairs)}


def _vector(job: Testing) -> Path:
    assert job.trained is not None
    return job.trained


def read(source: Source, report: LoadReport) -> Iterator[Labelled]:
    """The questions of a CAA file."""
    return ((choice, None) for choice in read_choices(source, report))


def _drawn_in_lab(behavior: str, role: str, world: int, sizes: TaskSizes) -> list[Labelled]:
    """The questions of one role of the lab's world."""
    return [(choice, None) for choice in draw_examples(behavior, role, world, sizes)]


def _task(name: str, title: str) -> Task:
    return Task(
        name=name,
        title=title,
        metric="scr",
        metric_title="SCR",
        paper={"table1": name, "table8": name},
        schema=CHOICE,
        settings=SteeringSettings,
        sizes=TaskSizes,
        stage="vector",
        train=partial(train, name),
        test=test,
        read=read,
        drawn_in_lab=partial(_drawn_in_lab, name),
        choose=partial(choose, name),
        note="robust accuracy at multiplier +1 less that at -1; P(matching): the same of the mean probability.",
        passes=10,  # both orders at five multipliers
        also={"matching_range": "P(matching), +1 less -1"},
    )


TASKS = (_task("sycophancy", "Sycophancy"), _task("survival", "Survival"))
