"""experiments.bench.exactness: g_i of real texts of a real chat model against a forward pass that shares no code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import sentences
from support.models import tiny_model

from experiments.bench.exactness import LONGEST, compared, flips
from fac.backbone import Backbone, ModelRef
from fac.data.examples import read_examples
from fac.data.source import Source

REPO = Path(__file__).resolve().parents[3]


def some_sae(width: int, d_in: int, k: int):
    """A Top-K SAE with random weights and decoder rows of different lengths."""
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    module = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=width, k=k, rescale_acts_by_decoder_norm=True))
    with torch.no_grad():
        module.W_enc.normal_(std=d_in**-0.5)
        module.W_dec.normal_().mul_(torch.rand(width, 1) + 0.5)
        module.b_dec.normal_()
        module.b_enc.normal_()
    return module


def test_a_tiny_model_s_features_are_those_of_an_independent_forward(tmp_path):
    model = tiny_model(tmp_path / "model", "llama")

    d_in = Backbone(ModelRef(str(model)), 2).d_model
    found = compared(model, 2, some_sae(64, d_in, 5), sentences(20))
    assert found["float32"]["largest_difference"] < 1e-4
    assert found["float32"]["flips_0max"] == 0
    assert 0 <= found["bfloat16"]["flips_0max"] < 0.5
    assert found["entries"] > 20


def test_flips_are_counted_on_both_sides():
    exact = np.array([[1.0, 0.0, 0.4, 0.2]])
    other = np.array([[1.0, 0.1, 0.2, 0.2]])
    found = flips(exact, other, np.array([1.0, 1.0, 1.0, 1.0]))
    assert found["flips_0max"] == pytest.approx(1 / 3)
    assert found["flips_0.3max"] == pytest.approx(1 / 2)
    assert found["flips_0.5max"] == 0


@pytest.mark.slow
def test_fifty_real_texts_of_a_real_chat_model_are_exact_to_1e_4(real_data):
    model = Path(os.environ.get("FAC_SMALL_MODEL", REPO / "outputs" / "models" / "smollm2_135m"))
    if not model.is_dir():
        pytest.skip(
            f"no chat model in {model}: make small fetches it, or set FAC_SMALL_MODEL to a folder that holds it"
        )
    source = Source(real_data("toxicchat") / "toxic_chat_train.json")
    texts = [e.text for e in read_examples(source) if 20 < len(e.text) < LONGEST][:50]
    found = compared(model, 15, some_sae(4096, 576, 20), texts)
    assert found["texts"] == 50
    assert found["entries"] > 50 * 20
    assert found["float32"]["largest_difference"] < 1e-4
    assert found["float32"]["flips_0max"] < 1e-3
    assert found["bfloat16"]["flips_0max"] < 0.2
