"""fac.sae.load: a small SAE is loaded, compared with sae-lens and with its own formula, and refused where wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.encoders import LAYER, WIDTH, K, sentences
from support.models import tiny_model

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat, encode
from fac.errors import FacError
from fac.sae import Sae, SaeRef, hook_name, layer_of, load, recorded_layer


@pytest.fixture
def foreign(trained, tmp_path):
    """A copy without fac.json: an SAE that this project did not train."""
    folder = shutil.copytree(trained, tmp_path / "foreign")
    (folder / "fac.json").unlink()
    return folder


@pytest.fixture(scope="module")
def residual(backbone):
    ids = encode(backbone.tokenizer, as_chat(" ".join(sentences(10, seed=9)))).ids
    return backbone.residual([ids])[0]


def pre_activations(folder, residual):
    w = load_file(folder / "sae_weights.safetensors")
    cfg = json.loads((folder / "cfg.json").read_text())
    x = residual - w["b_dec"] if cfg["apply_b_dec_to_input"] else residual
    return x @ w["W_enc"] + w["b_enc"]


def test_paper_rule_is_sae_lens_own_encoding_with_top_k(trained, backbone, residual):
    from sae_lens import SAE

    sae = load(SaeRef(str(trained)), backbone)
    assert (sae.d_in, sae.width) == (64, WIDTH)
    activations = sae.encode(residual)
    own = SAE.load_from_disk(trained).encode(residual)
    torch.testing.assert_close(activations, own, rtol=0, atol=0)
    strongest = pre_activations(trained, residual).topk(K, dim=1)
    expected = torch.zeros_like(activations).scatter(1, strongest.indices, strongest.values.relu())
    torch.testing.assert_close(activations, expected, rtol=1e-4, atol=1e-4)


def test_official_rule_is_relu_of_every_pre_activation(trained, backbone, residual):
    paper = load(SaeRef(str(trained)), backbone).encode(residual)
    official = load(SaeRef(str(trained)), backbone, rule="official").encode(residual)
    torch.testing.assert_close(official, pre_activations(trained, residual).relu(), rtol=1e-4, atol=1e-4)
    assert (official >= paper).all()
    assert (official > 0).sum() > 2 * (paper > 0).sum()


def test_explained_variance_is_that_of_the_reconstruction(trained, backbone, residual):
    variance, l0 = load(SaeRef(str(trained)), backbone).explained_variance(residual)
    w = load_file(trained / "sae_weights.safetensors")
    strongest = pre_activations(trained, residual).topk(K, dim=1)
    z = torch.zeros(len(residual), WIDTH).scatter(1, strongest.indices, strongest.values.relu())
    lost = (residual - z @ w["W_dec"] - w["b_dec"]).pow(2).sum()
    total = (residual - residual.mean(dim=0)).pow(2).sum()
    assert variance == pytest.approx(float(1 - lost / total), abs=1e-4)
    assert l0 == pytest.approx(float((z > 0).sum(1).float().mean()))


def test_an_unknown_rule_is_refused(trained, backbone):
    with pytest.raises(FacError, match="features.rule=l1 is unknown: choose one of paper, official"):
        load(SaeRef(str(trained)), backbone, rule="l1")


def test_another_model_of_the_same_width_is_refused(trained, tmp_path):
    other = Backbone(ModelRef(str(tiny_model(tmp_path, "llama", seed=1))), LAYER)
    with pytest.raises(FacError, match=r"trained on the weights of another model than .*It fits .*layer 2, width 64"):
        load(SaeRef(str(trained)), other)


def test_the_same_model_elsewhere_or_in_another_dtype_is_accepted(trained, model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    for dtype in ("float32", "bfloat16"):
        assert load(SaeRef(str(trained)), Backbone(ModelRef(str(copy), dtype=dtype), LAYER)).width == WIDTH


def test_another_layer_is_refused(trained, model):
    with pytest.raises(FacError, match=r"trained on layer 2, not on layer 3 \(sae.layer\)"):
        load(SaeRef(str(trained)), Backbone(ModelRef(str(model)), 3))


def test_another_width_is_refused(backbone, tmp_path):
    from sae_lens import TopKSAE, TopKSAEConfig

    TopKSAE(TopKSAEConfig(d_in=32, d_sae=WIDTH, k=K)).save_model(str(tmp_path))
    with pytest.raises(FacError, match="reads 32 dimensions but .* has 64"):
        load(SaeRef(str(tmp_path)), backbone)


def test_a_foreign_sae_is_accepted_if_it_explains_the_activations(foreign, backbone, residual, trained):
    own, other = (load(SaeRef(str(folder)), backbone).encode(residual) for folder in (trained, foreign))
    assert torch.equal(own, other)


def test_a_foreign_sae_of_another_layer_is_refused_by_its_metadata(foreign, model):
    with pytest.raises(FacError, match="trained on layer 2, not on layer 4"):
        load(SaeRef(str(foreign)), Backbone(ModelRef(str(model)), 4))


def test_a_foreign_sae_that_explains_nothing_is_refused(foreign, backbone):
    weights = load_file(foreign / "sae_weights.safetensors")
    generator = torch.Generator().manual_seed(0)
    shuffled = {name: w[torch.randperm(len(w), generator=generator)] for name, w in weights.items()}
    save_file(shuffled, foreign / "sae_weights.safetensors")
    with pytest.raises(FacError, match=r"explains -?\d.*at least 0.30 was expected.*sae=train"):
        load(SaeRef(str(foreign)), backbone)


def test_an_sae_that_became_worse_than_its_record_is_refused(trained, backbone, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "worse")
    weights = load_file(folder / "sae_weights.safetensors")
    save_file({**weights, "W_dec": weights["W_dec"] * 0.8}, folder / "sae_weights.safetensors")
    with pytest.raises(FacError, match="made for another model, layer or chat template"):
        load(SaeRef(str(folder)), backbone)


def test_a_missing_or_broken_folder_is_said(foreign, backbone, tmp_path):
    with pytest.raises(FacError, match="There is no SAE folder .*nowhere: set sae.path"):
        load(SaeRef(str(tmp_path / "nowhere")), backbone)
    (foreign / "sae_weights.safetensors").unlink()
    with pytest.raises(FacError, match="cannot be loaded .*: give a folder with cfg.json and sae_weights.safetensors"):
        load(SaeRef(str(foreign)), backbone)


def test_identity_is_that_of_the_weights(trained, foreign):
    own = SaeRef(str(trained)).identity()
    assert SaeRef(str(foreign)).identity() == own
    weights = load_file(foreign / "sae_weights.safetensors")
    save_file({**weights, "b_enc": weights["b_enc"] + 1e-3}, foreign / "sae_weights.safetensors")
    assert SaeRef(str(foreign)).identity() != own
    assert SaeRef(release="r", sae_id="s").identity() == "r/s"


def test_layers_have_one_name(trained):
    assert all(layer_of(hook_name(layer)) == layer for layer in range(1, 40))
    assert layer_of("blocks.15.hook_resid_post") == layer_of("blocks.16.hook_resid_pre") == 16
    assert layer_of("blocks.3.hook_mlp_out") is None
    assert layer_of("None") is None
    assert recorded_layer(SaeRef(str(trained))) == LAYER


def test_official_needs_a_top_k_sae(backbone, tmp_path):
    from sae_lens import StandardSAE, StandardSAEConfig

    module = StandardSAE(StandardSAEConfig(d_in=64, d_sae=WIDTH))
    assert Sae(module, {}).k is None
    with pytest.raises(
        FacError, match="switches Top-K off, which a standard SAE does not have: use features.rule=paper"
    ):
        Sae(module, {}, rule="official")


@pytest.mark.parametrize(
    ("ref", "layer"),
    [
        # sae-lens knows this release's configuration without the hub; hook blocks.19 is the paper's layer 20
        (SaeRef(release="goodfire-llama-3.1-8b-instruct", sae_id="layer_19"), 20),
    ],
)
def test_a_public_release_says_its_layer(ref, layer):
    assert recorded_layer(ref) == layer


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        (SaeRef(release="llama-3.1-8b-instruct-andyrdt", sae_id="resid_post_layer_15_trainer_1"), "reach the hub"),
        (
            SaeRef(release="goodfire-llama-3.1-8b-instruct", sae_id="layer_20"),
            "SAE ID 'layer_20' not found|ID layer_20",
        ),
        (SaeRef(release="goodfier", sae_id="layer_19"), "check its name and that this machine can reach the hub"),
        (SaeRef("hub:someone/their-sae"), "The SAE hub:someone/their-sae cannot be loaded .*reach the hub"),
    ],
)
def test_what_the_hub_does_not_give_is_said(backbone, monkeypatch, tmp_path, ref, said):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for ask in (lambda: recorded_layer(ref), lambda: load(ref, backbone)):
        with pytest.raises(FacError, match=said):
            ask()
