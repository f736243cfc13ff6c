"""How training data are written: the settings `synthesis.*` of every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fac.errors import FacError

OF_SOME_METHODS = (
    "rows",
    "votes",
    "novelty",
    "prefix",
    "strengths",
)  # what decides the rows of those alone that name it
ELSEWHERE = (
    "answers",
    "per_feature",
    "choose",
    "clusters",
    "proxy",
)  # settings that decide other steps than that of writing


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
    # Of the methods that name them (`Method.settings`); no other method's rows hang on them:
    rows: int = 5  # examples that one request asks for, where a method asks for a list
    votes: int = 8  # answers or votes by which a method sees whether the writer agrees with itself
    novelty: float = 0.7  # largest ROUGE-L to a seed or an earlier row; 1: no such filter
    prefix: Literal["bare", "template"] = "bare"  # of an open user's turn; template: with its own system turn
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0)  # of steering, as shares of a feature's maximum on the anchor
    proxy: str | None = None  # hub id or folder of the model whose gradients are taken; None: the run's own
    clusters: float = 1.0  # of embeddings, for each relevant feature that is active on the anchor (Table 12)
    ratio: float = 1.0  # share of the missing features that are written for, drawn by the seed
    # Which of the written samples are added (`fac.synthesis.selection`):
    per_feature: int | None = None  # at most so many of each feature, whatever the budget; None: as many as the budget
    # Each feature's strongest before any second one, or those that cover the missing features best with the weights of
    # this variant of FAC (Table 11)
    choose: Literal["strongest", "binary", "frequency", "magnitude"] = "strongest"

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise FacError(f"synthesis.ratio={self.ratio} will not do: it is a share, above 0 and at most 1.")
        if self.top_up < 0:
            raise FacError(f"synthesis.top_up={self.top_up} will not do: it is a number of rounds, 0 or more.")
        if self.rows < 1 or self.votes < 1:
            raise FacError("synthesis.rows and synthesis.votes are counts: set them to 1 or more.")
        if not self.strengths or min(self.strengths) <= 0:
            raise FacError(
                "synthesis.strengths are shares of a feature's maximum on the anchor: one at least, above 0."
            )
        if self.clusters <= 0:
            raise FacError(f"synthesis.clusters={self.clusters} will not do: it is a number of clusters above 0.")
        if not 0 < self.novelty <= 1:
            raise FacError(f"synthesis.novelty={self.novelty} will not do: it is a ROUGE-L, above 0 and at most 1.")
        if self.per_feature is not None and self.per_feature < 1:
            raise FacError(f"synthesis.per_feature={self.per_feature} will not do: it is 1 or more, or null.")
        if self.per_feature is not None and self.choose != "strongest":
            raise FacError("synthesis.per_feature takes each feature's strongest: leave out it or synthesis.choose.")
