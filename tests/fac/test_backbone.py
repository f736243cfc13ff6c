"""fac.backbone against transformers' own full models."""

import json
import shutil

import pytest
import torch
from support.models import tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from fac.backbone import Backbone, ModelRef, first_layers, load_tokenizer
from fac.chat import PLAIN_TEMPLATE, TEMPLATES, as_chat, encode
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
    with pytest.raises(FacError, match="has no config.json.*set model.path to the folder"):
        Backbone(ModelRef(str(empty)), 1)
    bare = shutil.copytree(models["llama"], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(FacError, match="There are no weights in .*fetch the model again"):
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


def test_one_changed_byte_anywhere_in_a_large_file_changes_the_identity(tmp_path):
    size = 64 << 20
    seen = set()
    for place in (None, 0, 5 << 20, size // 2 + 12345, size - 1):
        with (tmp_path / "model.safetensors").open("wb") as file:
            file.truncate(size)
            if place is not None:
                file.seek(place)
                file.write(b"\1")
        seen.add(ModelRef(str(tmp_path)).identity())
    assert len(seen) == 5


def test_a_hub_model_is_its_id_and_the_commit_that_its_revision_is_at(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pinned = [ModelRef("org/none-such", commit * 40) for commit in "ab"]
    pinned.append(ModelRef("org/none-such", "a" * 40, dtype="float16"))
    assert len({ref.identity() for ref in pinned}) == 3
    assert f"org/none-such@{'a' * 40}" in pinned[0].identity()
    with pytest.raises(FacError, match="The model or SAE org/none-such cannot be loaded from the hub .*give a folder"):
        ModelRef("org/none-such").identity()


def test_the_dtype_in_the_identity_is_that_of_the_weights_in_memory(models, monkeypatch):
    """A store may be carried from a laptop to a node with a GPU: "auto" is not the same there."""
    path = str(models["llama"])
    on_a_cpu = {dtype: ModelRef(path, dtype=dtype).identity() for dtype in ("auto", "float32", "bfloat16")}
    assert on_a_cpu["auto"] == on_a_cpu["float32"] != on_a_cpu["bfloat16"]
    monkeypatch.setattr("fac.model_ref.default_device", lambda: torch.device("cuda"))
    assert ModelRef(path).identity() not in on_a_cpu.values()
    assert ModelRef(path, dtype="float32").identity() == on_a_cpu["float32"]


def test_a_template_that_is_named_counts_by_its_text(models, monkeypatch):
    ref = ModelRef(str(models["llama"]), chat_template="plain")
    before = ref.identity()
    monkeypatch.setitem(TEMPLATES, "plain", PLAIN_TEMPLATE + " ")
    assert ref.identity() != before


def test_the_fingerprint_is_that_of_the_weights_in_any_dtype(models, tmp_path):
    path = str(models["llama"])
    own = Backbone(ModelRef(path), 2).fingerprint()
    assert Backbone(ModelRef(path, dtype="bfloat16"), 2).fingerprint() == own
    assert Backbone(ModelRef(path), 3).fingerprint() != own
    assert Backbone(ModelRef(str(tiny_model(tmp_path, "llama", seed=1))), 2).fingerprint() != own


def test_a_text_longer_than_the_models_positions_is_said_once(models, caplog):
    backbone = Backbone(ModelRef(str(models["llama"])), 1)
    backbone.residual([[5] * 1024])
    assert not caplog.messages
    for _ in range(2):
        backbone.residual([[5] * 1025])
    (said,) = caplog.messages
    assert "was made for texts of 1024 tokens (max_position_embeddings), and some are longer" in said


def test_a_tokenizer_without_padding_and_end_measures_the_same(models, tmp_path):
    folder = shutil.copytree(models["llama"], tmp_path / "nopad")
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in told.items() if k not in ("pad_token", "eos_token")}))
    usual, odd = (Backbone(ModelRef(str(path)), 2) for path in (models["llama"], folder))
    batch = [encode(usual.tokenizer, as_chat(text)).ids for text in TEXTS]
    assert odd.tokenizer.pad_token_id is None
    for ids, one, other in zip(batch, usual.residual(batch), odd.residual(batch), strict=True):
        assert torch.equal(one[: len(ids)], other[: len(ids)])


def test_an_encoder_decoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 8, "num_layers": 2}))
    with pytest.raises(FacError, match="is an encoder-decoder model .*only decoder-only"):
        Backbone(ModelRef(str(tmp_path)), 1)


def test_a_cut_model_has_a_list_entry_for_each_layer_only(models):
    config = AutoConfig.for_model("qwen2", num_hidden_layers=4, use_sliding_window=True, max_window_layers=2)
    config.eos_token_id = [1, 2, 3, 4]  # as many as layers
    shorter = first_layers(config, 3)
    assert shorter.layer_types == config.layer_types[:3]
    assert (shorter.num_hidden_layers, shorter.eos_token_id) == (3, [1, 2, 3, 4])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_causal_model_needs_no_mask_and_another_gets_one(models, family):
    backbone = Backbone(ModelRef(str(models[family])), 2)
    masks = []
    backbone._model.register_forward_pre_hook(
        lambda _module, _args, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    batch = [[5, 6, 7], [8]]
    alone = backbone.residual([[8]])[0, 0]
    torch.testing.assert_close(backbone.residual(batch)[1, 0], alone, rtol=1e-4, atol=1e-5)
    assert backbone.is_causal
    assert all(mask is None for mask in masks)

    seeing = Backbone(ModelRef(str(models[family])), 2)
    first = seeing._model.layers[0]
    first.register_forward_hook(lambda _module, _args, out: out + 1e-3 * out.mean(dim=1, keepdim=True))
    assert not seeing.is_causal  # its tokens see later ones
    seeing._model.register_forward_pre_hook(
        lambda _module, _args, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    seeing.residual(batch)
    assert masks[-1].tolist() == [[1, 1, 1], [1, 0, 0]]
