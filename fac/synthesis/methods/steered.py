"""Steered writing: the missing feature's decoder direction is added to the model that writes. Not the paper's."""

from __future__ import annotations

from dataclasses import replace

from fac.llm.base import Shift
from fac.synthesis.method import Method, Outcome, SynthesisInput, fill
from fac.synthesis.methods.fac import STEP_ONE, prompts_one, requests
from fac.synthesis.writer import Prompt, Writer


def steered(given: SynthesisInput, writer: Writer) -> Outcome:
    """One step, with the requests and seeds of `fac_one_step`, while the feature's direction is added.

    Attempts go through the strengths in turn. A strength of 1 adds as much of the direction as the feature's largest
    activation on the anchor does.
    """
    found, strengths = given.directions(given.missing), given.settings.strengths
    place = {feature: row for row, feature in enumerate(given.missing)}

    def shift(prompt: Prompt) -> Shift:
        assert prompt.feature is not None
        strength = strengths[prompt.attempt % len(strengths)]
        length = strength * float(given.anchor_max[prompt.feature])
        return Shift(f"{prompt.feature} x {strength}", found.layer, length * found.vectors[place[prompt.feature]])

    def prompts(attempts: range) -> list[Prompt]:
        return [replace(prompt, shift=shift(prompt)) for prompt in prompts_one(given, given.missing, attempts)]

    return fill(given, writer, STEP_ONE, prompts, given.settings.n + given.settings.m, given.settings.m)


METHOD = Method(
    "steered",
    "Steered writing, one step",
    steered,
    ("write",),
    requests,
    needs=("directions",),
    settings=("strengths",),
    engines=("transformers",),
    note=(
        "Not the paper's: one step as FAC's, with the prompts that describe the feature, while the feature's decoder "
        "direction is added to the writer's residual stream at the SAE's layer, by the shares of its anchor maximum in "
        "synthesis.strengths in turn."
    ),
)
