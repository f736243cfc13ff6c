"""A tiny encoder with readings of six of its features, and desks to write at."""

import numpy as np
import pytest
from support.encoders import LAYER, train_sae
from support.models import tiny_model
from support.writing import ANCHOR, ENCODER, SETTINGS

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat
from fac.features import Extractor, FeatureSettings, Tops
from fac.interpret import Reading
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.sae import SaeRef, load
from fac.store import Artifact, Store
from fac.synthesis.forms import QUERY
from fac.synthesis.two_step import Desk


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Model folder, extractor, anchor maxima, readings of six features."""
    root = tmp_path_factory.mktemp("world")
    model = tiny_model(root / "model", "llama")
    backbone = Backbone(ModelRef(str(model)), LAYER)
    settings = FeatureSettings(max_tokens=48)
    extractor = Extractor(backbone, load(SaeRef(str(train_sae(model, root / "sae"))), backbone), settings)
    extractor.extract([as_chat(text) for text in ANCHOR], root)
    tops, anchor_max = Tops.load(root), Pooled.load(root).maxima()
    readings = {}
    for feature in np.argsort(-(tops.texts >= 0).sum(axis=1), kind="stable")[:6].tolist():
        places = zip(tops.texts[feature].tolist(), tops.tokens[feature].tolist(), strict=True)
        spans = tuple(extractor.span(as_chat(ANCHOR[text]), token, 8).text for text, token in places if text >= 0)
        readings[feature] = Reading(feature, spans, f"things like {spans[0]}", "Yes", "Yes")
    return model, extractor, anchor_max, readings


@pytest.fixture
def desk_at(world):
    """desk_at(folder, writer): a desk on a store in that folder, whose events are in `events`."""
    _, extractor, anchor_max, readings = world

    def at(folder, writer, settings=SETTINGS, form=QUERY):
        events: list[str] = []
        store = Store(folder, lambda event: events.append(event.kind))
        source = Artifact("interpret", "0" * 20, folder)
        prompts = Prompts("lab/toxicity")
        desk = Desk(store, writer, prompts, form, readings, source, lambda: extractor, ENCODER, anchor_max, settings)
        return desk, events

    return at
