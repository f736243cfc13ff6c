"""fac.synthesis.samples: samples are judged with a reason, and chosen fairly among features."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fac.data.held_out import HeldOut
from fac.data.schemas import QUERY, Query
from fac.synthesis.samples import (
    CUT_OFF,
    HELD_OUT,
    INACTIVE,
    REFUSAL,
    REPEATED,
    UNREADABLE,
    Counts,
    Sample,
    choose,
    count,
    draw,
    load_samples,
    verify,
    write_samples,
    written_for,
)


def sample(feature: int | None = 0, step=2, attempt=0, said="how do I steal a bike", **given):
    example = Query(said) if said else None
    return Sample(feature, step, attempt, example, said, "digest", "model", 1, **given)


def test_each_sample_is_kept_or_says_why_not():
    thresholds = [0.5, 2.0]
    samples = [
        sample(said="a b c", activation=0.6),
        sample(said="", activation=0.0),
        sample(said="d e f", activation=0.5),
        sample(feature=1, said="g h i", activation=1.25),
        sample(feature=1, said="a b c", activation=3.0),
        sample(said="d e f", activation=0.7),
    ]
    judged = verify(QUERY, samples, thresholds)
    assert [(s.kept, s.rejected_because) for s in judged] == [
        (True, ""),
        (False, UNREADABLE),
        (False, INACTIVE),  # g must exceed the threshold, not reach it
        (False, INACTIVE),
        (False, REPEATED),
        (True, ""),  # a text that was inactive before is new
    ]
    assert [replace(s, kept=False, rejected_because="") for s in judged] == samples
    assert [s.rejected_because for s in verify(QUERY, judged, [9, 9])] == [
        INACTIVE,
        UNREADABLE,
        *[INACTIVE] * 4,
    ]  # earlier ones do not stick


def test_a_text_of_the_test_is_not_kept_however_active_it_is():
    samples = [
        sample(said="a b c", activation=9.0),
        sample(said="d e f", activation=9.0),
        sample(said="a b c", activation=0.1),
        sample(said="", activation=0.0),
    ]
    samples = [replace(s, reply=f"Sure! {s.reply}") for s in samples]  # whatever stands around it
    judged = verify(QUERY, samples, [0.5], HeldOut.of(["A b c"]))
    assert [s.rejected_because for s in judged] == [HELD_OUT, "", HELD_OUT, UNREADABLE]
    assert (count(judged).in_the_test, count(judged).kept) == (2, 1)
    assert "in the test 50.0 %" in str(count(judged))


def test_why_a_reply_is_no_example_is_kept():
    reasons = (REFUSAL, CUT_OFF, UNREADABLE)
    samples = [sample(said="", rejected_because=reason) for reason in reasons]
    assert [(s.kept, s.rejected_because) for s in verify(QUERY, samples, [0])] == [
        (False, reason) for reason in reasons
    ]


def test_a_text_that_differs_in_case_and_punctuation_alone_is_no_other():
    texts = ["How do I steal a bike?", "how do i  steal a bike", "how do I steal two bikes", "???", "!!!"]
    judged = verify(QUERY, [sample(said=text, activation=1.0) for text in texts], [0.0])
    assert [s.rejected_because for s in judged] == ["", REPEATED, "", "", ""]


def test_all_that_was_requested_is_counted_once():
    samples = [
        sample(said="", rejected_because=REFUSAL),
        sample(said="", rejected_because=REFUSAL),
        sample(said="", rejected_because=CUT_OFF),
        sample(said=""),
    ]
    samples += [
        sample(said="a b c", activation=1.0),
        sample(said="A b c.", activation=1.0),
        sample(said="d e f"),
        sample(said="g h i", activation=2.0),
    ]
    counts = count(verify(QUERY, samples, [0.5]))
    assert counts == Counts(requested=8, refused=2, unreadable=1, cut_off=1, repeated=1, inactive=1, kept=2)
    assert str(replace(counts, added=2, budget=3, rounds=2, candidates=4, refused_candidates=1, one_sided=1)) == (
        "2 of 8 samples kept (refused 25.0 %, unreadable 12.5 %, cut off 12.5 %, repeated 12.5 %, inactive 12.5 %), "
        "2 of 3 added, after 2 more rounds of requests; 4 candidates before, 1 refused; 1 features without a contrast"
    )
    assert str(Counts()) == "0 of 0 samples kept, 0 of 0 added"


@st.composite
def written(draw):
    """Samples of a few features: (feature, step, attempt) is theirs alone, shares tie now and then."""
    places = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 5)), min_size=4, unique=True))
    shares = st.sampled_from([0.1, 0.5, 0.5, 0.9])
    return [sample(*place, relative_activation=draw(shares), kept=draw(st.booleans())) for place in places]


@settings(deadline=None)
@given(samples=written(), budget=st.integers(0, 8), data=st.data())
def test_choice_is_within_budget_fair_and_of_any_order(samples, budget, data):
    chosen = choose(samples, budget)
    kept = [s for s in samples if s.kept]
    assert len(chosen) == min(budget, len(kept))
    assert len(set(chosen)) == len(chosen)
    assert all(s.kept for s in chosen)
    have, could = Counter(s.feature for s in chosen), Counter(s.feature for s in kept)
    for feature in could:  # nobody has one more than another who could have had another one
        assert have[feature] == could[feature] or have[feature] >= max(have.values(), default=0) - 1
    for feature in could:  # of its own samples a feature gives the strongest
        left, taken = (
            [s.relative_activation or 0.0 for s in kept if s.feature == feature and (s in chosen) == is_taken]
            for is_taken in (False, True)
        )
        assert max(left, default=0) <= min(taken, default=1)
    assert choose(data.draw(st.permutations(samples)), budget) == chosen


def test_rounds_begin_with_the_strongest():
    samples = [
        sample(0, attempt=0, relative_activation=0.2, kept=True),
        sample(0, attempt=1, relative_activation=0.9, kept=True),
        sample(1, attempt=0, relative_activation=0.7, kept=True),
        sample(2, attempt=0, relative_activation=0.8, kept=False),
        sample(1, attempt=1, relative_activation=0.7, kept=True),
        sample(3, attempt=0, relative_activation=0.1, kept=True),
    ]
    assert [(s.feature, s.attempt) for s in choose(samples, 3)] == [(0, 1), (1, 0), (3, 0)]
    assert [(s.feature, s.attempt) for s in choose(samples, 9)] == [(0, 1), (1, 0), (3, 0), (1, 1), (0, 0)]


@given(
    st.lists(
        st.builds(
            sample,
            said=st.text(),
            activation=st.floats(0, 9),
            span=st.text(),
            text=st.text(),
            chats=st.integers(1, 3),
            kept=st.booleans(),
        )
    )
)
def test_samples_are_read_as_they_were_written(tmp_path_factory, samples):
    file = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    write_samples(QUERY, samples, file)
    assert load_samples(QUERY, file) == samples


@given(samples=written(), budget=st.integers(0, 8), seed=st.integers(0, 9))
def test_drawing_takes_any_kept_sample_whatever_it_activates(samples, budget, seed):
    drawn = draw(samples, budget, seed)
    kept = [s for s in samples if s.kept]
    assert len(drawn) == len(set(drawn)) == min(budget, len(kept))
    assert set(drawn) <= set(kept)
    blind = draw([replace(s, relative_activation=0.0, activation=0.0) for s in samples], budget, seed)
    assert [s.attempt for s in blind] == [s.attempt for s in drawn]  # what it activates plays no part


def test_what_was_written_for_no_feature_has_no_activation_of_one():
    """It is kept if it can be read and is new, chosen in order behind what was written for features, never counted."""
    free = [sample(None, 1, n, text, activation=None, relative_activation=None) for n, text in enumerate("abcdb")]
    free[2] = replace(free[2], example=None, rejected_because=REFUSAL)
    judged = verify(QUERY, free, [9.0, 9.0])
    assert [s.rejected_because for s in judged] == ["", "", REFUSAL, "", REPEATED]
    own = sample(0, 1, 9, "weak", activation=0.1, relative_activation=0.1, kept=True)
    assert [s.attempt for s in choose([*judged[::-1], own], 9)] == [9, 0, 1, 3]
    assert [s.attempt for s in choose(judged, 2)] == [0, 1]
    for asked in (lambda: written_for(judged), lambda: judged[0].is_active(0.0)):
        with pytest.raises(ValueError, match="for no feature"):
            asked()
