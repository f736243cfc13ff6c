"""fac.synthesis.methods: which features each row of the tables writes for, how often it asks, and what it adds."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.encoders import WIDTH, sentences
from support.writing import Echo

from fac.chat import as_chat
from fac.data.held_out import HeldOut
from fac.interpret import Reading
from fac.llm.base import request_seed
from fac.pooled import Pooled
from fac.synthesis.forms import PAIR
from fac.synthesis.methods import (
    METHODS,
    Material,
    Outcome,
    fac,
    fac_one_step,
    finished,
    full,
    random_features,
    seed_twice,
)
from fac.synthesis.samples import HELD_OUT, REASONS, Counts, Sample, choose, count, draw, verify
from fac.synthesis.two_step import Settings, one_sided, step_one, step_two

SETTINGS = Settings(n=3, m=2, max_new_tokens=20, top_up=0)
ROWS = [f"row number {i}" for i in range(20)]
PROMPTS = sentences(3, seed=7)
WRITING = (random_features, fac_one_step, fac)


def fresh(seed):
    """A sentence of its own for every request; one in three refuses."""
    return "I can't help with that request." if seed % 3 == 0 else sentences(1, seed)[0]


@pytest.fixture(scope="module")
def relevant(world, tmp_path_factory):
    """The 30 features that most texts activate, the most frequent first."""
    folder = tmp_path_factory.mktemp("anchor")
    world[1].extract([as_chat(text) for text in sentences(200, seed=9)], folder)
    pooled = Pooled.load(folder)
    often = sum((pooled.row(i) > 0).astype(int) for i in range(200))
    return np.argsort(-often, kind="stable")[:30].tolist()


@pytest.fixture
def missing(relevant):
    return sorted(relevant[:12:2])


@pytest.fixture
def material_at(desk_at, tmp_path, relevant, missing):
    """material_at(folder, ...): what methods are given, with a writer that says something else every time."""

    def at(folder="store", writer=None, settings=SETTINGS, budget=10**6, seed=42, cut=0.0, **given):
        desk, events = desk_at(tmp_path / folder, writer or Echo(reply=fresh), settings)
        spans = {f: tuple(sentences(2, seed=f)) for f in range(WIDTH)}
        desk = replace(desk, readings={f: Reading(f, spans[f], f"things like {spans[f][0]}") for f in range(WIDTH)})
        material = Material(desk, missing, relevant, np.full(WIDTH, cut, np.float32), ROWS, ROWS[::-1], budget, seed)
        return replace(material, **given), events

    return at


def judged_alike(one, other):
    return replace(one, written=None) == replace(other, written=None)


def features_of(outcome):
    return sorted({sample.feature for sample in outcome.samples})


@pytest.mark.parametrize("method", [fac, fac_one_step])
def test_fac_writes_for_the_missing_features(material_at, missing, method):
    assert features_of(method(material_at()[0])) == missing


def test_random_features_are_drawn_from_all_relevant_ones_as_many_as_are_missing(material_at, relevant, missing):
    """The control that carries the comparison: what is missing plays no part in what it writes for."""
    drawn = {}
    for seed in (1, 2, 3):
        drawn[seed] = features_of(random_features(material_at(f"store{seed}", seed=seed)[0]))
        assert drawn[seed] == sorted(random.Random(seed).sample(sorted(relevant), 6))
        assert drawn[seed] != missing
    assert len(set(map(tuple, drawn.values()))) == 3
    others = sorted(relevant[1:13:2])
    assert features_of(random_features(material_at("store1", seed=1, missing=others)[0])) == drawn[1]
    assert features_of(random_features(material_at("few", relevant=relevant[:4])[0])) == sorted(relevant[:4])


def test_every_method_asks_equally_often(material_at):
    """n + m requests for each of as many features, whoever chooses them."""
    for method in WRITING:
        writer = Echo(reply=fresh)
        outcome = method(material_at(method.__name__, writer)[0])
        per_feature = Counter(request.id.partition("-")[0] for request in writer.asked)
        assert set(per_feature.values()) == {SETTINGS.n + SETTINGS.m}
        assert len(per_feature) == 6
        assert outcome.counts.requested + outcome.counts.candidates == len(writer.asked)


def test_one_step_is_the_description_alone_and_two_steps_end_with_the_pairs(material_at, missing):
    one, two = (method(material_at(method.__name__)[0]) for method in (fac_one_step, fac))
    assert {(s.step, s.attempt) for s in one.samples} == {(1, a) for a in range(5)}
    assert {(s.step, s.attempt) for s in two.samples} == {(2, a) for a in range(2)}
    material, _ = material_at("fac")
    first = step_one(material.desk, missing, range(3))
    assert next(s for s in one.samples if s.attempt < 3).reply == first.samples[0].reply  # the same requests
    second = step_two(material.desk, missing, first, material.cut)
    assert [replace(s, kept=False, why="") for s in two.samples] == [replace(s, why="") for s in second.samples]
    assert two.written is not None
    assert two.written.samples == second.samples
    assert two.counts.candidates == 18
    assert two.counts.refused_candidates == sum(s.why == "refusal" for s in first.samples) > 0
    assert two.counts.one_sided == one_sided(material.desk, missing, first, material.cut)
    assert one.counts.candidates == one.counts.refused_candidates == one.counts.one_sided == 0


@pytest.mark.parametrize("method", WRITING)
def test_what_is_added_is_what_activates_its_feature_best_first_within_the_budget(material_at, method):
    free, _ = material_at()
    judged = verify(method(free).samples, free.cut.tolist())
    kept = [s for s in judged if s.kept]
    assert 3 < len(kept) < len(judged)
    assert all(s.g > 0 for s in kept)
    for budget in (0, 1, 3, 10**6):
        outcome = method(replace(free, budget=budget))
        assert outcome.samples == judged
        assert outcome.chosen == choose(judged, budget)
        assert outcome.rows == [s.row for s in outcome.chosen]
        assert len(outcome.rows) == min(budget, len(kept))
        assert (outcome.counts.added, outcome.counts.budget) == (len(outcome.rows), budget)
        assert replace(count(judged), added=len(outcome.rows), budget=budget) == replace(
            outcome.counts, candidates=0, refused_candidates=0, one_sided=0
        )
    cut = float(np.median([s.g for s in kept]))
    higher = method(replace(free, cut=np.full(WIDTH, cut, np.float32)))
    assert {s.why for s in higher.samples} <= {"", *REASONS}
    assert all(s.kept == (s.g > np.float32(cut)) for s in higher.samples if s.row and s.why != "repeats another")
    assert "does not activate" in {s.why for s in higher.samples}


@pytest.mark.parametrize("method", WRITING)
def test_below_its_budget_a_method_asks_again_until_it_has_it(material_at, method):
    """m more requests for each feature at a time, with seeds of their own, at most so many times."""
    alone = method(material_at("alone")[0])
    have = alone.counts.kept
    topped = replace(SETTINGS, top_up=3)
    enough = method(material_at("alone", settings=topped, budget=have)[0])
    assert judged_alike(enough, replace(alone, counts=replace(alone.counts, budget=have)))

    writer = Echo(reply=fresh)
    material, events = material_at("more", writer, topped, budget=have + 1)
    outcome = method(material)
    assert outcome.counts.rounds == 1
    assert outcome.counts.added == len(outcome.rows) == have + 1
    assert outcome.counts.requested == alone.counts.requested + SETTINGS.m * 6
    assert outcome.samples[: len(alone.samples)] == alone.samples
    first = len(alone.samples) // 6
    assert {s.attempt for s in outcome.samples[len(alone.samples) :]} == {first, first + 1}
    seeds = [s.seed for s in outcome.samples]
    assert len(set(seeds)) == len(seeds)
    for s in outcome.samples:
        assert s.seed == request_seed(42, s.feature, s.step, s.attempt)
    assert outcome.written is not None
    assert alone.written is not None
    assert outcome.written.samples == alone.written.samples  # the first round: as many requests for every method
    assert set(events) == {"started", "built"}

    unwilling = Echo(limit=0)  # all of it is found again
    again, later = material_at("more", unwilling, topped, budget=have + 1)
    assert judged_alike(method(again), outcome)
    assert set(later) == {"reused"}

    never = method(material_at("never", settings=topped, budget=10**6)[0])
    assert never.counts.rounds == 3
    assert never.counts.requested == alone.counts.requested + 3 * SETTINGS.m * 6
    assert {s.attempt for s in never.samples} == set(range(first + 3 * SETTINGS.m))
    assert never.counts.added == never.counts.kept > have


@pytest.mark.parametrize("method", WRITING)
def test_where_nothing_is_missing_nothing_is_asked(material_at, method):
    writer = Echo(reply=fresh)
    outcome = method(material_at(writer=writer, settings=replace(SETTINGS, top_up=3), missing=[])[0])
    assert (outcome.rows, outcome.counts, writer.asked) == ([], Counts(budget=10**6), [])


def test_what_was_written_in_a_later_round_repeats_what_was_written_in_an_earlier_one(material_at):
    same = replace(SETTINGS, top_up=2)
    outcome = fac_one_step(material_at(writer=Echo(reply=lambda seed: sentences(4, 1)[seed % 4]), settings=same)[0])
    assert outcome.counts.kept <= 4
    assert outcome.counts.rounds == 2
    assert outcome.counts.repeated > outcome.counts.kept > 0


@pytest.mark.parametrize("method", WRITING)
def test_without_the_filter_what_can_be_read_is_drawn_by_the_seed(material_at, missing, method):
    """As the released code does: inactive or not, in any order, and never more than was written."""
    free = replace(SETTINGS, filter=False)
    material, _ = material_at(settings=free, cut=1e9)
    outcome = method(material)
    readable = [s for s in outcome.samples if s.row]
    assert outcome.counts.kept == len(outcome.rows) == len(readable)
    assert outcome.counts.inactive == 0
    lost = outcome.counts.refused + outcome.counts.unreadable
    assert lost == len(outcome.samples) - len(readable) > 0
    few = method(replace(material, budget=5))
    assert few.chosen == draw(few.samples, 5, 42)
    other = replace(material, budget=5, seed=43, relevant=missing)
    assert method(other).rows != method(replace(other, seed=42)).rows


def preference(seed):
    """A pair whose prompt is one of three."""
    prompt, *replies = PROMPTS[seed % 3], *sentences(2, seed)
    return json.dumps(dict(zip(("prompt", "chosen", "rejected"), (prompt, *replies), strict=True)))


@pytest.mark.parametrize("top_up", [0, 1])
@pytest.mark.parametrize("method", WRITING)
def test_what_asks_what_the_test_asks_is_not_kept(material_at, method, top_up):
    """Whatever its replies are, and in the first round as in a later one."""
    settings = replace(SETTINGS, top_up=top_up, filter=False)
    material, _ = material_at(writer=Echo(reply=preference), settings=settings)
    held = replace(material, desk=replace(material.desk, form=PAIR), held_out=HeldOut.of([PROMPTS[0].upper()]))
    outcome = method(held)
    lost = [s for s in outcome.samples if json.loads(s.row)["prompt"] == PROMPTS[0]]
    assert {s.why for s in lost} == {HELD_OUT}
    assert outcome.counts.in_the_test == len(lost) > 0
    assert outcome.counts.kept == len(outcome.rows) > 0
    assert {json.loads(row)["prompt"] for row in outcome.rows} == set(PROMPTS[1:])


@pytest.mark.parametrize(("method", "rows"), [(seed_twice, ROWS), (full, ROWS[::-1])])
def test_rows_that_exist_are_drawn_by_the_seed(material_at, method, rows):
    """Not the first ones: files are sorted by all manner of things."""
    drawn = {}
    for seed in (42, 43):
        outcome = method(material_at(budget=5, seed=seed)[0])
        drawn[seed] = outcome.rows
        assert outcome.rows == [rows[i] for i in sorted(random.Random(seed).sample(range(20), 5))]
        assert outcome.counts == Counts(added=5, budget=5)
        assert outcome.samples == outcome.chosen == []
        assert outcome.written is None
    assert drawn[42] != drawn[43]
    assert rows[:5] not in drawn.values()
    for budget in (20, 30):
        assert method(material_at(budget=budget)[0]).rows == rows
        assert method(material_at(budget=budget)[0]).counts == Counts(added=20, budget=budget)


def test_the_baseline_adds_nothing_and_the_rows_have_their_names(material_at):
    assert METHODS["baseline"](material_at()[0]).rows == []
    assert list(METHODS) == ["baseline", "seed_twice", "full", "random_features", "fac_one_step", "fac"]


def test_a_writer_that_always_refuses_adds_nothing(material_at):
    for method in WRITING:
        writer = Echo(reply=lambda seed: "I can't help with that.")
        outcome = method(material_at(method.__name__, writer, replace(SETTINGS, top_up=1))[0])
        assert outcome.rows == []
        assert outcome.counts.refused == outcome.counts.requested == len(outcome.samples) > 0
        assert outcome.counts.rounds == 1
        if method is not fac_one_step:
            assert outcome.counts.one_sided == 6
            assert outcome.counts.refused_candidates == outcome.counts.candidates == 18


def test_rows_that_could_not_be_finished_are_none_and_are_counted():
    samples = [Sample(n, 2, 0, f"row {n}", "", "", "", 0, kept=True) for n in range(5)]
    rows = [s.row for s in samples]
    outcome = Outcome(rows, samples, samples, counts=Counts(requested=5, kept=5, added=5, budget=9))
    left = finished(outcome, ["", "refusal", "cut off", "unreadable", "refusal"])
    assert left.rows == ["row 0"]
    assert left.chosen == samples[:1]
    assert left.samples == samples
    assert str(left.counts) == (
        "5 of 5 samples kept, 1 of 9 added; left out for their answers: 2 refused, 1 cut off, 1 empty"
    )
    assert finished(outcome, [""] * 5) == outcome
    people = Outcome(["a", "b"], counts=Counts(added=2, budget=2))
    assert finished(people, ["", ""]) == people
