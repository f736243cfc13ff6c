"""The paper's algorithm on one page: the stages in order, each through the store.

    corpus -> measure -> interpret -> find_gap -> (fac.synthesis) -> (fac.train) -> (eval)
    |______________ mine ______________|

Heavy things (the backbone, the SAE, the LLM) are loaded only if a stage is not in the store yet.
"""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from fac.backbone import Backbone, ModelRef, load_tokenizer, model_depth
from fac.coverage import Grid, Threshold, active_features, counts, mean_activation, missing_features, threshold_grid
from fac.data.corpus import Corpus, write_corpus, write_examples
from fac.data.examples import Example, LoadReport
from fac.data.files import fingerprint
from fac.data.held_out import HeldOut
from fac.data.schemas import QUERY, Schema
from fac.data.source import Source
from fac.errors import FacError
from fac.features import LENGTHS, Extractor, FeatureSettings, Tops, cut_note, span_of
from fac.interpret import ROLES, Interpretation, check_verdicts, interpret_features, load_interpretations, with_analyses
from fac.llm.base import ChatModel, Sampling
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.relevance import associated
from fac.sae import SaeRef, TrainSettings, load, recipe, recorded_layer, train
from fac.sae.checkpoint import find_checkpoint, import_checkpoint
from fac.sae.recipe import OnStep, RecipeSettings
from fac.store import Artifact, Store
from fac.synthesis.method import SynthesisInput
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Writer

TOXIC_LABEL = "\t1"  # that the released prompts ask for behind a toxic query


@dataclass(frozen=True)
class ReadSettings:
    """How features are interpreted and found relevant (paper App. K)."""

    spans: int = 10  # top spans shown to the explainer
    span_tokens: int = 32  # longest span
    max_new_tokens: int = 1024
    temperature: float = 0.0
    judge: Literal["llm", "statistical"] = "llm"  # the paper's, or fac.relevance on a labelled sample
    verified: bool = False  # also require that the explanation passed verification, as the released code does
    fdr: float = 0.01  # statistical judge
    seed: int = 42
    # What makes a relevant feature of the anchor missing: no seed text activates it (eq. 6), or, as in the released
    # code, the LLM does not find it relevant from its spans in the seed data (none: not relevant).
    missing: Literal["activation", "annotation"] = "activation"

    @property
    def roles(self) -> tuple[str, ...]:
        """Which of ROLES are asked: a verification that decides nothing is not paid for."""
        return tuple(role for role in ROLES if role != "verify" or self.verified)


@dataclass(frozen=True)
class Thresholds:
    """The sweep, and the threshold that synthesis uses."""

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


@dataclass(frozen=True)
class Measured:
    """A corpus and its activations."""

    corpus: Corpus
    pooled: Pooled
    tops: Tops
    lengths: NDArray[np.int32]  # content tokens of each text that were measured
    artifact: Artifact

    @property
    def cut(self) -> int:
        """How many texts were longer than what is measured (features.max_tokens)."""
        return int(self.pooled.meta["cut"])

    def note(self, name: str) -> str:
        """What a table says of the texts that were cut; empty if none was."""
        return cut_note(name, self.cut, self.pooled.n_texts, int(self.pooled.meta["max_tokens"]))


@dataclass(frozen=True)
class FeatureSpan:
    """Where a feature is strong: `text[start:]` is the activating token, `value` its g_i."""

    text: str
    start: int
    value: float


@dataclass(frozen=True)
class Gap:
    """What the seed data miss. Arrays over features; rows of `*_counts` follow `grid.thresholds`."""

    anchor: Measured
    seed: Measured
    grid: Grid
    anchor_counts: NDArray[np.int64]
    seed_counts: NDArray[np.int64]
    anchor_max: NDArray[np.float32]
    anchor_mean: NDArray[np.float64]
    relevant: NDArray[np.bool_]  # F
    at: int  # row of the threshold that synthesis uses
    interpretations: Mapping[int, Interpretation] = field(default_factory=dict)
    seed_relevant: NDArray[np.bool_] | None = None  # by the seed's own spans; None: missing by activation alone

    @property
    def cut(self) -> NDArray[np.float32]:
        """δ of each feature, [n_features]."""
        return self.grid.cuts[self.at]

    def notes(self) -> list[str]:
        """What a table says of the texts that were measured in part."""
        return [note for name in ("anchor", "seed") if (note := getattr(self, name).note(name))]

    def active(self, row: int | None = None) -> NDArray[np.bool_]:
        """F(P) at one threshold."""
        return active_features(self.anchor_counts[self.at if row is None else row], self.relevant)

    def missing(self, row: int | None = None) -> NDArray[np.bool_]:
        """F_miss at one threshold."""
        row = self.at if row is None else row
        seen = self.seed_counts[row]
        if self.seed_relevant is not None:
            seen = np.where(self.seed_relevant, seen, 0)
        return missing_features(self.anchor_counts[row], seen, self.relevant)


class Workshop:
    """The store, and the tools of one run, loaded when first needed."""

    def __init__(
        self,
        store: Store,
        model: ModelRef,
        sae: SaeRef | TrainSettings | RecipeSettings,
        layer: int | None,
        features: FeatureSettings,
        sae_texts: Artifact | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        """`sae` is an SAE that exists, or how to train one on the texts of the corpus `sae_texts` first.

        `layer` None is the layer that the SAE was trained on; for one to be trained, half the model's depth (App. J).
        `on_step` watches a training by the paper's recipe. One of the paper's checkpoints is imported first.
        """
        self.store, self.model, self.features = store, model, features
        if not isinstance(sae, SaeRef):
            if sae_texts is None:
                raise FacError("There are no texts to train the SAE on: name an SAE that exists with sae.path=DIR.")
            self.layer = layer if layer is not None else max(model_depth(model) // 2, 1)
            self.sae = SaeRef(path=str(self._train_sae(sae, sae_texts, on_step).path))
        else:
            self.sae = self._imported(sae)
            recorded = recorded_layer(self.sae)
            if recorded is None and layer is None:
                raise FacError(f"The SAE {sae} does not say which layer it was trained on: set sae.layer.")
            if None not in (recorded, layer) and recorded != layer:
                raise FacError(
                    f"The SAE {sae} was trained on layer {recorded}, not on layer {layer} (sae.layer): leave sae.layer "
                    f"out, name another SAE, or use sae=train."
                )
            self.layer = int(recorded or layer or 0)

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone(self.model, self.layer)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.model)

    @cached_property
    def extractor(self) -> Extractor:
        return Extractor(self.backbone, load(self.sae, self.backbone, self.features.rule), self.features)

    def release(self) -> None:
        """Give back the memory of model and SAE; they are loaded anew if something is left to measure."""
        for name in ("extractor", "backbone"):
            self.__dict__.pop(name, None)
        gc.collect()  # hooks of a model refer to it
        torch.cuda.empty_cache()

    @cached_property
    def encoder(self) -> dict[str, object]:
        """What decides activations, for store keys."""
        settings = self.features
        return {
            "model": self.model.identity(),
            "sae": self.sae.identity(),
            "layer": self.layer,
            "rule": settings.rule,
            "max_tokens": settings.max_tokens,
            "shift": settings.shift,
            "double_bos": settings.double_bos,
        }

    def _train_sae(self, settings: TrainSettings | RecipeSettings, texts: Artifact, on_step: OnStep | None) -> Artifact:
        paper = isinstance(settings, RecipeSettings)

        def build(folder: Path) -> None:
            corpus = Corpus.load(texts.path)
            if isinstance(settings, RecipeSettings):
                recipe.train(self.backbone, lambda i: corpus[i].messages, len(corpus), settings, folder, on_step)
            else:
                train(self.backbone, lambda: (example.messages for example in corpus), settings, folder)

        decides = {"recipe": "paper", **settings.identity()} if paper else asdict(settings)
        params = {"model": self.model.identity(), "layer": self.layer, **decides}
        return self.store.stage("sae", build, params=params, inputs=[texts], resumable=paper)

    def _imported(self, sae: SaeRef) -> SaeRef:
        """The SAE in SAELens format: one of the paper's checkpoints is converted, once per content."""
        checkpoint = find_checkpoint(sae)
        if checkpoint is None:
            return sae
        params = {"checkpoint": checkpoint.identity(), "layer": checkpoint.layer}
        made = self.store.stage("sae", lambda folder: import_checkpoint(checkpoint, folder), params=params)
        return SaeRef(path=str(made.path))


def corpus_of(store: Store, source: Source) -> tuple[Artifact, LoadReport]:
    """The data set `source` as a corpus; keyed by the bytes of its files and how they are read."""
    artifact = store.stage("corpus", lambda folder: _ignore(write_corpus(source, folder)), params=fingerprint(source))
    return artifact, LoadReport(**json.loads((artifact.path / "report.json").read_text()))


def computed_corpus(
    store: Store, name: str, draw: Callable[[], Iterable[Example]], params: Mapping[str, object]
) -> Artifact:
    """Texts that are computed, as a corpus; `params` must decide them."""
    return store.stage(name, lambda folder: write_examples(draw(), folder), params=params)


def measure(shop: Workshop, corpus: Artifact) -> Measured:
    """g_i of every text of a corpus, and each feature's top spans."""
    texts = Corpus.load(corpus.path)

    def build(folder: Path) -> None:
        shop.extractor.extract((example.messages for example in texts), folder, len(texts))

    params = {**shop.encoder, "top_spans": shop.features.top_spans}
    artifact = shop.store.stage("features", build, params=params, inputs=[corpus])
    lengths = np.load(artifact.path / LENGTHS)
    return Measured(texts, Pooled.load(artifact.path), Tops.load(artifact.path), lengths, artifact)


def spans_of(
    shop: Workshop, measured: Measured, features: Sequence[int], count: int, length: int
) -> dict[int, list[FeatureSpan]]:
    """Each feature's top `count` spans of at most `length` tokens, strongest first. Needs the tokenizer only."""
    tops = measured.tops
    spans: dict[int, list[FeatureSpan]] = {int(f): [] for f in features}
    for f, found in spans.items():
        for text, token, value in zip(
            tops.texts[f, :count], tops.tokens[f, :count], tops.values[f, :count], strict=True
        ):
            if text >= 0:
                span = span_of(shop.tokenizer, measured.corpus[int(text)].messages, int(token), length, shop.features)
                found.append(FeatureSpan(span.text, span.start, float(value)))
    return spans


def interpret(
    shop: Workshop, anchor: Measured, annotators: Mapping[str, ChatModel], prompts: Prompts, settings: ReadSettings
) -> tuple[Artifact, dict[int, Interpretation]]:
    """Explain and judge every feature that the texts (the anchor's, as a rule) activate; verify it if that counts."""
    asked = {role: annotators[role] for role in settings.roles}
    sampling = Sampling(settings.temperature, 1.0, settings.max_new_tokens)

    def build(folder: Path) -> None:
        alive = np.flatnonzero(anchor.pooled.maxima() > 0)
        found = spans_of(shop, anchor, alive.tolist(), settings.spans, settings.span_tokens)
        spans = {feature: [" ".join(span.text.split()) for span in spans] for feature, spans in found.items()}
        interpret_features(asked, prompts, spans, sampling, settings.seed, folder)

    params = {
        "annotators": {role: annotator.identity for role, annotator in asked.items()},
        "prompts": {role: prompts.digest(role) for role in asked},
        "spans": settings.spans,
        "span_tokens": settings.span_tokens,
        "sampling": sampling,
        "seed": settings.seed,
        "span_end": shop.features.span_end,
    }
    artifact = shop.store.stage("interpret", build, params=params, inputs=[anchor.artifact], resumable=True)
    return artifact, load_interpretations(artifact.path)


def relevant_features(
    width: int, interpretations: Mapping[int, Interpretation], settings: ReadSettings, labelled: Measured | None = None
) -> NDArray[np.bool_]:
    """F, the task-relevant features, by the judge that `settings.judge` names; shape [width]."""
    if settings.judge == "llm":
        check_verdicts(interpretations.values())
        relevant = np.zeros(width, np.bool_)
        relevant[[f for f, said in interpretations.items() if said.is_relevant(settings.verified)]] = True
        return relevant
    if settings.judge != "statistical":
        raise FacError(f"interpret.judge={settings.judge} is unknown: choose llm or statistical.")
    found = None if labelled is None else relevant_to_labels(labelled, settings.fdr)
    if found is None:
        raise FacError("interpret.judge=statistical needs a labelled sample: name one, or use the llm judge.")
    return found


def relevant_to_labels(labelled: Measured, fdr: float, min_active: int = 5) -> NDArray[np.bool_] | None:
    """Features that fire more on texts labelled 1 than on others of their length; None if there are no labels.

    Shape [width]; see `fac.relevance.associated`. Raises FacError if all labels are alike.
    """
    labels = labelled.corpus.labels()
    if labels is None:
        return None
    return associated(labelled.pooled, labels > 0, labelled.lengths, fdr=fdr, min_active=min_active).relevant


def find_gap(
    anchor: Measured,
    seed: Measured,
    relevant: NDArray[np.bool_],
    thresholds: Thresholds,
    interpretations: Mapping[int, Interpretation] | None = None,
    seed_relevant: NDArray[np.bool_] | None = None,
) -> Gap:
    """F(P), F(Q) of the seed data and F_miss at every threshold (eq. 4-6), from one pass over each matrix.

    With `seed_relevant` [width], a feature that the seed activates is missing all the same unless it is set there.
    """
    anchor_max = anchor.pooled.maxima()
    grid = threshold_grid(thresholds.absolute, thresholds.relative, anchor_max)
    default = Threshold.parse(thresholds.default)
    gap = Gap(
        anchor,
        seed,
        grid,
        counts(anchor.pooled, grid.cuts),
        counts(seed.pooled, grid.cuts),
        anchor_max,
        mean_activation(anchor.pooled),
        relevant,
        grid.thresholds.index(default),
        interpretations or {},
        seed_relevant,
    )
    if not relevant.any():
        raise FacError(
            "The judge found no feature relevant to the task: name an anchor corpus that holds the task, another "
            "annotator or, for interpret.judge=statistical, more labelled texts."
        )
    if not gap.active().any():
        raise FacError(
            f"No relevant feature of the anchor passes the threshold {default}: lower thresholds.default, "
            f"or name an anchor corpus that holds the task."
        )
    return gap


@dataclass(frozen=True)
class Mined:
    """What the mining half of the method found: the gap, with the tools and the stage that it came from."""

    shop: Workshop
    gap: Gap
    source: Artifact  # the interpretations


def mine(
    shop: Workshop,
    anchor: Artifact,
    seed: Artifact,
    annotators: Mapping[str, ChatModel],
    prompts: Prompts,
    read: ReadSettings,
    thresholds: Thresholds,
    labelled: Artifact | None = None,
) -> Mined:
    """From two corpora to the features that the seed misses; `labelled` is for the statistical judge."""
    measured = measure(shop, anchor)
    known = measure(shop, seed)
    source, interpretations = interpret(shop, measured, annotators, prompts, read)
    sample = measure(shop, labelled) if labelled is not None and read.judge == "statistical" else None
    width = measured.pooled.n_features
    relevant = relevant_features(width, interpretations, read, sample)
    seed_relevant = None
    if read.missing == "annotation":
        by_judge = replace(read, judge="llm", verified=False)
        _, told = interpret(shop, known, annotators, prompts, by_judge)
        seed_relevant = relevant_features(width, told, by_judge)
    return Mined(shop, find_gap(measured, known, relevant, thresholds, interpretations, seed_relevant), source)


def synthesis_of(
    mined: Mined,
    model: ChatModel,
    prompts: Prompts,
    schema: Schema[Any],
    settings: Settings,
    seed_examples: Sequence[Any],
    human_examples: Sequence[Any],
    budget: int,
    held_out: HeldOut,
) -> tuple[SynthesisInput, Writer]:
    """What the methods of `fac.synthesis` are given for this gap, and what they write with: `model` and `prompts`."""
    shop, gap = mined.shop, mined.gap
    interpretations = gap.interpretations
    if settings.summary == "analysis":
        interpretations = with_analyses(interpretations, mined.source.path)
    missing, active = (features.nonzero()[0].tolist() for features in (gap.missing(), gap.active()))
    if settings.ratio < 1 and missing:
        count = max(round(settings.ratio * len(missing)), 1)
        missing = sorted(random.Random(settings.seed).sample(missing, count))
    given = SynthesisInput(
        seed_examples, human_examples, missing, active, interpretations, gap.cut, gap.anchor_max, budget,
        settings, held_out,
    )  # fmt: skip
    writer = Writer(
        store=shop.store,
        model=model,
        prompts=prompts,
        schema=schema,
        extractor=lambda: shop.extractor,
        encoder={**shop.encoder, "anchor": gap.anchor.artifact.key, "span_end": shop.features.span_end},
        anchor_max=gap.anchor_max,
        sampling=Sampling(settings.temperature, settings.top_p, settings.max_new_tokens),
        seed=settings.seed,
        span_tokens=settings.span_tokens,
        label=TOXIC_LABEL if settings.label_scored and schema is QUERY else "",
        inputs=[mined.source],
    )
    return given, writer


def _ignore(_: object) -> None:
    """Stage builders return nothing."""
