"""FAC Synthesis (paper §2.4, Alg. 1 and 2): write for each feature, encode, pair best with worst, write again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from fac.synthesis.contrast import contrastive_pair, shown
from fac.synthesis.method import Method, Outcome, SynthesisInput, fill
from fac.synthesis.samples import REFUSAL, Sample
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Prompt, Writer

STEP_ONE, STEP_TWO = "writing, step 1", "writing, step 2"


def prompts_one(given: SynthesisInput, features: Sequence[int], attempts: range) -> list[Prompt]:
    """Step 1: the description and the spans of each feature, x ~ M(. | T(Desc_i))."""
    prompts = []
    for feature in features:
        about = given.interpretations[feature]
        values = {"summary": about.explanation, "spans": about.spans[: given.settings.spans]}
        prompts += [Prompt("write", values, feature, attempt, step=1) for attempt in attempts]
    return prompts


def prompts_two(
    given: SynthesisInput, features: Sequence[int], candidates: Sequence[Sample], attempts: range
) -> list[Prompt]:
    """Step 2: each feature's contrastive pair (eq. 9) among the `candidates` of step 1."""
    prompts = []
    for feature in features:
        good, bad = contrastive_pair(given, feature, candidates)
        values = {
            "summary": given.interpretations[feature].explanation,
            "good": shown(good, given.settings),
            "bad": bad and shown(bad, given.settings),
        }
        prompts += [Prompt("contrast", values, feature, attempt, step=2) for attempt in attempts]
    return prompts


def two_step(given: SynthesisInput, writer: Writer, features: Sequence[int]) -> Outcome:
    """n candidates for each feature, then m from each pair of them."""
    first = writer.write(STEP_ONE, prompts_one(given, features, range(given.settings.n)))
    m = given.settings.m
    outcome = fill(given, writer, STEP_TWO, lambda some: prompts_two(given, features, first.samples, some), m, m)
    one_sided = sum(contrastive_pair(given, feature, first.samples)[1] is None for feature in features)
    counts = replace(
        outcome.counts,
        candidates=len(first.samples),
        refused_candidates=sum(sample.rejected_because == REFUSAL for sample in first.samples),
        one_sided=one_sided,
    )
    return replace(outcome, counts=counts)


def fac(given: SynthesisInput, writer: Writer) -> Outcome:
    """FAC Synthesis: missing features, two steps (paper Alg. 1 and 2)."""
    return two_step(given, writer, given.missing)


def fac_one_step(given: SynthesisInput, writer: Writer) -> Outcome:
    """Missing features, one step: the description alone, with the n + m requests of two steps (RQ2)."""
    settings = given.settings
    first = settings.n + settings.m
    return fill(given, writer, STEP_ONE, lambda some: prompts_one(given, given.missing, some), first, settings.m)


def random_features(given: SynthesisInput, writer: Writer) -> Outcome:
    """Two-step synthesis for relevant features drawn at random, as many as are missing (Table 12, "SAE + random")."""
    size = min(len(given.missing), len(given.relevant))
    features = random.Random(given.seed).sample(sorted(given.relevant), size)
    return two_step(given, writer, sorted(features))


def requests(settings: Settings, features: int, budget: int) -> int:
    """n + m for each feature, in one step or in two."""
    return features * (settings.n + settings.m)


METHODS = (
    Method("random_features", "SAE + random features", random_features, ("write", "contrast"), requests),
    Method("fac_one_step", "FAC, one step", fac_one_step, ("write",), requests),
    Method("fac", "FAC, two steps (ours)", fac, ("write", "contrast"), requests),
)
