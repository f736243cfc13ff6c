"""fac.synthesis.methods: which features each row of the tables writes for, how often it asks, and what it adds."""

import json
import random
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.encoders import WIDTH, sentences
from support.writing import Echo

import fac.synthesis.methods as package
from fac.chat import as_chat
from fac.data.held_out import HeldOut
from fac.data.schemas import PAIR, QUERY, Query
from fac.interpret import Interpretation
from fac.llm.base import request_seed
from fac.pooled import Pooled
from fac.synthesis.contrast import contrastive_pair
from fac.synthesis.method import Outcome, finished
from fac.synthesis.methods import METHODS, collect
from fac.synthesis.methods.controls import full, seed_twice
from fac.synthesis.methods.fac import (
    STEP_ONE,
    STEP_TWO,
    fac,
    fac_one_step,
    prompts_one,
    prompts_two,
    random_features,
)
from fac.synthesis.replies import ParsedReply
from fac.synthesis.samples import HELD_OUT, REASONS, Counts, Sample, choose, count, draw, verify
from fac.synthesis.settings import Settings

SETTINGS = Settings(n=3, m=2, max_new_tokens=20, top_up=0)
EXAMPLES = [Query(f"example number {i}") for i in range(20)]
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
def given_at(synthesis_at, tmp_path, relevant, missing):
    """given_at(folder, ...): what methods are given, and a writer that says something else every time."""

    def at(folder="store", model=None, settings=SETTINGS, threshold=0.0, schema=QUERY, **changes):
        model = model or Echo(reply=fresh)
        given, writer = synthesis_at(tmp_path / folder, model, settings, schema, threshold)
        spans = {f: tuple(sentences(2, seed=f)) for f in range(WIDTH)}
        changes = {
            "interpretations": {f: Interpretation(f, spans[f], f"things like {spans[f][0]}") for f in range(WIDTH)},
            "missing": missing,
            "relevant": relevant,
            "seed_examples": EXAMPLES,
            "human_examples": EXAMPLES[::-1],
            **changes,
        }
        return replace(given, **changes), writer

    return at


def seeded(seed):
    return replace(SETTINGS, seed=seed)


def judged_alike(one, other):
    return replace(one, written=None) == replace(other, written=None)


def features_of(outcome):
    return sorted({sample.feature for sample in outcome.samples})


@pytest.mark.parametrize("method", [fac, fac_one_step])
def test_fac_writes_for_the_missing_features(given_at, missing, method):
    assert features_of(method(*given_at())) == missing


def test_random_features_are_drawn_from_all_relevant_ones_as_many_as_are_missing(given_at, relevant, missing):
    """The control that carries the comparison: what is missing plays no part in what it writes for."""
    drawn = {}
    for seed in (1, 2, 3):
        drawn[seed] = features_of(random_features(*given_at(f"store{seed}", settings=seeded(seed))))
        assert drawn[seed] == sorted(random.Random(seed).sample(sorted(relevant), 6))
        assert drawn[seed] != missing
    assert len(set(map(tuple, drawn.values()))) == 3
    others = sorted(relevant[1:13:2])
    assert features_of(random_features(*given_at("store1", settings=seeded(1), missing=others))) == drawn[1]
    assert features_of(random_features(*given_at("few", relevant=relevant[:4]))) == sorted(relevant[:4])


def test_every_method_asks_equally_often(given_at):
    """n + m requests for each of as many features, whoever chooses them."""
    for method in WRITING:
        model = Echo(reply=fresh)
        outcome = method(*given_at(method.__name__, model))
        per_feature = Counter(request.id.partition("-")[0] for request in model.asked)
        assert set(per_feature.values()) == {SETTINGS.n + SETTINGS.m}
        assert len(per_feature) == 6
        assert outcome.counts.requested + outcome.counts.candidates == len(model.asked)
        assert METHODS[method.__name__].requests(SETTINGS, 6, 10**6) == len(model.asked)  # what the doctor prices


def test_one_step_is_the_description_alone_and_two_steps_end_with_the_pairs(given_at, missing):
    one, two = (method(*given_at(method.__name__)) for method in (fac_one_step, fac))
    assert {(s.step, s.attempt) for s in one.samples} == {(1, a) for a in range(5)}
    assert {(s.step, s.attempt) for s in two.samples} == {(2, a) for a in range(2)}
    given, writer = given_at("fac")
    first = writer.write(STEP_ONE, prompts_one(given, missing, range(3)))
    assert next(s for s in one.samples if s.attempt < 3).reply == first.samples[0].reply  # the same requests
    second = writer.write(STEP_TWO, prompts_two(given, missing, first.samples, range(2)))
    alike = [replace(s, kept=False, rejected_because="") for s in two.samples]
    assert alike == [replace(s, rejected_because="") for s in second.samples]
    assert two.written is not None
    assert two.written.samples == second.samples
    assert two.counts.candidates == 18
    assert two.counts.refused_candidates == sum(s.rejected_because == "refusal" for s in first.samples) > 0
    assert two.counts.one_sided == sum(contrastive_pair(given, f, first.samples)[1] is None for f in missing)
    assert one.counts.candidates == one.counts.refused_candidates == one.counts.one_sided == 0


@pytest.mark.parametrize("method", WRITING)
def test_what_is_added_is_what_activates_its_feature_best_first_within_the_budget(given_at, method):
    free, writer = given_at()
    judged = verify(QUERY, method(free, writer).samples, free.thresholds.tolist())
    kept = [s for s in judged if s.kept]
    assert 3 < len(kept) < len(judged)
    assert all(s.is_active(0.0) for s in kept)
    for budget in (0, 1, 3, 10**6):
        outcome = method(replace(free, budget=budget), writer)
        assert outcome.samples == judged
        assert outcome.chosen == choose(judged, budget)
        assert outcome.examples == [s.example for s in outcome.chosen]
        assert len(outcome.examples) == min(budget, len(kept))
        assert (outcome.counts.added, outcome.counts.budget) == (len(outcome.examples), budget)
        assert replace(count(judged), added=len(outcome.examples), budget=budget) == replace(
            outcome.counts, candidates=0, refused_candidates=0, one_sided=0
        )
    threshold = float(np.float32(np.median([s.activation or 0.0 for s in kept])))
    higher = method(replace(free, thresholds=np.full(WIDTH, threshold, np.float32)), writer).samples
    assert {s.rejected_because for s in higher} <= {"", *REASONS}
    new = [s for s in higher if s.example and s.rejected_because != "repeats another"]
    assert all(s.kept == s.is_active(threshold) for s in new)
    assert "does not activate" in {s.rejected_because for s in higher}


@pytest.mark.parametrize("method", WRITING)
def test_below_its_budget_a_method_asks_again_until_it_has_it(given_at, method):
    """m more requests for each feature at a time, with seeds of their own, at most so many times."""
    alone = method(*given_at("alone"))
    have = alone.counts.kept
    topped = replace(SETTINGS, top_up=3)
    enough = method(*given_at("alone", settings=topped, budget=have))
    assert judged_alike(enough, replace(alone, counts=replace(alone.counts, budget=have)))

    outcome = method(*given_at("more", settings=topped, budget=have + 1))
    assert outcome.counts.rounds == 1
    assert outcome.counts.added == len(outcome.examples) == have + 1
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
    unwilling = Echo(limit=0)  # all of it is found again
    assert judged_alike(method(*given_at("more", unwilling, topped, budget=have + 1)), outcome)

    never = method(*given_at("never", settings=topped))
    assert never.counts.rounds == 3
    assert never.counts.requested == alone.counts.requested + 3 * SETTINGS.m * 6
    assert {s.attempt for s in never.samples} == set(range(first + 3 * SETTINGS.m))
    assert never.counts.added == never.counts.kept > have


@pytest.mark.parametrize("method", WRITING)
def test_where_nothing_is_missing_nothing_is_asked(given_at, method):
    model = Echo(reply=fresh)
    outcome = method(*given_at(model=model, settings=replace(SETTINGS, top_up=3), missing=[]))
    assert (outcome.examples, outcome.counts, model.asked) == ([], Counts(budget=10**6), [])


def test_what_was_written_in_a_later_round_repeats_what_was_written_in_an_earlier_one(given_at):
    same = replace(SETTINGS, top_up=2)
    outcome = fac_one_step(*given_at(model=Echo(reply=lambda seed: sentences(4, 1)[seed % 4]), settings=same))
    assert outcome.counts.kept <= 4
    assert outcome.counts.rounds == 2
    assert outcome.counts.repeated > outcome.counts.kept > 0


@pytest.mark.parametrize("method", WRITING)
def test_without_the_filter_what_can_be_read_is_drawn_by_the_seed(given_at, missing, method):
    """As the released code does: inactive or not, in any order, and never more than was written."""
    free = replace(SETTINGS, filter=False)
    given, writer = given_at(settings=free, threshold=1e9)
    outcome = method(given, writer)
    readable = [s for s in outcome.samples if s.example]
    assert outcome.counts.kept == len(outcome.examples) == len(readable)
    assert outcome.counts.inactive == 0
    lost = outcome.counts.refused + outcome.counts.unreadable
    assert lost == len(outcome.samples) - len(readable) > 0
    few = method(replace(given, budget=5), writer)
    assert few.chosen == draw(few.samples, 5, 42)
    other = replace(given, budget=5, settings=replace(free, seed=43), relevant=missing)  # the same are written
    assert method(other, writer).examples != method(replace(other, settings=free), writer).examples


def preference(seed):
    """A pair whose prompt is one of three."""
    prompt, *replies = PROMPTS[seed % 3], *sentences(2, seed)
    return json.dumps(dict(zip(("prompt", "chosen", "rejected"), (prompt, *replies), strict=True)))


@pytest.mark.parametrize("top_up", [0, 1])
@pytest.mark.parametrize("method", WRITING)
def test_what_asks_what_the_test_asks_is_not_kept(given_at, method, top_up):
    """Whatever its replies are, and in the first round as in a later one."""
    settings = replace(SETTINGS, top_up=top_up, filter=False)
    model, held_out = Echo(reply=preference), HeldOut.of([PROMPTS[0].upper()])
    outcome = method(*given_at(model=model, settings=settings, schema=PAIR, held_out=held_out))
    lost = [s for s in outcome.samples if PAIR.asked(s.example) == PROMPTS[0]]
    assert {s.rejected_because for s in lost} == {HELD_OUT}
    assert outcome.counts.in_the_test == len(lost) > 0
    assert outcome.counts.kept == len(outcome.examples) > 0
    assert set(map(PAIR.asked, outcome.examples)) == set(PROMPTS[1:])


@pytest.mark.parametrize(("method", "examples"), [(seed_twice, EXAMPLES), (full, EXAMPLES[::-1])])
def test_examples_that_exist_are_drawn_by_the_seed(given_at, method, examples):
    """Not the first ones: files are sorted by all manner of things."""
    drawn = {}
    for seed in (42, 43):
        outcome = method(*given_at(budget=5, settings=seeded(seed)))
        drawn[seed] = outcome.examples
        assert outcome.examples == [examples[i] for i in sorted(random.Random(seed).sample(range(20), 5))]
        assert outcome.counts == Counts(added=5, budget=5)
        assert outcome.samples == outcome.chosen == []
        assert outcome.written is None
    assert drawn[42] != drawn[43]
    assert examples[:5] not in drawn.values()
    for budget in (20, 30):
        outcome = method(*given_at(budget=budget))
        assert (outcome.examples, outcome.counts) == (examples, Counts(added=20, budget=budget))


def test_the_baseline_adds_nothing_and_the_rows_have_their_names(given_at):
    assert METHODS["baseline"].run(*given_at()) == Outcome([])
    assert set(METHODS) >= {"baseline", "seed_twice", "full", "random_features", "fac_one_step", "fac"}
    assert all(name == method.name for name, method in METHODS.items())
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


def test_a_writer_that_always_refuses_adds_nothing(given_at):
    for method in WRITING:
        model = Echo(reply=lambda seed: "I can't help with that.")
        outcome = method(*given_at(method.__name__, model, replace(SETTINGS, top_up=1)))
        assert outcome.examples == []
        assert outcome.counts.refused == outcome.counts.requested == len(outcome.samples) > 0
        assert outcome.counts.rounds == 1
        if method is not fac_one_step:
            assert outcome.counts.one_sided == 6
            assert outcome.counts.refused_candidates == outcome.counts.candidates == 18


def test_examples_that_could_not_be_finished_are_left_out_and_counted():
    examples = [Query(f"text {n}") for n in range(5)]
    samples = [Sample(n, 2, 0, example, "", "", "", 0, kept=True) for n, example in enumerate(examples)]
    outcome = Outcome(examples, samples, samples, counts=Counts(requested=5, kept=5, added=5, budget=9))
    done = [ParsedReply(Query("text 0, answered"))]
    done += [ParsedReply(None, reason) for reason in ("refusal", "cut off", "unreadable", "refusal")]
    left = finished(outcome, done)
    assert left.examples == [Query("text 0, answered")]
    assert left.chosen == samples[:1]
    assert left.samples == samples
    assert str(left.counts) == (
        "5 of 5 samples kept, 1 of 9 added; left out for their answers: 2 refused, 1 cut off, 1 empty"
    )
    assert finished(outcome, [ParsedReply(example) for example in examples]) == outcome
    people = Outcome(examples[:2], counts=Counts(added=2, budget=2))
    assert finished(people, [ParsedReply(example) for example in examples[:2]]) == people


IMITATION = '''
import random

from fac.synthesis.method import Method, fill
from fac.synthesis.writer import Prompt


def imitate(given, writer):
    """Few-shot imitation: each prompt shows three examples of the seed, drawn by the seed, and no feature."""

    def prompts(attempts):
        shown = [random.Random(f"{given.seed}/{n}").sample(given.seed_examples, 3) for n in attempts]
        texts = [[writer.schema.asked(example) for example in examples] for examples in shown]
        return [Prompt("imitate", {"texts": part}, None, n) for n, part in zip(attempts, texts)]

    return fill(given, writer, "imitating", prompts, given.budget, max(given.budget // 4, 1))


METHOD = Method("imitation", "Imitation", imitate, ("imitate",), lambda settings, features, budget: budget)
'''


@pytest.fixture
def imitation(tmp_path, monkeypatch):
    """A method that is nothing but a file in the folder of methods."""
    (tmp_path / "imitation.py").write_text(IMITATION)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    yield collect()["imitation"]
    monkeypatch.delitem(sys.modules, f"{package.__name__}.imitation")


def test_a_file_is_a_method(imitation, given_at):
    model = Echo(reply=fresh)
    given, writer = given_at(model=model, settings=replace(SETTINGS, top_up=2), budget=12)
    outcome = imitation.run(given, writer)
    counts = outcome.counts
    assert len(model.asked) == counts.requested == 12 + 3 * counts.rounds
    assert imitation.requests(given.settings, 6, 12) == 12
    assert 0 < counts.added == len(outcome.examples) <= 12
    assert outcome.examples == [s.example for s in outcome.samples if s.kept][:12]  # in the order of asking
    assert {(s.feature, s.activation) for s in outcome.samples} == {(None, None)}
    assert counts.refused > 0
    assert counts.inactive == 0
    for n, request in enumerate(model.asked):
        lines = request.messages[0]["content"].splitlines()
        shown = [example for example in EXAMPLES if f"- {example.text}" in lines]
        assert (len(shown), request.seed) == (3, request_seed(42, None, 1, n))
    again = imitation.run(*given_at(model=Echo(limit=0), settings=given.settings, budget=12))
    assert judged_alike(again, outcome)


def test_two_methods_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "again.py").write_text(IMITATION.replace('"imitation"', '"fac"'))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="two methods are called fac"):
        collect()
    monkeypatch.delitem(sys.modules, f"{package.__name__}.again")
