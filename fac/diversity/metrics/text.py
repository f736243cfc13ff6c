"""Metrics of texts alone. Words are found without a tokenizer: which one the paper took is not known."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import chain

import numpy as np

from fac.diversity.metric import FIGURE_9, Metric, entropy

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?…]+(?=\s|$)|\n+")

ENTROPY = "arXiv 1809.05972"  # of n-grams


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores, joined over inner apostrophes and hyphens."""
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams / all n-grams of the set (n-grams do not cross texts); 0 if there is none."""
    grams = _ngrams(texts, n)
    return len(grams) / grams.total() if grams else 0.0


def ngram_entropy(texts: Sequence[str], n: int) -> float:
    """Shannon entropy, in bits, of the set's word n-grams; 0 if there is none."""
    return entropy(_ngrams(texts, n).values())


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes of the texts, one a line, / bytes that DEFLATE makes of them (higher = LESS diverse)."""
    data = "\n".join(texts).encode()
    return len(data) / len(zlib.compress(data, 9))


def mean_length(texts: Sequence[str]) -> float:
    """Mean number of words of a text."""
    return float(np.mean([len(words(text)) for text in texts]))


def first_words(texts: Sequence[str], count: int) -> list[str]:
    """The texts up to the word with which there are `count`, the last one cut behind it.

    Raises ValueError if they have fewer.
    """
    found: list[str] = []
    for text in texts:
        ends = [match.end() for match in _WORD.finditer(text)]
        found.append(text if len(ends) < count else text[: ends[count - 1]])
        count -= len(ends)
        if count <= 0:
            return found
    raise ValueError(f"the texts have {count} words too few")


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
    Metric("distinct_1", "Distinct-1", "words", partial(distinct, n=1), source="arXiv 1510.03055"),
    Metric("distinct_2", "Distinct-2", "words", partial(distinct, n=2), source="arXiv 1510.03055"),
    Metric("unigram_entropy", "Unigram entropy", "words", partial(ngram_entropy, n=1), "bits", source=ENTROPY),
    Metric("bigram_entropy", "Bigram entropy", "words", partial(ngram_entropy, n=2), "bits", source=ENTROPY),
    Metric(
        "compression_ratio", "Compression ratio", "words", compression_ratio,
        higher_is_diverse=False, source="arXiv 2403.00553",
    ),
    Metric("self_bleu_4", "Self-BLEU-4", "texts", self_bleu_4, higher_is_diverse=False, source="arXiv 1802.01886"),
    Metric(
        "mean_sentence_length", "Mean sentence length", "texts", mean_sentence_length, "words",
        higher_is_diverse=None, source=FIGURE_9,
    ),
    Metric("mean_length", "Mean length", "texts", mean_length, "words", higher_is_diverse=None),
)  # fmt: skip
