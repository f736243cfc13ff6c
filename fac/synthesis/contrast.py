"""Contrastive pairs of samples (paper Alg. 1): what step 2 shows the writer of a feature, as the paper or its code."""

from __future__ import annotations

from collections.abc import Sequence

from fac.data.reply_text import plain
from fac.synthesis.method import SynthesisInput
from fac.synthesis.samples import Sample
from fac.synthesis.settings import Settings

OFFICIAL_SCORE = 5.0  # that the released code gives an anchor span


def contrastive_pair(given: SynthesisInput, feature: int, samples: Sequence[Sample]) -> tuple[Sample, Sample | None]:
    """(x+, x-): the candidates of `feature` with the largest and the smallest g_i.

    x+ must be active. Where no candidate is, the feature's strongest anchor span takes its place, as in the released
    code, and `step` 0 marks it. x- is another text than x+, and weaker; where no candidate is, there is None, and the
    prompt shows the good example alone. With `pair` "official" the rest is as in the released code, too: of two active
    candidates or more, the best and the SECOND best; else the anchor span, with a g of 5, and the weakest candidate.
    """
    own = [s for s in samples if s.feature == feature and s.example is not None]
    own.sort(key=lambda s: (-_activation(s), s.attempt))
    active = [s for s in own if s.is_active(float(given.thresholds[feature]))]
    if given.settings.pair == "official":
        second = next((s for s in active if _differ(s, active[0])), None)
        if second:
            return active[0], second
        anchor = _anchor(given, feature, OFFICIAL_SCORE)
        return anchor, next((s for s in reversed(own) if _differ(s, anchor)), None)
    best = active[0] if active else _anchor(given, feature, float(given.anchor_max[feature]))
    weaker = (s for s in reversed(own) if _differ(s, best) and _activation(s) < _activation(best))
    return best, next(weaker, None)


def shown(sample: Sample, settings: Settings) -> dict[str, object]:
    """What a prompt may show of an example; its score is out of 10, or g_i itself as in the released code."""
    score = sample.activation if settings.pair == "official" else 10 * (sample.relative_activation or 0.0)
    return {"text": sample.text, "span": sample.span, "score": round(score or 0.0, 1)}


def _anchor(given: SynthesisInput, feature: int, activation: float) -> Sample:
    span = given.interpretations[feature].spans[0]
    return Sample(
        feature, 0, 0, None, "", "", "", 0, activation=activation, relative_activation=1.0, span=span, text=span
    )


def _activation(sample: Sample) -> float:
    assert sample.activation is not None
    return sample.activation


def _differ(one: Sample, other: Sample) -> bool:
    return plain(one.text) != plain(other.text)
