"""fac.own_gap: what an annotator says whatever it is shown is no explanation. (The steps: tests of fill and select.)"""

from __future__ import annotations

from fac.interpret import Interpretation
from fac.own_gap import distinct


def said(*explanations: str) -> dict[int, Interpretation]:
    return {n: Interpretation(n, ("a span",), text, "Yes", "Maybe") for n, text in enumerate(explanations)}


def test_what_is_said_of_many_features_alike_explains_none_of_them_nor_is_the_verdict_on_it_one():
    found = distinct(said("I am a helpful AI", "I am a helpful AI", "cards", "I am a helpful AI", "I am a helpful AI"))
    assert [about.explanation for about in found.values()] == ["", "", "cards", "", ""]
    assert [about.relevance for about in found.values()] == ["", "", "Maybe", "", ""]
    assert all(about.spans == ("a span",) for about in found.values())


def test_features_of_one_kind_may_be_called_the_same():
    """Three of four, and four of sixteen: no more than an SAE that splits one thing into several."""
    few, part = said("cards", "cards", "cards", "fees"), said(*["cards"] * 4, *map(str, range(12)))
    assert distinct(few) == few
    assert distinct(part) == part
    assert distinct(said(*["cards"] * 5, *map(str, range(12))))[0].explanation == ""
