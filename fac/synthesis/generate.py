"""What a method adds, as a step: the examples to train on, every sample behind them, and what came to nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fac.data.example_set import load_examples, save_examples
from fac.data.held_out import HeldOut
from fac.data.schemas import QUERY, Schema
from fac.errors import FacError
from fac.gap import Mining, MissingFeatures
from fac.interpret import load_interpretations, with_analyses
from fac.llm.base import ChatModel, Sampling
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.store import Step
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.needs import Extras, decided_by, loaded, of_missing, steps_for
from fac.synthesis.samples import Counts, Sample, load_samples, write_samples, written_for
from fac.synthesis.settings import ELSEWHERE, OF_SOME_METHODS, Settings
from fac.synthesis.writer import SAMPLES, Writer

CHOSEN, COUNTS, FIRST_ROUND = "chosen.jsonl", "counts.json", "first_round.txt"
TOXIC_LABEL = "\t1"  # that the released prompts ask for behind a toxic query
WRITING = "writing"  # folder of what was written on the way


@dataclass(frozen=True)
class Generated:
    """What a method wrote; the examples themselves are read with `load_examples`."""

    samples: list[Sample]  # all of the last step, kept or not
    chosen: list[Sample]  # the samples behind the examples, in their order; none where nothing was written
    counts: Counts
    first_round: Path | None  # samples and activations of the last step's first round: as many for each method

    @classmethod
    def load(cls, schema: Schema[Any], folder: Path) -> Generated:
        first = (folder / FIRST_ROUND).read_text(encoding="utf-8")
        return cls(
            load_samples(schema, folder / SAMPLES),
            load_samples(schema, folder / CHOSEN),
            Counts(**json.loads((folder / COUNTS).read_text(encoding="utf-8"))),
            folder / first if first else None,
        )

    def written(self, schema: Schema[Any]) -> tuple[Pooled, NDArray[np.int64]] | None:
        """Activations of the first round, and the feature that each of their rows was written for, if for any."""
        if self.first_round is None:
            return None
        samples = load_samples(schema, self.first_round / SAMPLES)
        if any(sample.feature is None for sample in samples):
            return None
        return Pooled.load(self.first_round), written_for(samples)


def save_outcome(schema: Schema[Any], outcome: Outcome, folder: Path) -> None:
    """What `Generated.load` and `load_examples` read."""
    save_examples(schema, outcome.examples, folder)
    write_samples(schema, outcome.samples, folder / SAMPLES)
    write_samples(schema, outcome.chosen, folder / CHOSEN)
    (folder / COUNTS).write_text(json.dumps(asdict(outcome.counts)), encoding="utf-8")
    first = "" if outcome.written is None else str(outcome.written.folder.relative_to(folder))
    (folder / FIRST_ROUND).write_text(first, encoding="utf-8")


def synthesis(
    method: Method,
    mining: Mining,
    model: ChatModel,
    prompts: Prompts,
    schema: Schema[Any],
    settings: Settings,
    budget: int | None,
    seed_examples: Step,
    human_examples: Step,
    draw: Step,
    extras: Extras | None = None,
) -> Step:
    """Everything that a method writes and adds; `budget` None: all that there is (of human examples).

    `draw` holds what nothing may be written from (`HeldOut.load`). A method that writes nothing needs no model.
    `extras` are where methods that need more (`Method.needs`) find it. Raises FacError if the model's engine cannot
    write for the method.
    """
    more = steps_for(method.needs, mining, extras or Extras())
    needed = decided_by(method.needs, mining, settings)
    if not method.prompts:
        params = {"method": method.name, "schema": schema.name, "budget": budget, "seed": settings.seed, **needed}
        build = partial(_choose, method, mining if method.needs else None, schema, settings, budget)
        return Step("synthesis", build, params, (seed_examples, human_examples, *more))
    if method.engines and getattr(model, "engine", None) not in method.engines:
        raise FacError(
            f"The engine that writes cannot do what {method.name} asks for: choose "
            f"{' or '.join(f'llm={engine}' for engine in method.engines)}, or leave {method.name} out of the methods."
        )
    if "directions" in method.needs and getattr(model, "ref", None) != mining.encoder.model:
        raise FacError(
            f"{method.name} adds directions of the features of {mining.encoder.model.path} to the model that writes, "
            f"so that is the one to write with: leave llm.model and the writer as they are, or leave {method.name} out."
        )
    params = {
        "method": method.name,
        "schema": schema.name,
        "budget": budget,
        "writer": model,
        "prompts": {role: prompts.digest(role) for role in method.prompts},
        "rules": prompts.rules.digest,
        "settings": _deciding(settings, schema, method),
        "span_end": mining.encoder.settings.span_end,
        **needed,
    }
    inputs = (
        mining.wanted, mining.interpretations, seed_examples, human_examples, draw, mining.encoder.sae_step, *more,
    )  # fmt: skip
    build = partial(_generate, method, mining, model, prompts, schema, settings, budget)
    return Step("synthesis", build, params, inputs, resumable=True)


def _deciding(settings: Settings, schema: Schema[Any], method: Method) -> dict[str, Any]:
    """The settings that decide what the method writes; what is chosen of it and how it is answered are other steps'."""
    others = {*ELSEWHERE, *OF_SOME_METHODS} - {*method.settings}
    decided = {name: value for name, value in asdict(settings).items() if name not in others}
    return {**decided, "label_scored": _label_scored(settings, schema)}


def _label_scored(settings: Settings, schema: Schema[Any]) -> bool:
    return settings.label_scored and schema is QUERY


def _choose(
    method: Method,
    mining: Mining | None,
    schema: Schema[Any],
    settings: Settings,
    budget: int | None,
    folder: Path,
    seed: Path,
    human: Path,
    *more: Path,
) -> None:
    """Without a writer: examples that are there."""
    known, people = load_examples(schema, [seed]), load_examples(schema, [human])
    nothing = np.zeros(0, np.float32)
    most = max(len(known), len(people)) if budget is None else budget
    given = SynthesisInput(known, people, [], [], {}, nothing, nothing, most, settings)
    if mining is not None:
        given = replace(given, **loaded(method.needs, mining, schema, settings, more))
    save_outcome(schema, method.run(given, None), folder)  # type: ignore[arg-type]  # it writes nothing


def _generate(
    method: Method,
    mining: Mining,
    model: ChatModel,
    prompts: Prompts,
    schema: Schema[Any],
    settings: Settings,
    budget: int | None,
    folder: Path,
    missing: Path,
    interpretations: Path,
    seed: Path,
    human: Path,
    draw: Path,
    sae: Path,
    *more: Path,
) -> None:
    found, told = MissingFeatures.load(missing), load_interpretations(interpretations)
    if settings.summary == "analysis":
        told = with_analyses(told, interpretations)
    known, people = load_examples(schema, [seed]), load_examples(schema, [human])
    given = SynthesisInput(
        seed_examples=known,
        human_examples=people,
        interpretations=told,
        budget=len(people) if budget is None else budget,
        settings=settings,
        held_out=HeldOut.load(draw),
        **of_missing(found, settings),
        **loaded(method.needs, mining, schema, settings, more),
    )
    writer = Writer(
        folder=folder / WRITING,
        model=model,
        prompts=prompts,
        schema=schema,
        extractor=lambda: mining.encoder.extractor(sae),
        anchor_max=found.anchor_max,
        sampling=Sampling(settings.temperature, settings.top_p, settings.max_new_tokens),
        seed=settings.seed,
        span_tokens=settings.span_tokens,
        label=TOXIC_LABEL if _label_scored(settings, schema) else "",
    )
    outcome = method.run(given, writer)
    save_outcome(schema, replace(outcome, counts=replace(outcome.counts, **asdict(writer.spent()))), folder)
