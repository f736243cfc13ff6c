"""Rows that nothing is written for: the seed data alone, twice, and what people wrote about everything."""

from __future__ import annotations

from fac.synthesis.method import Method, Outcome, SynthesisInput, existing
from fac.synthesis.writer import Writer


def baseline(_: SynthesisInput, __: Writer) -> Outcome:
    """No synthetic data: the seed data alone."""
    return Outcome([])


def seed_twice(given: SynthesisInput, _: Writer) -> Outcome:
    """Examples of the seed a second time: a control for the number of training rows, not a method."""
    return existing(given, given.seed_examples)


def full(given: SynthesisInput, _: Writer) -> Outcome:
    """Human data about everything, as many as the budget (the paper's "Full Dataset" row)."""
    return existing(given, given.human_examples)


METHODS = (
    Method("baseline", "Baseline (seed data)", baseline, adds=False),
    Method("seed_twice", "Seed data twice (control)", seed_twice, beside_seed=True),
    Method("full", "Full (human data)", full),
)
