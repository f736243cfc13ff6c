"""Behaviour steering: questions are written, a steering vector is read from them, scored by how far it moves answers.

One task per behaviour. The lab's vectors are read from a persona's cue (contrast "prompt"): tiny models carry a liking
for a letter that drowns CAA's own contrast at the letter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments.tasks.base import Labelled, Task, Testing, Training, keep_replicates
from fac.chat import Message, as_chat
from fac.data.choices import Choice, read_choices
from fac.data.example_set import load_examples
from fac.data.examples import LoadReport
from fac.data.schemas import CHOICE
from fac.data.source import Source
from fac.errors import FacError
from fac.lab.world.tasks import TaskSizes, draw_examples

if TYPE_CHECKING:
    from fac.backbone import Backbone
    from fac.train.steering import SteeringVector


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
    """How a task's vector is made."""

    layer: int = 13  # the output of model.layers[12], which the released script calls layer 12
    pairs: int = 50  # of the seed data, drawn by the seed; all pairs that a method adds are taken
    # Length, as a share of the mean residual there (paper 4.5: equal norm across behaviours). None: as it comes; then
    # rows of fewer pairs, whose vectors are longer, are steered harder.
    norm: float | None = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrast == "prompt" and not (self.cue and self.counter_cue):
            raise FacError("contrast=prompt needs cue and counter_cue: say what a user says to get either answer.")
        if self.norm is not None and not self.norm > 0:
            raise FacError(f"norm={self.norm} will not do: it is a share above 0, or null for vectors as they come.")


def train(behavior: str, job: Training, folder: Path) -> None:
    """A steering vector from pairs of the seed's, drawn by the seed, and from all that the method added."""
    from fac.backbone import Backbone
    from fac.train.steering import residual_norm

    settings: SteeringSettings = job.settings
    known = [] if job.seed_examples is None else load_examples(CHOICE, [job.seed_examples])
    drawn = random.Random(job.seed).sample(known, min(settings.pairs, len(known)))
    items = drawn + ([] if job.added is None else load_examples(CHOICE, [job.added]))
    backbone = Backbone(job.model, settings.layer)
    cues = None if settings.contrast == "answer" else (f"{settings.cue} . ", f"{settings.counter_cue} . ")
    vector = read_vector(backbone, items, behavior, cues)
    if settings.norm is not None:
        vector = vector.with_norm(settings.norm * residual_norm(backbone))
    vector.save(folder)


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
        paper={"table1": name},
        schema=CHOICE,
        settings=SteeringSettings,
        sizes=TaskSizes,
        stage="vector",
        train=partial(train, name),
        test=test,
        read=read,
        drawn_in_lab=partial(_drawn_in_lab, name),
        note="robust accuracy at multiplier +1 less that at -1; P(matching): the same of the mean probability.",
        passes=10,  # both orders at five multipliers
        also={"matching_range": "P(matching), +1 less -1"},
    )


TASKS = (_task("sycophancy", "Sycophancy"), _task("survival", "Survival"))
