"""The rows of the tables: each method turns the same `Material` into training rows, within the same budget.

`Material` is all that a method may see: no test data, no ground truth. A new row is a function here (or in a module of
its own) and its name in METHODS.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fac.synthesis.samples import Sample, choose, draw
from fac.synthesis.two_step import Desk, Written, keep, step_one, step_two


@dataclass(frozen=True)
class Material:
    """What every method is given."""

    desk: Desk
    missing: Sequence[int]  # F_miss
    relevant: Sequence[int]  # F(P): task-relevant features that the anchor activates
    cut: np.ndarray  # activation cut per feature
    seed_rows: Sequence[str]  # what training starts from (toxicity: its positives); see fac.synthesis.forms
    human_rows: Sequence[str]  # what people wrote about everything; only `full` may use it
    budget: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a method adds to the training set, and all it wrote on the way."""

    rows: list[str]
    samples: list[Sample] = field(default_factory=list)  # everything written in the last step, kept or not
    chosen: list[Sample] = field(default_factory=list)  # the samples behind `rows`
    written: Written | None = None  # their activations


def baseline(_: Material) -> Outcome:
    """No synthetic data: the seed data alone."""
    return Outcome([])


def seed_twice(material: Material) -> Outcome:
    """The seed's rows a second time: a control for the number of training rows, not a method."""
    return Outcome(list(material.seed_rows[: material.budget]))


def full(material: Material) -> Outcome:
    """Human data about everything, as many as the budget (the paper's "Full Dataset" row)."""
    return Outcome(list(material.human_rows[: material.budget]))


def random_features(material: Material) -> Outcome:
    """Two-step synthesis for relevant features drawn at random, as many as are missing (Table 12, "SAE + random")."""
    count = min(len(material.missing), len(material.relevant))
    drawn = random.Random(material.seed).sample(sorted(material.relevant), count)
    return _two_step(material, sorted(drawn))


def fac_one_step(material: Material) -> Outcome:
    """Missing features, one step: the description alone, with the n + m requests of two steps (RQ2)."""
    settings = material.desk.settings
    written = step_one(material.desk, material.missing, range(settings.n + settings.m))
    return _outcome(material, written)


def fac(material: Material) -> Outcome:
    """FAC Synthesis: missing features, two steps (paper Alg. 1 and 2)."""
    return _two_step(material, material.missing)


METHODS: dict[str, Callable[[Material], Outcome]] = {
    method.__name__: method for method in (baseline, seed_twice, full, random_features, fac_one_step, fac)
}


def _two_step(material: Material, features: Sequence[int]) -> Outcome:
    first = step_one(material.desk, features, range(material.desk.settings.n))
    return _outcome(material, step_two(material.desk, features, first, material.cut))


def _outcome(material: Material, written: Written) -> Outcome:
    if material.desk.settings.filter:
        samples = keep(written, material.cut)
        chosen = choose(samples, material.budget)
    else:
        samples = keep(written, np.full_like(material.cut, -np.inf))  # whatever can be read and is new
        chosen = draw(samples, material.budget, material.seed)
    return Outcome([s.row for s in chosen], samples, chosen, written)
