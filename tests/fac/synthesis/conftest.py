"""A tiny encoder with interpretations of six of its features, and writers to write with."""

import numpy as np
import pytest
from support.encoders import LAYER, train_sae
from support.models import tiny_model
from support.writing import ANCHOR, SETTINGS

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat
from fac.corpus_features import Tops
from fac.data.schemas import QUERY
from fac.features.extract import Extractor
from fac.features.settings import FeatureSettings
from fac.interpret import Interpretation
from fac.llm.base import Sampling
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.sae.load import load
from fac.sae.ref import SaeRef
from fac.synthesis.generate import TOXIC_LABEL
from fac.synthesis.method import SynthesisInput
from fac.synthesis.writer import Writer


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Model folder, extractor, anchor maxima, interpretations of six features."""
    root = tmp_path_factory.mktemp("world")
    model = tiny_model(root / "model", "llama")
    backbone = Backbone(ModelRef(str(model)), LAYER)
    settings = FeatureSettings(max_tokens=48)
    extractor = Extractor(backbone, load(SaeRef(str(train_sae(model, root / "sae"))), backbone), settings)
    extractor.extract([as_chat(text) for text in ANCHOR], root)
    tops, anchor_max = Tops.load(root), Pooled.load(root).maxima()
    interpretations = {}
    for feature in np.argsort(-(tops.texts >= 0).sum(axis=1), kind="stable")[:6].tolist():
        places = zip(tops.texts[feature].tolist(), tops.tokens[feature].tolist(), strict=True)
        spans = tuple(extractor.span(as_chat(ANCHOR[text]), token, 8).text for text, token in places if text >= 0)
        interpretations[feature] = Interpretation(feature, spans, f"things like {spans[0]}", "Yes", "Yes")
    return model, extractor, anchor_max, interpretations


@pytest.fixture
def synthesis_at(world):
    """synthesis_at(folder, model): what methods are given, and a writer on that folder."""
    _, extractor, anchor_max, interpretations = world

    def at(folder, model, settings=SETTINGS, schema=QUERY, threshold=0.0):
        given = SynthesisInput(
            [], [], sorted(interpretations), sorted(interpretations), interpretations,
            np.full_like(anchor_max, threshold), anchor_max, 10**6, settings,
        )  # fmt: skip
        writer = Writer(
            folder,
            model,
            Prompts("lab/toxicity"),
            schema,
            lambda: extractor,
            anchor_max,
            Sampling(settings.temperature, settings.top_p, settings.max_new_tokens),
            settings.seed,
            settings.span_tokens,
            TOXIC_LABEL if settings.label_scored and schema is QUERY else "",
        )
        return given, writer

    return at
