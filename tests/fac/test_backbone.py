"""fac.backbone against transformers' own full models."""

import shutil

import pytest
import torch
from support.models import tiny_model
from transformers import AutoModelForCausalLM

from fac.backbone import Backbone, ModelRef, load_tokenizer
from fac.chat import PLAIN_TEMPLATE, as_chat, encode
from fac.errors import FacError

FAMILIES = ("llama", "mistral", "qwen2")
DEPTH = 4
TEXTS = ["hi", "How do I bake bread at home without an oven?", "user " * 60, "Grüße 🍞"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_model(root / family, family) for family in FAMILIES}


@pytest.mark.parametrize("layer", [1, 2, 3, DEPTH])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_residual_is_the_full_models_hidden_state(models, family, layer):
    backbone = Backbone(ModelRef(str(models[family])), layer)
    batch = [encode(backbone.tokenizer, as_chat(text)).ids for text in TEXTS]
    residual = backbone.residual(batch)
    assert residual.shape == (len(batch), max(map(len, batch)), backbone.d_model)
    full = AutoModelForCausalLM.from_pretrained(models[family], dtype=torch.float32).eval()
    for row, ids in zip(residual, batch, strict=True):
        with torch.inference_mode():
            hidden = full(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
            # transformers reports the last hidden state behind the final norm, the residual stream is before it.
            own = full.model.norm(row[: len(ids)]) if layer == DEPTH else row[: len(ids)]
        torch.testing.assert_close(own, hidden, rtol=1e-4, atol=1e-4)


def test_only_the_layers_that_are_needed_are_loaded(models):
    full = AutoModelForCausalLM.from_pretrained(models["llama"])
    per_layer = sum(p.numel() for p in full.model.layers[0].parameters())
    rest = full.model.embed_tokens.weight.numel() + full.model.norm.weight.numel()
    for layer in (1, 3):
        module = Backbone(ModelRef(str(models["llama"])), layer)._model
        assert sum(p.numel() for p in module.parameters()) == rest + layer * per_layer


@pytest.mark.parametrize("layer", [-1, 0, DEPTH + 1])
def test_a_layer_that_does_not_exist_is_refused(models, layer):
    with pytest.raises(FacError, match=f"has 4 layers, so sae.layer={layer} does not exist: choose 1 to 4"):
        Backbone(ModelRef(str(models["llama"])), layer)


def test_a_missing_or_broken_folder_is_said(models, tmp_path):
    for path in (tmp_path / "nowhere", "./nowhere", "~/nowhere"):
        with pytest.raises(FacError, match="There is no model folder .*nowhere: set model.path"):
            Backbone(ModelRef(str(path)), 1)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FacError, match="cannot be loaded .*: give a folder with config.json"):
        Backbone(ModelRef(str(empty)), 1)
    bare = shutil.copytree(models["llama"], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(FacError, match="cannot be loaded"):
        Backbone(ModelRef(str(bare)), 1)


def test_the_template_is_the_tokenizers_own_or_plain(models, tmp_path):
    plain = load_tokenizer(ModelRef(str(models["qwen2"]), chat_template="plain"))
    assert plain.chat_template == PLAIN_TEMPLATE
    with pytest.raises(FacError, match="model.chat_template=chatml is unknown: leave it out or set it to plain"):
        load_tokenizer(ModelRef(str(models["qwen2"]), chat_template="chatml"))
    base = shutil.copytree(models["llama"], tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(FacError, match="has no chat template.*model.chat_template=plain"):
        Backbone(ModelRef(str(base)), 1)
    backbone = Backbone(ModelRef(str(base), chat_template="plain"), 1)
    assert encode(backbone.tokenizer, as_chat("hello")).ids[0] == backbone.tokenizer.bos_token_id


def test_identity_is_that_of_the_files_not_of_their_place(models, tmp_path, monkeypatch):
    here = ModelRef(str(models["llama"]))
    copy = shutil.copytree(models["llama"], tmp_path / "elsewhere" / "copy")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ModelRef(str(copy)).identity() == ModelRef("~/elsewhere/copy").identity() == here.identity()
    assert Backbone(ModelRef("~/elsewhere/copy"), 1).d_model == 64
    others = [ModelRef(here.path, chat_template="plain"), ModelRef(here.path, dtype="bfloat16")]
    others.append(ModelRef(str(tiny_model(tmp_path / "seed", "llama", seed=1))))
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    others.append(ModelRef(str(copy)))
    assert len({here.identity(), *(o.identity() for o in others)}) == 5


def test_a_fine_tuned_layer_anywhere_in_a_large_file_changes_the_identity(tmp_path):
    size, layer = 64 << 20, 2 << 20
    (tmp_path / "model.safetensors").write_bytes(b"")
    seen = set()
    for start in (None, 0, 5 << 20, size // 2 + 12345, size - layer):
        with (tmp_path / "model.safetensors").open("wb") as file:
            file.truncate(size)
            if start is not None:
                file.seek(start)
                file.write(b"\1" * layer)
        seen.add(ModelRef(str(tmp_path)).identity())
    assert len(seen) == 5


def test_a_hub_model_is_its_id_and_revision():
    refs = [ModelRef("org/none-such"), ModelRef("org/none-such", "abc"), ModelRef("org/none-such", dtype="float16")]
    assert len({ref.identity() for ref in refs}) == 3
    assert "org/none-such@abc" in refs[1].identity()


def test_the_fingerprint_is_that_of_the_weights_in_any_dtype(models, tmp_path):
    path = str(models["llama"])
    own = Backbone(ModelRef(path), 2).fingerprint()
    assert Backbone(ModelRef(path, dtype="bfloat16"), 2).fingerprint() == own
    assert Backbone(ModelRef(path), 3).fingerprint() != own
    assert Backbone(ModelRef(str(tiny_model(tmp_path, "llama", seed=1))), 2).fingerprint() != own
