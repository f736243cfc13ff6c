"""fac.sae.hooks: every name of a place in the residual stream is its layer, any other place is refused by its name."""

import json
import shutil

import pytest
from support.encoders import LAYER, opened

from fac.backbone import ModelRef
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.sae.hooks import layer_of, told_layer
from fac.sae.load import load
from fac.sae.ref import SaeRef, recorded_layer
from fac.store import Store


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.15.hook_resid_post", 16),
        ("blocks.16.hook_resid_pre", 16),
        ("blocks.15.hook_out", 16),
        ("model.layers.15", 16),
        ("model.layers.15.output", 16),
        ("model.language_model.layers.15", 16),
        ("language_model.model.layers.15", 16),
        ("transformer.h.15", 16),
        ("gpt_neox.layers.15", 16),
        ("layers.15", 16),
        ("blocks.0.hook_resid_pre", None),  # the embeddings
        ("blocks.3.hook_resid_mid", None),
        ("blocks.3.hook_mlp_out", None),
        ("blocks.3.attn.hook_z", None),
        ("blocks.3.ln2.hook_normalized", None),
        ("model.layers.3.mlp", None),
        ("model.layers.3.self_attn.o_proj.input", None),
        ("layers.3.mlp", None),
        ("hook_embed", None),
        ("model.embed_tokens", None),
        ("None", None),
    ],
)
def test_a_name_is_a_layer_of_the_paper(hook, layer):
    assert layer_of(hook) == layer


@pytest.mark.parametrize(
    ("cfg", "layer"),
    [
        ({"hook_name": "blocks.1.hook_resid_post"}, 2),
        ({"metadata": {"hook_name": "model.layers.1"}}, 2),
        ({"metadata": {"hf_hook_name": "model.layers.1"}}, 2),
        ({"metadata": {"hook_name": "blocks.1.hook_resid_post", "hf_hook_name": "model.layers.1"}}, 2),
        ({"hook_point": "blocks.2.hook_resid_pre", "hook_point_layer": 2}, 2),
        ({"hook_name": "blocks.1.hook_resid_post", "hook_layer": 1}, 2),
        ({"hook_name": "blocks.{layer}.hook_resid_post", "hook_layer": 1}, 2),
        ({"hook_name": "hook_resid_post", "hook_layer": 1}, 2),
        ({"hook_name": "model.layers", "hook_layer": 1}, 2),
        ({"hook_point_in": "blocks.1.hook_resid_post", "hook_point_out": "blocks.1.hook_resid_post"}, 2),
        ({"hook_name": None, "metadata": {"hook_name": None}}, None),
        ({"hook_name": ""}, None),
        ({"metadata": "nothing"}, None),
        ({}, None),
    ],
)
def test_the_layer_is_found_wherever_it_is_written(cfg, layer):
    assert told_layer(cfg, "x") == layer


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"hook_name": "blocks.3.hook_mlp_out"}, "The SAE x reads blocks.3.hook_mlp_out, and features are measured"),
        ({"metadata": {"hf_hook_name": "model.layers.3.mlp"}}, "The SAE x reads model.layers.3.mlp, and"),
        (
            {"hook_name": "blocks.3.hook_resid_post", "hook_name_out": "blocks.3.hook_mlp_out"},
            "reads blocks.3.hook_mlp_out",
        ),
        ({"hook_name": "hook_mlp_out", "hook_layer": 3}, "reads blocks.3.hook_mlp_out"),
        (
            {"metadata": {"hook_name": "blocks.1.hook_resid_post", "hf_hook_name": "model.layers.2"}},
            r"blocks.1.hook_resid_post \(layer 2\) and model.layers.2 \(layer 3\)",
        ),
        (
            {"hook_name": "blocks.1.hook_resid_post", "hook_layer": 4},
            r"blocks.1.* \(layer 2\) and blocks.4.* \(layer 5\)",
        ),
    ],
)
def test_another_place_or_two_are_refused_by_name(cfg, said):
    with pytest.raises(FacError, match=said):
        told_layer(cfg, "x")


def with_hook(trained, tmp_path, hook, key="hook_name", record=False):
    """The trained SAE as others would have saved it: its place under another name."""
    folder = shutil.copytree(trained, tmp_path / "sae")
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg["metadata"] = {"model_name": "m", key: hook}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    if not record:
        (folder / "fac.json").unlink()
    return SaeRef(str(folder))


def encoder_of(model, ref, layer=None):
    return FeatureEncoder(ModelRef(str(model)), ref, layer, FeatureSettings())


@pytest.mark.parametrize("key", ["hook_name", "hf_hook_name"])
@pytest.mark.parametrize("layer", [None, LAYER])
def test_a_module_of_transformers_is_measured_at_its_layer(trained, model, backbone, tmp_path, key, layer):
    ref = with_hook(trained, tmp_path, f"model.layers.{LAYER - 1}", key)
    assert recorded_layer(ref) == LAYER
    encoder = encoder_of(model, ref, layer)
    width = opened(encoder, Store(tmp_path / "store")).sae.width
    assert (encoder.layer, width) == (LAYER, load(SaeRef(str(trained)), backbone).width)


@pytest.mark.parametrize("key", ["hook_name", "hf_hook_name"])
@pytest.mark.parametrize("layer", [1, 3])
def test_a_layer_that_contradicts_the_hook_is_refused(trained, model, tmp_path, key, layer):
    ref = with_hook(trained, tmp_path, "model.layers.1", key)
    with pytest.raises(
        FacError, match=rf"was trained on layer 2, not on layer {layer} \(sae.layer\): leave sae.layer out"
    ):
        _ = encoder_of(model, ref, layer).layer


@pytest.mark.parametrize(
    "hook", ["blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_z", "model.norm"]
)
@pytest.mark.parametrize("layer", [None, LAYER])
@pytest.mark.parametrize("record", [False, True])
def test_another_place_is_refused_even_if_a_layer_is_given(trained, model, backbone, tmp_path, hook, layer, record):
    ref = with_hook(trained, tmp_path, hook, record=record)
    with pytest.raises(FacError, match=f"reads {hook}, and features are measured in the residual stream"):
        _ = encoder_of(model, ref, layer).layer
    with pytest.raises(FacError, match=f"reads {hook}, and"):
        load(ref, backbone)


def test_two_records_that_differ_are_refused(trained, model, tmp_path):
    ref = with_hook(trained, tmp_path, "blocks.3.hook_resid_post", record=True)
    with pytest.raises(FacError, match=r"was trained on layer 2 by fac.json, on 4 by cfg.json"):
        _ = encoder_of(model, ref).layer


def test_an_sae_that_names_no_place_asks_for_the_layer(trained, model, tmp_path):
    ref = with_hook(trained, tmp_path, None)
    with pytest.raises(FacError, match="does not say which layer it was trained on: set sae.layer"):
        _ = encoder_of(model, ref).layer
    assert opened(encoder_of(model, ref, LAYER), Store(tmp_path / "store")).sae.k is not None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "it has no cfg.json and no sae_weights.safetensors .it holds nothing."),
        (("sae_weights.safetensors",), "it has no cfg.json .it holds sae_weights.safetensors."),
        (("ae.safetensors", "config.json"), "it has no cfg.json and .* .it holds ae.safetensors, config.json."),
        (("cfg.json", "sae.safetensors"), "it has no sae_weights.safetensors .it holds cfg.json, sae.safetensors."),
    ],
)
@pytest.mark.parametrize("layer", [None, LAYER])
def test_a_folder_of_another_format_is_told_first_what_is_missing(model, tmp_path, files, said, layer):
    """sparsify keeps cfg.json and sae.safetensors, dictionary_learning config.json and ae.*."""
    (tmp_path / "sae").mkdir()
    for name in files:
        (tmp_path / "sae" / name).write_text("{}")
    with pytest.raises(FacError, match=f"is no SAE in SAELens format: {said}"):
        _ = encoder_of(model, SaeRef(str(tmp_path / "sae")), layer).layer
