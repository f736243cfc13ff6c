"""Which task-relevant features the seed data miss (paper eq. 4 to 6), as steps.

anchor, seed -> features -> interpretations -> missing features
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fac.corpus_features import CorpusFeatures
from fac.coverage import Grid, Threshold, active_features, counts, mean_activation, missing_features, threshold_grid
from fac.data.corpus import Corpus
from fac.errors import FacError
from fac.interpret import ROLES, Interpretation, check_verdicts, interpret_features, load_interpretations
from fac.llm.base import ChatModel, Sampling
from fac.prompts import Prompts
from fac.relevance import associated
from fac.store import Step

if TYPE_CHECKING:  # it loads models; what was found is read without
    from fac.encoder import FeatureEncoder

ARRAYS, RECORD, RELEVANT, SOUGHT = "gap.npz", "gap.json", "relevant.npy", "sought.npy"
TOKENS = "tokens.json"


@dataclass(frozen=True)
class InterpretSettings:
    """How features are explained and found relevant (paper App. K)."""

    spans: int = 10  # top spans shown to the explainer
    span_tokens: int = 32  # longest span
    max_new_tokens: int = 1024
    temperature: float = 0.0
    judge: Literal["llm", "statistical"] = "llm"  # the paper's, or fac.relevance on a labelled sample
    verified: bool = False  # also require that the explanation passed verification, as the released code does
    fdr: float = 0.01  # false discovery rate of the statistical judge
    # Which of the anchor's features are explained: all, or the missing ones alone, which the statistical judge knows
    # without an LLM. Of an SAE as wide as those of real models, all would take days on a small machine.
    explained: Literal["all", "missing"] = "all"
    seed: int = 42  # of the requests
    # What makes a relevant feature of the anchor missing: no seed text activates it (eq. 6), or, as in the released
    # code, the LLM does not find it relevant from its spans in the seed data (none: not relevant).
    missing: Literal["activation", "annotation"] = "activation"
    # What the annotator said is spoilt for a share of the missing features (`fac.noise`, paper Table 6).
    noise: Literal["none", "mislabel", "truncate", "mismatch"] = "none"
    noise_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        if self.explained == "missing" and not (self.judge == "statistical" and self.missing == "activation"):
            raise FacError(
                "interpret.explained=missing goes with interpret.judge=statistical and interpret.missing=activation: "
                "otherwise what is missing is known from the explanations."
            )

    @property
    def roles(self) -> tuple[str, ...]:
        """Which of ROLES are asked: a verification that decides nothing is not paid for."""
        return tuple(role for role in ROLES if role != "verify" or self.verified)


@dataclass(frozen=True)
class Thresholds:
    """The thresholds δ that are swept, and the one that synthesis uses."""

    absolute: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)
    relative: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    default: str = "0.0"

    def __post_init__(self) -> None:
        try:
            swept = [Threshold(v) for v in self.absolute] + [Threshold(v, relative=True) for v in self.relative]
        except FacError as error:
            raise FacError(f"thresholds.absolute, thresholds.relative: {error}") from None
        if len(set(swept)) < len(swept):
            raise FacError("thresholds.absolute or thresholds.relative names a threshold twice: leave one out.")
        try:
            default = Threshold.parse(self.default)
        except FacError as error:
            raise FacError(f"thresholds.default: {error}") from None
        if default not in swept:
            raise FacError(
                f"thresholds.default={self.default} is not one of the thresholds swept "
                f"({', '.join(map(str, swept))}): add it."
            )

    @property
    def chosen(self) -> Thresholds:
        """The default alone."""
        default = Threshold.parse(self.default)
        absolute, relative = ((), (default.value,)) if default.relative else ((default.value,), ())
        return Thresholds(absolute, relative, self.default)


@dataclass(frozen=True)
class MissingFeatures:
    """What the seed data miss, at every threshold. Arrays are over features; rows of `*_counts` follow `grid`."""

    grid: Grid
    chosen: int  # row of the threshold that synthesis uses
    anchor_counts: NDArray[np.int64]  # [thresholds, features], texts above the threshold
    seed_counts: NDArray[np.int64]  # [thresholds, features]
    anchor_max: NDArray[np.float32]
    anchor_mean: NDArray[np.float64]
    relevant: NDArray[np.bool_]  # F
    seed_relevant: NDArray[np.bool_] | None = None  # by the seed's own spans; None: missing by activation alone

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """δ_i of the chosen threshold."""
        return self.grid.cuts[self.chosen]

    def active(self, row: int | None = None) -> NDArray[np.bool_]:
        """F(P) at one threshold."""
        return active_features(self.anchor_counts[self.chosen if row is None else row], self.relevant)

    def missing(self, row: int | None = None) -> NDArray[np.bool_]:
        """F_miss at one threshold."""
        row = self.chosen if row is None else row
        seen = self.seed_counts[row]
        if self.seed_relevant is not None:
            seen = np.where(self.seed_relevant, seen, 0)
        return missing_features(self.anchor_counts[row], seen, self.relevant)

    def save(self, folder: Path) -> None:
        arrays = {
            "cuts": self.grid.cuts,
            "anchor_counts": self.anchor_counts,
            "seed_counts": self.seed_counts,
            "anchor_max": self.anchor_max,
            "anchor_mean": self.anchor_mean,
            "relevant": self.relevant,
        }
        if self.seed_relevant is not None:
            arrays["seed_relevant"] = self.seed_relevant
        np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
        told = {"thresholds": [str(threshold) for threshold in self.grid.thresholds], "chosen": self.chosen}
        (folder / RECORD).write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> MissingFeatures:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        with np.load(folder / ARRAYS) as file:
            arrays = dict(file)
        grid = Grid([Threshold.parse(text) for text in told["thresholds"]], arrays.pop("cuts"))
        return cls(grid, told["chosen"], **arrays)


def interpretations(
    encoder: FeatureEncoder,
    features: Step,
    corpus: Step,
    annotators: Mapping[str, ChatModel],
    prompts: Prompts,
    settings: InterpretSettings,
    only: Sequence[int] | None = None,
    among: Step | None = None,
    roles: Sequence[str] | None = None,
) -> Step:
    """Every feature (or those of `only`) that the texts activate, explained, verified (if that counts) and judged.

    `among` is a step that says which (`load_sought`), `roles` are those of ROLES that are asked where not all that
    count are. `load_interpretations` reads what the step writes.
    """
    asked = {role: annotators[role] for role in (settings.roles if roles is None else roles)}
    sampling = Sampling(settings.temperature, 1.0, settings.max_new_tokens)
    params = {
        "annotators": asked,
        "prompts": {role: prompts.digest(role) for role in asked},
        "spans": settings.spans,
        "span_tokens": settings.span_tokens,
        "span_end": encoder.settings.span_end,
        "sampling": sampling,
        "seed": settings.seed,
    }
    if only is not None:
        params["only"] = sorted(only)
    build = partial(_interpret, encoder, asked, prompts, settings, sampling, only)
    inputs = (features, corpus) if among is None else (features, corpus, among)
    return Step("interpret", build, params, inputs, resumable=True)


def _interpret(
    encoder: FeatureEncoder,
    annotators: Mapping[str, ChatModel],
    prompts: Prompts,
    settings: InterpretSettings,
    sampling: Sampling,
    only: Sequence[int] | None,
    folder: Path,
    features: Path,
    corpus: Path,
    among: Path | None = None,
) -> None:
    measured = CorpusFeatures.load(features)
    only = only if among is None else load_sought(among)
    alive = np.flatnonzero(measured.pooled.maxima() > 0).tolist()
    if only is not None:
        alive = sorted({*alive} & {*only})
    found = encoder.spans(Corpus.load(corpus), measured.tops, alive, settings.spans, settings.span_tokens)
    spans = {feature: [" ".join(span.text.split()) for span in strongest] for feature, strongest in found.items()}
    tokens = {f: [len(" ".join(s.text[s.start :].split())) for s in strongest] for f, strongest in found.items()}
    (folder / TOKENS).write_text(json.dumps(tokens), encoding="utf-8")
    interpret_features(annotators, prompts, spans, sampling, settings.seed, folder)


def load_sought(folder: Path) -> list[int]:
    """The features that a step found worth asking about, in its order."""
    return np.load(folder / SOUGHT).tolist()


def load_tokens(folder: Path) -> dict[int, list[int]]:
    """How many characters at the end of each span of `interpretations` are the activating token, for those who show it.

    Nothing of steps that were made before this was kept.
    """
    if not (folder / TOKENS).is_file():
        return {}
    told = json.loads((folder / TOKENS).read_text(encoding="utf-8"))
    return {int(feature): lengths for feature, lengths in told.items()}


@dataclass(frozen=True)
class Mining:
    """The steps that find what the seed data miss."""

    encoder: FeatureEncoder
    anchor: Step  # corpora
    seed: Step
    anchor_features: Step
    seed_features: Step
    interpretations: Step
    wanted: Step  # `MissingFeatures.load`, at the threshold that synthesis uses: all that writing hangs on
    missing: Step  # ... at every threshold


def mine(
    encoder: FeatureEncoder,
    anchor: Step,
    seed: Step,
    annotators: Mapping[str, ChatModel],
    prompts: Prompts,
    settings: InterpretSettings,
    thresholds: Thresholds,
    labelled: Step | None = None,
) -> Mining:
    """From two corpora to the features that the seed misses; the statistical judge needs texts that are `labelled`.

    Raises FacError where it has none.
    """
    measured, known = encoder.features(anchor), encoder.features(seed)

    def explained(features: Step, corpus: Step, how: InterpretSettings) -> Step:
        return interpretations(encoder, features, corpus, annotators, prompts, how)

    told = explained(measured, anchor, settings) if settings.explained == "all" else None
    inputs = {"anchor": measured, "seed": known} | ({} if told is None else {"interpretations": told})
    if settings.judge == "statistical":
        if labelled is None:
            raise FacError("interpret.judge=statistical needs a labelled sample: name one, or use the llm judge.")
        inputs |= {"labelled": encoder.features(labelled), "labels": labelled}
    if settings.missing == "annotation":
        inputs["seed_interpretations"] = explained(known, seed, replace(settings, judge="llm", verified=False))
    chosen = thresholds.chosen
    params = {
        "thresholds": chosen,
        "judge": settings.judge,
        "verified": settings.verified,
        "fdr": settings.fdr if settings.judge == "statistical" else None,
        "inputs": list(inputs),
    }
    wanted = Step("missing", partial(_find_missing, tuple(inputs), settings, chosen), params, tuple(inputs.values()))
    if told is None:
        sought = Step("sought", _seek, {"of": "missing"}, (wanted,))
        how = {"among": sought, "roles": ("explain",)}
        told = interpretations(encoder, measured, anchor, annotators, prompts, settings, **how)
    swept = {"thresholds": thresholds, "inputs": "wanted"}
    missing = Step("missing", partial(_sweep, thresholds), swept, (measured, known, wanted))
    return Mining(encoder, anchor, seed, measured, known, told, wanted, missing)


def relevant_by_labels(encoder: FeatureEncoder, labelled: Step, fdr: float) -> Step:
    """F by the statistical judge alone (`load_relevant`); `labelled` is a corpus with labels."""
    return Step("relevance", partial(_judge, fdr), {"fdr": fdr}, (encoder.features(labelled), labelled))


def _judge(fdr: float, folder: Path, features: Path, corpus: Path) -> None:
    found = associated_with(CorpusFeatures.load(features), Corpus.load(corpus).labels(), fdr)
    np.save(folder / RELEVANT, found)


def load_relevant(folder: Path) -> NDArray[np.bool_]:
    """What `relevant_by_labels` found; shape [width]."""
    return np.load(folder / RELEVANT)


def missing_as_relevant_to(
    encoder: FeatureEncoder, anchor: Step, seed: Step, relevant: Step, thresholds: Thresholds
) -> Step:
    """What the seed misses by this encoder, of the features that another step of mining found relevant.

    The two have the same SAE and differ in how activations are read, such as with Top-K on and off.
    """
    inputs = (encoder.features(anchor), encoder.features(seed), relevant)
    return Step("missing", partial(_find_of, thresholds), {"thresholds": thresholds, "inputs": "relevant"}, inputs)


def _seek(folder: Path, missing: Path) -> None:
    np.save(folder / SOUGHT, np.flatnonzero(MissingFeatures.load(missing).missing()))


def _sweep(thresholds: Thresholds, folder: Path, anchor: Path, seed: Path, wanted: Path) -> None:
    found, known = CorpusFeatures.load(anchor), CorpusFeatures.load(seed)
    at_one = MissingFeatures.load(wanted)
    find_missing(found, known, at_one.relevant, thresholds, at_one.seed_relevant).save(folder)


def _find_of(thresholds: Thresholds, folder: Path, anchor: Path, seed: Path, relevant: Path) -> None:
    found = MissingFeatures.load(relevant).relevant
    find_missing(CorpusFeatures.load(anchor), CorpusFeatures.load(seed), found, thresholds).save(folder)


def _find_missing(
    names: Sequence[str], settings: InterpretSettings, thresholds: Thresholds, folder: Path, *inputs: Path
) -> None:
    given = dict(zip(names, inputs, strict=True))
    anchor, seed = (CorpusFeatures.load(given[name]) for name in ("anchor", "seed"))
    if settings.judge == "llm":
        relevant = judged_relevant(
            anchor.pooled.n_features, load_interpretations(given["interpretations"]), settings.verified
        )
    else:
        labels = Corpus.load(given["labels"]).labels()
        relevant = associated_with(CorpusFeatures.load(given["labelled"]), labels, settings.fdr)
    seed_relevant = None
    if settings.missing == "annotation":
        told = load_interpretations(given["seed_interpretations"])
        seed_relevant = judged_relevant(anchor.pooled.n_features, told, verified=False)
    find_missing(anchor, seed, relevant, thresholds, seed_relevant).save(folder)


def judged_relevant(width: int, found: Mapping[int, Interpretation], verified: bool) -> NDArray[np.bool_]:
    """F by the LLM's verdicts; shape [width]. Raises FacError if no verdict can be read."""
    check_verdicts(found.values())
    relevant = np.zeros(width, np.bool_)
    relevant[[feature for feature, told in found.items() if told.is_relevant(verified)]] = True
    return relevant


def associated_with(
    labelled: CorpusFeatures, labels: NDArray[np.int64] | None, fdr: float, min_active: int = 5
) -> NDArray[np.bool_]:
    """F by `fac.relevance.associated`: features that fire more on texts labelled 1 than on others of their length.

    Shape [width]. Raises FacError if there are no labels, or all are alike.
    """
    if labels is None:
        raise FacError("interpret.judge=statistical needs a labelled sample: name one, or use the llm judge.")
    return associated(labelled.pooled, labels > 0, labelled.lengths, fdr=fdr, min_active=min_active).relevant


def find_missing(
    anchor: CorpusFeatures,
    seed: CorpusFeatures,
    relevant: NDArray[np.bool_],
    thresholds: Thresholds,
    seed_relevant: NDArray[np.bool_] | None = None,
) -> MissingFeatures:
    """F(P), F(Q) of the seed data and F_miss at every threshold (eq. 4-6), from one pass over each matrix.

    With `seed_relevant` [width], a feature that the seed activates is missing all the same unless it is set there.
    Raises FacError if no feature is relevant, or none of those is active on the anchor.
    """
    anchor_max = anchor.pooled.maxima()
    grid = threshold_grid(thresholds.absolute, thresholds.relative, anchor_max)
    default = Threshold.parse(thresholds.default)
    found = MissingFeatures(
        grid,
        grid.thresholds.index(default),
        counts(anchor.pooled, grid.cuts),
        counts(seed.pooled, grid.cuts),
        anchor_max,
        mean_activation(anchor.pooled),
        relevant,
        seed_relevant,
    )
    if not relevant.any():
        raise FacError(
            "The judge found no feature relevant to the task: name an anchor corpus that holds the task, another "
            "annotator or, for interpret.judge=statistical, more labelled texts."
        )
    if not found.active().any():
        raise FacError(
            f"No relevant feature of the anchor passes the threshold {default}: lower thresholds.default, "
            f"or name an anchor corpus that holds the task."
        )
    return found
