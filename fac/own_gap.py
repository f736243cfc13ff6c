"""What one data set of one's own misses of another, and which of it matters: as an LLM says, as labels say, or all.

Unlike in `fac.gap.mine`, an LLM is asked about missing features alone, those first that most anchor texts activate: of
an SAE as wide as those of real models, explaining every feature would take days on a small machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fac.corpus_features import CorpusFeatures
from fac.errors import FacError
from fac.gap import (
    SOUGHT,
    InterpretSettings,
    Mining,
    MissingFeatures,
    Thresholds,
    find_missing,
    interpretations,
    judged_relevant,
    load_relevant,
    load_sought,
    relevant_by_labels,
)
from fac.interpret import Interpretation, load_interpretations, save_interpretations
from fac.llm.base import ChatModel
from fac.prompts import Prompts
from fac.store import Step

if TYPE_CHECKING:  # it loads models; what was found is read without
    from fac.encoder import FeatureEncoder

ALIKE = 4  # features of which one thing is said
Relevance = Literal["llm", "labels", "all"]
"""Who says which features matter: the LLM, from a description; labels of the anchor (`fac.relevance`); or all do."""


@dataclass(frozen=True)
class OwnGap:
    """The steps that find what one's own data miss."""

    encoder: FeatureEncoder
    anchor: Step  # corpora
    seed: Step
    anchor_features: Step
    seed_features: Step
    sought: Step  # the missing features, those first that most anchor texts activate (`load_sought`)
    # What an LLM says of them (`load_interpretations`), less what it says of many alike; None: it is asked nothing.
    told: Step | None
    wanted: Step  # `MissingFeatures.load`, at the threshold that is used: F is what is written or chosen for
    known: Step  # ... at every threshold: F is all that is known to be relevant

    @property
    def mining(self) -> Mining:
        """For what writes. Raises ValueError where nothing was explained."""
        if self.told is None:
            raise ValueError("nothing was explained, so nothing can be written")
        return Mining(
            self.encoder, self.anchor, self.seed, self.anchor_features, self.seed_features, self.told, self.wanted,
            self.known,
        )  # fmt: skip


def own_gap(
    encoder: FeatureEncoder,
    anchor: Step,
    seed: Step,
    relevance: Relevance,
    settings: InterpretSettings,
    thresholds: Thresholds,
    annotators: Mapping[str, ChatModel],
    prompts: Prompts | None,
    asked: int,
    wanted: int | None,
) -> OwnGap:
    """The steps from two corpora to the features that the seed misses and that matter.

    At most `asked` missing features are explained and, with relevance "llm", judged; `wanted` of them are written for
    at most. With `wanted` None all that are missing count, and an LLM is asked only if it judges. The anchor needs
    labels for relevance "labels".
    """
    measured, known = encoder.features(anchor), encoder.features(seed)
    by_labels = (relevant_by_labels(encoder, anchor, settings.fdr),) if relevance == "labels" else ()

    def found(swept: Thresholds) -> Step:
        params = {"thresholds": swept, "inputs": "labels" if by_labels else "all"}
        return Step("missing", partial(_find, swept), params, (measured, known, *by_labels))

    base, swept = found(thresholds.chosen), found(thresholds)
    judged = relevance == "llm"
    most = asked if judged or wanted is not None else None
    sought = Step("sought", partial(_seek, most), {"most": most}, (base,))
    corpora = (encoder, anchor, seed, measured, known)
    if not judged and wanted is None:
        return OwnGap(*corpora, sought, None, base, swept)
    roles = [role for role in settings.roles if judged or role == "explain"]
    assert prompts is not None, "an LLM is asked, with prompts"
    said = interpretations(encoder, measured, anchor, annotators, prompts, settings, among=sought, roles=roles)
    told = Step("distinct_interpretations", _distinct, {}, (said,))

    def narrowed(of: Step, count: int | None) -> Step:
        params = {"judged": judged, "verified": settings.verified and judged, "count": count}
        return Step("wanted", partial(_narrow, judged, settings.verified, count), params, (of, sought, told))

    return OwnGap(*corpora, sought, told, narrowed(base, wanted), narrowed(swept, None) if judged else swept)


def _find(thresholds: Thresholds, folder: Path, anchor: Path, seed: Path, labels: Path | None = None) -> None:
    found, known = CorpusFeatures.load(anchor), CorpusFeatures.load(seed)
    relevant = np.ones(found.pooled.n_features, np.bool_) if labels is None else load_relevant(labels)
    if not relevant.any():
        raise FacError(
            "No feature goes with the labels of the anchor: name an anchor with more labelled texts, raise "
            "interpret.fdr, or choose relevance=all."
        )
    find_missing(found, known, relevant, thresholds).save(folder)


def _seek(most: int | None, folder: Path, missing: Path) -> None:
    found = MissingFeatures.load(missing)
    lacking = np.flatnonzero(found.missing())
    if not len(lacking):
        raise FacError(
            f"The seed data miss nothing: they activate each of the {int(found.active().sum()):,} features that the "
            f"anchor activates above δ = {found.grid.thresholds[found.chosen]}. Raise thresholds.default, or name an "
            f"anchor that holds more."
        )
    often = found.anchor_counts[found.chosen][lacking]
    np.save(folder / SOUGHT, lacking[np.argsort(-often, kind="stable")][:most])


def _distinct(folder: Path, said: Path) -> None:
    told = distinct(load_interpretations(said))
    save_interpretations(told.values(), folder)


def distinct(told: Mapping[int, Interpretation]) -> dict[int, Interpretation]:
    """What was said, without explanations that small models give whatever they are shown ("I am a helpful AI").

    That is one which at least ALIKE features and more than a quarter of all share, word for word: it tells none of them
    from the others, so it counts as none, and the verdict on it, too.
    """
    shared = Counter(about.explanation for about in told.values())
    most = max(ALIKE - 1, len(told) // 4)
    return {
        feature: replace(about, explanation="", verification="", relevance="")
        if shared[about.explanation] > most
        else about
        for feature, about in told.items()
    }


def _narrow(
    judged: bool, verified: bool, count: int | None, folder: Path, missing: Path, sought: Path, told: Path
) -> None:
    """F without what the judge holds for irrelevant, and without all but the `count` features sought first."""
    found, ranked = MissingFeatures.load(missing), load_sought(sought)
    if judged:
        relevant = _judged(len(found.relevant), load_interpretations(told), verified)
        ranked = [feature for feature in ranked if relevant[feature]]
        if not ranked:
            raise FacError(
                f"The annotator holds none of the {len(load_sought(sought)):,} missing features that it was asked "
                f"about for relevant: describe the task in other words (task.description), ask about more of them "
                f"(experiment.features), or choose relevance=all."
            )
    narrow = np.zeros_like(found.relevant)
    narrow[ranked[:count]] = True
    replace(found, relevant=narrow).save(folder)


def _judged(width: int, told: Mapping[int, Interpretation], verified: bool) -> NDArray[np.bool_]:
    try:
        return judged_relevant(width, told, verified)
    except FacError as error:
        raise FacError(f"{str(error).rstrip('.')}, or do without a judge: relevance=labels or relevance=all.") from None
