"""Whether a text is unlike all that is there: the ROUGE-L rule of Self-Instruct (arXiv 2212.10560)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any


class Novelty:
    """Texts, and whether another one is like one of them: ROUGE-L (F-measure, no stemmer) above `limit`; 1: none is.

    rouge-score splits texts at all but the letters a-z and digits: in other scripts nothing is like anything.
    """

    def __init__(self, limit: float, texts: Iterable[str] = ()) -> None:
        self.limit = limit
        self._texts = [(text, Counter(_words(text))) for text in texts] if limit < 1 else []

    def is_new(self, text: str) -> bool:
        """Whether no text so far is like this one."""
        words = Counter(_words(text)) if self._texts else Counter[str]()
        return not any(
            # The longest common subsequence holds no more words than both have: most need not be compared.
            2 * (words & other).total() > self.limit * (words.total() + other.total())
            and self.likeness(held, text) > self.limit
            for held, other in self._texts
        )

    def add(self, text: str) -> None:
        """Compare later texts with this one, too."""
        if self.limit < 1:
            self._texts.append((text, Counter(_words(text))))

    def likeness(self, one: str, other: str) -> float:
        """ROUGE-L of two texts, a fraction."""
        return self._scorer.score(one, other)["rougeL"].fmeasure

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"], tokenizer=_Split())


class _Split:
    """What rouge-score's own tokenizer gives, each text split once."""

    def tokenize(self, text: str) -> tuple[str, ...]:
        return _words(text)


@lru_cache(maxsize=100_000)
def _words(text: str) -> tuple[str, ...]:
    from rouge_score.tokenizers import DefaultTokenizer

    return tuple(DefaultTokenizer(use_stemmer=False).tokenize(text))
