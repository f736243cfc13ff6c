"""Metrics of texts alone. Words are found without a tokenizer: which one the paper took is not known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import chain

import numpy as np

from fac.diversity.metric import Metric, entropy

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?…]+(?=\s|$)|\n+")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores, joined over inner apostrophes and hyphens."""
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams / all n-grams of the set (n-grams do not cross texts); 0 if there is none."""
    grams = _ngrams(texts, n)
    return len(grams) / grams.total() if grams else 0.0


def bigram_entropy(texts: Sequence[str]) -> float:
    """Shannon entropy, in bits, of the set's word bigrams; 0 if there is none."""
    return entropy(_ngrams(texts, 2).values())


def self_bleu_4(texts: Sequence[str], *, at_most: int = 100, seed: int = 0) -> float:
    """Mean BLEU-4 in [0, 1] of each text against all others (higher = LESS diverse); smoothing method 1 of nltk.

    The cost is quadratic, so larger sets are represented by a random sample of `at_most` texts drawn with `seed`.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if len(texts) > at_most:
        picked = np.random.default_rng(seed).choice(len(texts), at_most, replace=False)
        texts = [texts[int(i)] for i in picked]
    tokens = [words(text) for text in texts]
    smooth = SmoothingFunction().method1
    scores = [
        sentence_bleu(tokens[:i] + tokens[i + 1 :], tokens[i], smoothing_function=smooth) for i in range(len(tokens))
    ]
    return float(np.mean(scores))


def mean_sentence_length(texts: Sequence[str]) -> float:
    """Mean number of words per sentence; a sentence ends at . ! ? … before white space, or at a line break."""
    lengths = [len(words(part)) for text in texts for part in _SENTENCE_END.split(text)]
    lengths = [length for length in lengths if length]
    return float(np.mean(lengths)) if lengths else 0.0


def _ngrams(texts: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    tokens = (words(text) for text in texts)
    return Counter(chain.from_iterable(zip(*(t[i:] for i in range(n)), strict=False) for t in tokens))


METRICS = (
    Metric("distinct_1", "Distinct-1", "texts", compute=partial(distinct, n=1)),
    Metric("distinct_2", "Distinct-2", "texts", compute=partial(distinct, n=2)),
    Metric("bigram_entropy", "Bigram entropy", "texts", compute=bigram_entropy, unit="bits"),
    Metric("self_bleu_4", "Self-BLEU-4", "texts", compute=self_bleu_4, higher_is_diverse=False),
    Metric("mean_sentence_length", "Mean sentence length", "texts", compute=mean_sentence_length, unit="words"),
)
