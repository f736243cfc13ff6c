"""fac.synthesis.contrast: which two samples step 2 shows the writer, and how."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.writing import SETTINGS, Echo, step_one, step_two

from fac.data.schemas import Query
from fac.prompts import Prompts
from fac.synthesis.contrast import contrastive_pair
from fac.synthesis.methods.fac import prompts_two
from fac.synthesis.samples import Sample


def candidate(feature, attempt, activation, text, **given):
    example = Query(text) if text else None
    return Sample(feature, 1, attempt, example, text, "", "", 0, activation=activation, text=text, **given)


def test_a_pair_is_the_strongest_and_the_weakest_candidate(world, synthesis_at, tmp_path):
    given, _ = synthesis_at(tmp_path, Echo(), threshold=0.5)
    feature, other = list(world[3])[:2]
    samples = [candidate(feature, n, g, f"text {n}") for n, g in enumerate((0.7, 2.0, 0.1, 2.0))]
    noise = [candidate(feature, 4, 0.0, ""), candidate(other, 5, 9.0, "text 5"), candidate(other, 6, -1.0, "text 6")]
    assert contrastive_pair(given, feature, samples + noise) == (samples[1], samples[2])
    assert contrastive_pair(given, feature, (samples + noise)[::-1]) == (samples[1], samples[2])


def test_the_released_code_pairs_the_best_with_the_second_best(world, synthesis_at, tmp_path):
    given, _ = synthesis_at(tmp_path, Echo(), replace(SETTINGS, pair="official"), threshold=0.5)
    feature = next(iter(world[3]))
    span = world[3][feature].spans[0]

    def pair_of(*gs):
        samples = [candidate(feature, i, g, f"text {i}") for i, g in enumerate(gs)]
        good, bad = contrastive_pair(given, feature, samples)
        return (good.text, good.activation), bad and (bad.text, bad.activation)

    assert pair_of(0.1, 3.0, 0.7, 2.0) == (("text 1", 3.0), ("text 3", 2.0))
    assert pair_of(0.1, 3.0, 0.2) == ((span, 5.0), ("text 0", 0.1))  # one active candidate does not count
    assert pair_of(0.1, 0.5) == ((span, 5.0), ("text 0", 0.1))
    assert pair_of(0.1, 7.0) == ((span, 5.0), ("text 0", 0.1))
    assert pair_of(7.0) == ((span, 5.0), ("text 0", 7.0))
    assert pair_of() == ((span, 5.0), None)


def test_scores_are_shown_as_the_released_code_shows_them(world, synthesis_at, tmp_path):
    """Out of ten by default; g itself with its pairs."""
    feature, anchor_max = next(iter(world[3])), world[2]
    own = [
        candidate(feature, n, g, f"text {n}", relative_activation=g / float(anchor_max[feature]))
        for n, g in enumerate((3.04, 1.0, 0.2))
    ]
    strengths = [10 * g / float(anchor_max[feature]) for g in (3.04, 0.2)]
    for rule, scores in (("paper", strengths), ("official", [3.04, 1.0])):
        given, _ = synthesis_at(tmp_path / rule, Echo(), replace(SETTINGS, pair=rule))
        (prompt,) = prompts_two(given, [feature], own, range(1))
        values: Any = prompt.values
        assert [values[side]["score"] for side in ("good", "bad")] == [round(score, 1) for score in scores]


def test_a_pair_is_two_texts_or_the_good_one_alone(world, synthesis_at, tmp_path):
    """One readable candidate, or several of one text, show no difference to learn from."""
    feature = next(iter(world[3]))
    span = world[3][feature].spans[0]

    def texts(*candidates, rule="paper"):
        given, _ = synthesis_at(tmp_path, Echo(), replace(SETTINGS, pair=rule), threshold=0.5)
        samples = [candidate(feature, i, g, text) for i, (text, g) in enumerate(candidates)]
        good, bad = contrastive_pair(given, feature, samples)
        return good.text, bad and bad.text

    assert texts(("a b c", 2.0)) == ("a b c", None)
    assert texts(("a b c", 2.0), ("A  b c!", 0.1)) == ("a b c", None)  # the same but for case and punctuation
    assert texts(("a b c", 2.0), ("d e f", 0.1), ("a b c.", 0.0)) == ("a b c", "d e f")
    assert texts(("a b c", 2.0), ("d e f", 2.0)) == ("a b c", None)  # none of them is the weaker one
    assert texts() == (span, None)
    assert texts((span.upper(), 0.2)) == (span, None)
    assert texts((span.upper(), 0.2), ("d e f", 0.1)) == (span, "d e f")
    assert texts(("a b c", 3.0), ("A b c", 2.0), ("d e f", 1.0), rule="official") == ("a b c", "d e f")
    assert texts(("a b c", 3.0), ("A b c", 2.0), ("d e f", 0.1), rule="official") == (span, "d e f")
    assert texts((span.upper(), 0.2), rule="official") == (span, None)


@pytest.mark.parametrize("prompts", ["lab/toxicity", "paper/toxicity", "paper/reward"])
def test_without_a_second_text_the_prompt_shows_one(world, synthesis_at, tmp_path, prompts):
    feature = next(iter(world[3]))
    given, _ = synthesis_at(tmp_path, Echo())
    rendered = {}
    for texts in (["a good one"], ["a good one", "a weak one"]):
        own = [
            candidate(feature, n, 2.0 - n, text, relative_activation=0.9, span="good") for n, text in enumerate(texts)
        ]
        (prompt,) = prompts_two(given, [feature], own, range(1))
        rendered[len(texts)] = Prompts(prompts).render(prompt.role, **prompt.values)
    assert rendered[1].count("a good one") == rendered[2].count("a good one") == 1
    assert "a weak one" in rendered[2]
    for word in ("weak", "bad example", "difference", "None"):
        assert word not in rendered[1]


def test_without_an_active_candidate_the_strongest_anchor_span_is_the_good_one(world, synthesis_at, tmp_path):
    _, _, anchor_max, interpretations = world
    given, _ = synthesis_at(tmp_path, Echo(), threshold=0.5)
    feature = next(iter(interpretations))
    at_threshold = candidate(feature, 0, 0.5, "a b c")
    good, bad = contrastive_pair(given, feature, [at_threshold])
    assert (good.step, good.example) == (0, None)
    assert (good.text, good.span) == (interpretations[feature].spans[0], interpretations[feature].spans[0])
    assert good.activation == pytest.approx(anchor_max[feature])
    assert bad == at_threshold
    good, bad = contrastive_pair(given, feature, [candidate(feature, 0, 0.0, "")])
    assert (good.step, bad) == (0, None)

    model = Echo()
    given, writer = synthesis_at(tmp_path, model, threshold=np.inf)
    first = step_one(given, writer, list(interpretations), range(2))
    model.asked.clear()
    step_two(given, writer, list(interpretations), first)
    for request in model.asked:
        span = interpretations[int(request.id.split("-")[0])].spans[0]
        assert f"good example: {span}" in request.messages[0]["content"]
