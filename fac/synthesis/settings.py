"""How training data are written: the settings `synthesis.*` of every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fac.errors import FacError


@dataclass(frozen=True)
class Settings:
    """Counts of the paper's Alg. 1 and 2; the paper leaves n and m open, its code has 2 and 2."""

    n: int = 2  # candidates per feature in step 1
    m: int = 2  # candidates per feature in step 2
    spans: int = 3  # corpus spans shown in the step-1 prompt (App. C)
    temperature: float = 0.8
    top_p: float = 0.9
    max_new_tokens: int = 900
    answers: Literal["greedy", "drawn"] = "greedy"  # to written instructions; or drawn as these were
    span_tokens: int = 32
    seed: int = 42
    top_up: int = 3  # rounds of m more requests per feature, while a method has fewer samples than its budget
    # Ways of the released code (conf/parity says where they are found):
    pair: Literal["paper", "official"] = "paper"  # see `contrastive_pair`
    summary: Literal["explanation", "analysis"] = "explanation"  # what the writer is told of a feature
    filter: bool = True  # keep what activates its feature, best first; False: keep all, in random order
    label_scored: bool = False  # queries are encoded with the label that the writer put behind them
    ratio: float = 1.0  # share of the missing features that are written for, drawn by the seed

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise FacError(f"synthesis.ratio={self.ratio} will not do: it is a share, above 0 and at most 1.")
        if self.top_up < 0:
            raise FacError(f"synthesis.top_up={self.top_up} will not do: it is a number of rounds, 0 or more.")
