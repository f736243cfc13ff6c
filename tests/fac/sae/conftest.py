"""A tiny model and an SAE trained on its layer, one of each for a file of tests."""

import pytest
from support.encoders import LAYER, train_sae
from support.models import tiny_model

from fac.backbone import Backbone, ModelRef


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def backbone(model):
    return Backbone(ModelRef(str(model)), LAYER)


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    return train_sae(model, tmp_path_factory.mktemp("sae"))
