"""fac.sae.load: a small SAE is loaded, compared with sae-lens and with its own formula, and refused where wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.encoders import LAYER, WIDTH, K, corpus_of, sentences
from support.models import tiny_model

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat, encode
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.sae.hooks import hook_name, layer_of
from fac.sae.lens import train
from fac.sae.load import Sae, load
from fac.sae.ref import SaeRef, recorded_layer
from fac.sae.settings import RecipeSettings, TrainSettings
from fac.store import Store


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


def test_the_model_that_was_trained_from_it_is_accepted_where_that_is_asked_for_and_nothing_else_is(trained, tmp_path):
    folder = tiny_model(tmp_path, "llama", seed=1)
    assert load(SaeRef(str(trained)), Backbone(ModelRef(str(folder)), LAYER), of_origin=True).width == WIDTH
    with pytest.raises(FacError, match=r"trained on layer 2, not on layer 3 \(sae.layer\)"):
        load(SaeRef(str(trained)), Backbone(ModelRef(str(folder)), 3), of_origin=True)


def test_an_sae_of_other_weights_is_in_the_keys(trained, model, tmp_path):
    other = ModelRef(str(tiny_model(tmp_path, "llama", seed=1)))
    given = (other, SaeRef(str(trained)), None, FeatureSettings())
    plain, adapted = FeatureEncoder(*given), FeatureEncoder(*given, origin=ModelRef(str(model)))
    texts = corpus_of([as_chat(text) for text in sentences(3)])
    assert plain.features(texts).key != adapted.features(texts).key
    store = Store(tmp_path / "store")
    with pytest.raises(FacError, match="trained on the weights of another model"):
        store.get(plain.features(texts))
    assert store.get(adapted.features(texts)).is_dir()


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


def test_activations_that_are_not_finite_are_not_the_saes_fault(foreign, model, tmp_path):
    damaged = damaged_model(model, tmp_path)
    with pytest.raises(FacError, match=r"activations after layer 2 that are NaN or infinite: .*fetch the model again"):
        load(SaeRef(str(foreign)), Backbone(damaged, LAYER))


def damaged_model(model, folder):
    """A copy whose first layer overflows in float16; its weights are finite."""
    copy = shutil.copytree(model, folder / "overflowing")
    weights = load_file(copy / "model.safetensors")
    for name, factor in {"up": 50.0, "down": 1e4}.items():
        weights[f"model.layers.0.mlp.{name}_proj.weight"] *= factor
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return ModelRef(str(copy), dtype="float16")


def test_training_on_such_activations_stores_nothing(model, tmp_path):
    damaged = damaged_model(model, tmp_path)
    store = Store(tmp_path / "store")
    texts = corpus_of([as_chat(t) for t in sentences(40)])
    for settings in (
        TrainSettings(width=WIDTH, k=K, steps=5),
        RecipeSettings(width=WIDTH, k=K, k_start=K, anneal_steps=1, batch_size=8, epochs=1),
    ):
        with pytest.raises(FacError, match="activations after layer 2 that are NaN or infinite"):
            store.get(FeatureEncoder(damaged, settings, LAYER, FeatureSettings(), texts).sae_step)
    assert [path for path in (tmp_path / "store" / "sae").glob("*") if not path.name.startswith(".")] == []


def test_a_training_that_diverges_stores_nothing(model, tmp_path):
    settings = TrainSettings(width=WIDTH, k=K, steps=20, lr=1e30)
    with pytest.raises(FacError, match=r"NaN or infinite in training: lower sae.train.lr"):
        train(Backbone(ModelRef(str(model)), LAYER), lambda: map(as_chat, sentences(100)), settings, tmp_path / "sae")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: {**w, "b_dec": w["b_dec"] * float("nan")}, "b_dec in the SAE's file of weights .* NaN"),
        (lambda w: {**w, "W_enc": w["W_enc"] / 0}, "W_enc in the SAE's file of weights .*(infinite|NaN)"),
        (lambda w: {**w, "b_enc": w["b_enc"].to(torch.complex64)}, "b_enc in .* is of the type complex64"),
        (lambda w: {**w, "b_enc": w["b_enc"].to(torch.int8)}, "b_enc in .* is of the type int8"),
        (lambda w: {k: v for k, v in w.items() if k != "W_dec"}, "cannot be loaded .*[Mm]issing.*W_dec"),
        (lambda w: {**w, "scale": w["b_dec"].clone()}, 'cannot be loaded .*[Uu]nexpected.*"scale"'),
        (lambda w: {**w, "W_dec": w["W_dec"][:5]}, "cannot be loaded .*size mismatch for W_dec"),
        (lambda w: {**w, "b_dec": w["b_dec"].double() * 1e300}, "b_dec of the SAE .* infinite"),  # as float32
    ],
)
def test_weights_are_looked_at_before_they_are_used(foreign, backbone, change, said):
    file = foreign / "sae_weights.safetensors"
    save_file({name: w.contiguous() for name, w in change(load_file(file)).items()}, file)
    with pytest.raises(FacError, match=said):
        load(SaeRef(str(foreign)), backbone)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda old: old[:-100], "is damaged or cut off"),
        (lambda old: old[:4], "is damaged or cut off"),
        (lambda old: b"", "is empty"),
        (
            lambda old: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "pointer that Git LFS leaves",
        ),
    ],
)
def test_a_file_of_weights_that_is_not_whole_is_said(trained, backbone, tmp_path, content, said):
    folder = shutil.copytree(trained, tmp_path / "sae")
    file = folder / "sae_weights.safetensors"
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(FacError, match=f"file of weights .*{said}"):
        load(SaeRef(str(folder)), backbone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"k": True}, "says k True, which is no number of features"),
        ({"k": 0}, "says k 0"),
        ({"k": WIDTH + 1}, f"says k {WIDTH + 1}"),
        ({"d_in": "64"}, "says d_in '64' and d_sae"),
        ({"dtype": "complex128x"}, "cannot be loaded"),
        ({"architecture": "unheard"}, "cannot be loaded .*unheard"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_said(foreign, backbone, change, said):
    file = foreign / "cfg.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(FacError, match=said):
        load(SaeRef(str(foreign)), backbone)


@pytest.mark.parametrize("held", ["", "[]", "version https://git-lfs"])
@pytest.mark.parametrize("name", ["cfg.json", "fac.json"])
def test_a_record_that_is_no_json_is_said(trained, backbone, tmp_path, name, held):
    folder = shutil.copytree(trained, tmp_path / "sae")
    (folder / name).write_text(held)
    with pytest.raises(FacError, match=rf"{name} (is no JSON|holds a list)"):
        load(SaeRef(str(folder)), backbone)


def change_record(folder, **parts):
    record = json.loads((folder / "fac.json").read_text())
    (folder / "fac.json").write_text(json.dumps({**record, **parts}))


@pytest.mark.parametrize(
    "probe", [{}, None, {"chats": [], "explained_variance": 0.5, "l0": 6.0}, {"chats": ["hi"]}, {"chats": [[{}]]}]
)
def test_a_probe_that_is_none_is_said(trained, backbone, tmp_path, probe):
    folder = shutil.copytree(trained, tmp_path / "sae")
    change_record(folder, probe=probe)
    with pytest.raises(FacError, match="holds a probe without chats, explained_variance and l0"):
        load(SaeRef(str(folder)), backbone)


def test_a_probe_that_does_not_fit_is_said(trained, backbone, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "sae")
    probe = json.loads((folder / "fac.json").read_text())["probe"]
    change_record(folder, probe=probe | {"l0": 2.0})
    with pytest.raises(FacError, match=r"has \d\.\d active features a token .*where 2.0 were recorded"):
        load(SaeRef(str(folder)), backbone)
    change_record(folder, probe=probe | {"explained_variance": 1})
    with pytest.raises(FacError, match=r"where at least 0.98 was expected"):
        load(SaeRef(str(folder)), backbone)


def test_a_missing_or_broken_folder_is_said(foreign, backbone, tmp_path):
    with pytest.raises(FacError, match="There is no SAE folder .*nowhere: set sae.path"):
        load(SaeRef(str(tmp_path / "nowhere")), backbone)
    (foreign / "sae_weights.safetensors").unlink()
    with pytest.raises(FacError, match=r"it has no sae_weights.safetensors \(it holds cfg.json\); give a folder"):
        load(SaeRef(str(foreign)), backbone)


def test_identity_is_that_of_the_weights(trained, foreign):
    own = SaeRef(str(trained)).identity()
    assert SaeRef(str(foreign)).identity() == own
    weights = load_file(foreign / "sae_weights.safetensors")
    save_file({**weights, "b_enc": weights["b_enc"] + 1e-3}, foreign / "sae_weights.safetensors")
    assert SaeRef(str(foreign)).identity() != own


def test_layers_have_one_name(trained):
    assert all(layer_of(hook_name(layer)) == layer for layer in range(1, 40))
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
        (SaeRef("hub:someone/their-sae"), "someone/their-sae cannot be loaded from the hub .*reach the hub"),
    ],
)
def test_what_the_hub_does_not_give_is_said(backbone, monkeypatch, tmp_path, ref, said):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for ask in (lambda: recorded_layer(ref), lambda: load(ref, backbone)):
        with pytest.raises(FacError, match=said):
            ask()
