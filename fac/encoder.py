"""Texts to features, as steps: one model, one SAE and one layer measure corpora (`fac.features`).

Nothing is loaded before something must be measured, and the SAE, where it is to be trained or imported, is a step of
its own that the measuring steps have as an input.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fac.chat import Message
from fac.corpus_features import CorpusFeatures as CorpusFeatures  # also found here, where it is made
from fac.corpus_features import Tops
from fac.data.corpus import Corpus
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.model_ref import ModelRef
from fac.sae.ref import CONFIG, SaeRef, read_record, recorded_layer
from fac.sae.settings import OnStep, RecipeSettings, TrainSettings
from fac.spread import Reader, Spread
from fac.store import Step
from fac.vectors import unit_rows

if TYPE_CHECKING:  # loaded when something is measured or trained
    from transformers import PreTrainedTokenizerBase

    from fac.backbone import Backbone
    from fac.features.extract import Extractor

REFERENCE = "reference.json"  # of an SAE that is used where it lies
QUALITY = "quality.json"


@dataclass(frozen=True)
class FeatureSpan:
    """Where a feature is strong: `text[start:]` is the activating token, `value` its g_i."""

    text: str
    start: int
    value: float


class FeatureEncoder:
    """The features of one SAE on one layer of one model."""

    def __init__(
        self,
        model: ModelRef,
        sae: SaeRef | TrainSettings | RecipeSettings,
        layer: int | None,
        settings: FeatureSettings,
        sae_texts: Step | None = None,
        on_step: OnStep | None = None,
        origin: ModelRef | None = None,
        spread: Spread | None = None,
    ) -> None:
        """`sae` is an SAE that exists, or how to train one on the corpus `sae_texts`, which `on_step` watches.

        `layer` None is the layer that the SAE was trained on; for one to be trained, half the model's depth (App. J).
        `origin` is the model whose weights the SAE was made for, where `model` was trained from it and is read with the
        same SAE: that is refused otherwise. `spread` measures large corpora elsewhere. Raises FacError if an SAE is to
        be trained and there are no texts.
        """
        self.model, self.sae, self.settings, self.chosen_layer, self.origin = model, sae, settings, layer, origin
        self.spread = spread
        if isinstance(sae, SaeRef):
            self.sae_step = Step("sae", partial(_refer, sae), {"sae": lambda: _identity(sae)})
            return
        if sae_texts is None:
            raise FacError("There are no texts to train the SAE on: name an SAE that exists with sae.path=DIR.")
        params = {"model": model, "layer": lambda: self.layer, "training": type(sae).__name__, **sae.identity()}
        build = partial(self._train, sae, on_step)
        self.sae_step = Step("sae", build, params, (sae_texts,), resumable=isinstance(sae, RecipeSettings) or sae.held)

    @cached_property
    def layer(self) -> int:
        """The residual stream after so many of the model's layers. Raises FacError if nobody says which."""
        if not isinstance(self.sae, SaeRef):
            from fac.backbone import model_depth

            return self.chosen_layer if self.chosen_layer is not None else max(model_depth(self.model) // 2, 1)
        from fac.sae.checkpoint import find_checkpoint

        checkpoint = find_checkpoint(self.sae)
        recorded = checkpoint.layer if checkpoint else recorded_layer(self.sae)
        if recorded is None and self.chosen_layer is None:
            raise FacError(f"The SAE {self.sae} does not say which layer it was trained on: set sae.layer.")
        if None not in (recorded, self.chosen_layer) and recorded != self.chosen_layer:
            raise FacError(
                f"The SAE {self.sae} was trained on layer {recorded}, not on layer {self.chosen_layer} (sae.layer): "
                f"leave sae.layer out, name another SAE, or use sae=train."
            )
        return int(recorded or self.chosen_layer or 0)

    def identity(self) -> dict[str, object]:
        """What decides activations, beside the SAE (whose step is an input)."""
        settings = self.settings
        product = {} if settings.product == "auto" else {"product": settings.product}
        adapted = {} if self.origin is None else {"sae_made_for": self.origin.identity()}
        return {
            **adapted,
            "model": self.model.identity(),
            "layer": self.layer,
            "rule": settings.rule,
            "max_tokens": settings.max_tokens,
            "shift": settings.shift,
            "double_bos": settings.double_bos,
            **product,
        }

    def features(self, corpus: Step) -> Step:
        """g_i of every text of a corpus, and each feature's top spans (`CorpusFeatures.load`)."""
        params = {"encoder": self, "top_spans": self.settings.top_spans}
        resumable = self.spread is not None
        return Step("features", self._measure, params, (corpus, self.sae_step), resumable=resumable)

    def quality(self, corpus: Step) -> Step:
        """How well the SAE reconstructs a corpus (`load_quality`), over the tokens that it was trained on."""
        held = ("model", "layer", "rule", "max_tokens")
        params = {"encoder": lambda: {name: self.identity()[name] for name in held}}
        return Step("sae_quality", self._reconstruct, params, (corpus, self.sae_step))

    @property
    def made_by(self) -> tuple[Step, ...]:
        """The steps that make its model."""
        return self.model.made_by

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from fac.backbone import load_tokenizer

        return load_tokenizer(self.model)

    @cached_property
    def backbone(self) -> Backbone:
        from fac.backbone import Backbone

        return Backbone(self.model, self.layer)

    def extractor(self, sae_folder: Path) -> Extractor:
        """Model and SAE, loaded once; `sae_folder` is that of `sae_step`."""
        held: Extractor | None = self.__dict__.get("_extractor")
        if held is None:
            held = self.__dict__["_extractor"] = self._reader(sae_folder).extractor(self.backbone)
        return held

    def _reader(self, sae_folder: Path) -> Reader:
        return Reader(self.model.lasting, self.layer, sae_in(sae_folder), self.settings, self.origin is not None)

    def of_residuals(self) -> dict[str, object]:
        """What decides a residual: all that decides an activation but how the SAE is read."""
        return {name: value for name, value in self.identity().items() if name not in ("rule", "product")}

    def embed(self, chats: Sequence[Sequence[Message]]) -> NDArray[np.float32]:
        """Unit vectors [chats, d_model]: mean residuals of the content tokens, where features are read.

        A chat without content is zero.
        """
        from fac.features.means import content_means

        return unit_rows(content_means(self.backbone, chats, self.settings)).astype(np.float32)

    def release(self) -> None:
        """Give back the memory of model and SAE; they are loaded anew if something is left to measure."""
        for name in ("_extractor", "backbone"):
            self.__dict__.pop(name, None)
        gc.collect()  # hooks of a model refer to it
        if (torch := sys.modules.get("torch")) is not None:  # what never was loaded holds nothing
            torch.cuda.empty_cache()

    def spans(
        self, corpus: Corpus, tops: Tops, features: Sequence[int], count: int, length: int
    ) -> dict[int, list[FeatureSpan]]:
        """Each feature's top `count` spans of at most `length` tokens, strongest first. Needs the tokenizer only."""
        from fac.features.texts import span_of

        found: dict[int, list[FeatureSpan]] = {int(feature): [] for feature in features}
        for feature, spans in found.items():
            for text, token, value in zip(
                tops.texts[feature, :count], tops.tokens[feature, :count], tops.values[feature, :count], strict=True
            ):
                if text >= 0:
                    span = span_of(self.tokenizer, corpus[int(text)].messages, int(token), length, self.settings)
                    spans.append(FeatureSpan(span.text, span.start, float(value)))
        return found

    def _measure(self, folder: Path, corpus: Path, sae: Path) -> None:
        if self.spread is None or not self.spread.measure(self._reader(sae), corpus, folder):
            texts = Corpus.load(corpus)
            self.extractor(sae).extract((example.messages for example in texts), folder, len(texts))

    def _reconstruct(self, folder: Path, corpus: Path, sae: Path) -> None:
        from fac.sae.quality import quality

        texts, record = Corpus.load(corpus), read_record(sae_in(sae).fetched(CONFIG))
        encoder = self.extractor(sae).sae
        which = {  # as it was trained
            "max_tokens": record.get("settings", {}).get("max_tokens", self.settings.max_tokens),
            "tokens": record.get("tokens", "content"),
        }
        found = quality(
            encoder,
            self.backbone,
            (example.messages for example in texts),
            len(texts),
            **which,
            batch_tokens=self.settings.batch_on(self.backbone.device.type == "cuda"),
            encode_elements=self.settings.encode_elements,
        )
        about = {"width": encoder.width, "k": encoder.k, "texts": len(texts)}
        about |= {"of": which["tokens"], "first": which["max_tokens"]}
        (folder / QUALITY).write_text(json.dumps({**asdict(found), **about}), encoding="utf-8")

    def _train(
        self, settings: TrainSettings | RecipeSettings, on_step: OnStep | None, folder: Path, texts: Path
    ) -> None:
        from fac.sae import lens, recipe

        corpus = Corpus.load(texts)
        if isinstance(settings, RecipeSettings):
            recipe.train(self.backbone, lambda i: corpus[i].messages, len(corpus), settings, folder, on_step)
        else:
            lens.train(self.backbone, lambda: (example.messages for example in corpus), settings, folder, len(corpus))


def load_quality(folder: Path) -> dict[str, Any]:
    """What `FeatureEncoder.quality` found: the numbers of `fac.sae.quality.Quality`, and what they are of.

    That is the SAE's `width` and `k` (None: no Top-K SAE), the number of `texts`, and which tokens count: `of` "all" or
    "content" ones, among the `first` of a text.
    """
    return json.loads((folder / QUALITY).read_text(encoding="utf-8"))


def sae_in(folder: Path) -> SaeRef:
    """The SAE of an SAE's step: the folder itself, or the SAE that it refers to."""
    reference = folder / REFERENCE
    if not reference.is_file():
        return SaeRef(path=str(folder))
    told: Mapping[str, Any] = json.loads(reference.read_text(encoding="utf-8"))
    return SaeRef(**told)


def _identity(sae: SaeRef) -> str:
    from fac.sae.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(sae)
    return sae.identity() if checkpoint is None else checkpoint.identity()


def _refer(sae: SaeRef, folder: Path) -> None:
    """One of the paper's checkpoints is imported to SAELens' format; any other SAE is used where it lies."""
    from fac.sae.checkpoint import find_checkpoint, import_checkpoint

    checkpoint = find_checkpoint(sae)
    if checkpoint is None:
        (folder / REFERENCE).write_text(json.dumps(asdict(sae)), encoding="utf-8")
    else:
        import_checkpoint(checkpoint, folder)
