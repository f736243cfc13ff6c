"""The rows of the tables: each method turns the same `Material` into training rows, within the same budget.

`Material` is all that a method may see: of test data only digests, no ground truth. A new row is a function here (or in
a module of its own) and its name in METHODS. A method that writes and has fewer samples than the budget asks
again, at most `Settings.top_up` times m requests per feature, in stages of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fac.data.held_out import HeldOut
from fac.synthesis.forms import asked
from fac.synthesis.samples import CUT_OFF, REFUSAL, UNREADABLE, Counts, Sample, choose, count, draw, verify
from fac.synthesis.two_step import Desk, Written, one_sided, step_one, step_two


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
    held_out: HeldOut = field(default_factory=HeldOut)  # what is tested on: nothing of it is kept, nor can it be read


@dataclass(frozen=True)
class Outcome:
    """What a method adds to the training set, and all it wrote on the way."""

    rows: list[str]
    samples: list[Sample] = field(default_factory=list)  # everything written in the last step, kept or not
    chosen: list[Sample] = field(default_factory=list)  # the samples behind `rows`
    written: Written | None = (
        None  # the first round of the last step, with activations: as many requests for each method
    )
    counts: Counts = field(default_factory=Counts)


def baseline(_: Material) -> Outcome:
    """No synthetic data: the seed data alone."""
    return Outcome([])


def seed_twice(material: Material) -> Outcome:
    """Rows of the seed a second time: a control for the number of training rows, not a method."""
    return _drawn(material, material.seed_rows)


def full(material: Material) -> Outcome:
    """Human data about everything, as many as the budget (the paper's "Full Dataset" row)."""
    return _drawn(material, material.human_rows)


def random_features(material: Material) -> Outcome:
    """Two-step synthesis for relevant features drawn at random, as many as are missing (Table 12, "SAE + random")."""
    count = min(len(material.missing), len(material.relevant))
    drawn = random.Random(material.seed).sample(sorted(material.relevant), count)
    return _two_step(material, sorted(drawn))


def fac_one_step(material: Material) -> Outcome:
    """Missing features, one step: the description alone, with the n + m requests of two steps (RQ2)."""
    desk = material.desk
    first = desk.settings.n + desk.settings.m
    return _outcome(material, material.missing, first, lambda some: step_one(desk, material.missing, some))


def fac(material: Material) -> Outcome:
    """FAC Synthesis: missing features, two steps (paper Alg. 1 and 2)."""
    return _two_step(material, material.missing)


METHODS: dict[str, Callable[[Material], Outcome]] = {
    method.__name__: method for method in (baseline, seed_twice, full, random_features, fac_one_step, fac)
}


def finished(outcome: Outcome, why: Sequence[str]) -> Outcome:
    """What is left where some rows could not be finished: `why` has, in order, "" or a reason for every row."""
    kept = [not reason for reason in why]
    counts = replace(
        outcome.counts,
        added=sum(kept),
        answers_refused=why.count(REFUSAL),
        answers_cut_off=why.count(CUT_OFF),
        answers_empty=why.count(UNREADABLE),
    )
    rows = [row for row, keep in zip(outcome.rows, kept, strict=True) if keep]
    chosen = [sample for sample, keep in zip(outcome.chosen, kept, strict=True) if keep] if outcome.chosen else []
    return replace(outcome, rows=rows, chosen=chosen, counts=counts)


def _drawn(material: Material, rows: Sequence[str]) -> Outcome:
    """As many of the rows as the budget, drawn by the seed, in their own order."""
    count = min(material.budget, len(rows))
    drawn = sorted(random.Random(material.seed).sample(range(len(rows)), count))
    return Outcome([rows[i] for i in drawn], counts=Counts(added=count, budget=material.budget))


def _two_step(material: Material, features: Sequence[int]) -> Outcome:
    desk, cut = material.desk, material.cut
    first = step_one(desk, features, range(desk.settings.n))
    outcome = _outcome(material, features, desk.settings.m, lambda some: step_two(desk, features, first, cut, some))
    counts = replace(
        outcome.counts,
        candidates=len(first.samples),
        refused_candidates=sum(sample.why == REFUSAL for sample in first.samples),
        one_sided=one_sided(desk, features, first, cut),
    )
    return replace(outcome, counts=counts)


def _outcome(material: Material, features: Sequence[int], first: int, write: Callable[[range], Written]) -> Outcome:
    """What `write(attempts)` comes to: `first` attempts for each feature, and m more below the budget."""
    settings, budget = material.desk.settings, material.budget
    # Without the filter, whatever can be read and is new is kept.
    cut = material.cut if settings.filter else np.full_like(material.cut, -np.inf)

    def held_out(row: str) -> bool:
        return asked(material.desk.form, row) in material.held_out

    rounds = [write(range(first))]
    samples = verify(rounds[0].samples, cut.tolist(), held_out)
    while features and sum(s.kept for s in samples) < budget and len(rounds) <= settings.top_up:
        start = first + settings.m * (len(rounds) - 1)
        rounds.append(write(range(start, start + settings.m)))
        samples = verify([s for written in rounds for s in written.samples], cut.tolist(), held_out)
    chosen = choose(samples, budget) if settings.filter else draw(samples, budget, material.seed)
    counts = replace(count(samples), added=len(chosen), budget=budget, rounds=len(rounds) - 1)
    return Outcome([s.row for s in chosen], samples, chosen, rounds[0], counts)
