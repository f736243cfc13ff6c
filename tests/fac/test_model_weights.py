"""fac.model_weights: what is loaded is what is meant, or it is refused by the names of files and tensors."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import EMBEDDING, HEAD, changed, gemma3, tied_under_the_head, tied_usually
from support.models import tiny_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from fac.backbone import Backbone, ModelRef, load_causal_lm
from fac.chat import as_chat, encode
from fac.errors import FacError
from fac.model_weights import check_weights, load_adapter
from fac.train.sequence import load_network
from fac.train.settings import ClassifierSettings

IDS = [[5, 6, 7, 8, 9, 10], [11, 12, 13]]
UP = "model.layers.0.mlp.up_proj.weight"
DEEP = "model.layers.3.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "llama")


def ref(folder):
    return ModelRef(str(folder))


def loaders(folder):
    """Every way in which the project loads weights."""
    settings = ClassifierSettings()
    return {
        "backbone": lambda: Backbone(ref(folder), 2),
        "causal": lambda: load_causal_lm(ref(folder)),
        "network": lambda: load_network(ref(folder), settings, 2),
    }


# Tied embeddings


@pytest.mark.parametrize("layer", [2, 4])
def test_an_embedding_stored_under_the_heads_name_only_is_that_of_the_usual_name(model, tmp_path, layer):
    usual = changed(model, tmp_path / "usual", tied_usually, tie_word_embeddings=True)
    odd = changed(usual, tmp_path / "odd", tied_under_the_head)
    assert torch.equal(Backbone(ref(odd), layer).residual(IDS), Backbone(ref(usual), layer).residual(IDS))
    ids = torch.tensor(IDS[:1])
    with torch.inference_mode():
        logits = [load_causal_lm(ref(folder))[0](ids).logits for folder in (odd, usual)]
    assert torch.equal(*logits)
    assert Backbone(ref(odd), layer).fingerprint() == Backbone(ref(usual), layer).fingerprint()


def test_a_network_on_it_has_its_embedding_and_the_head_that_the_seed_draws(model, tmp_path):
    usual = changed(model, tmp_path / "usual", tied_usually, tie_word_embeddings=True)
    odd = changed(usual, tmp_path / "odd", tied_under_the_head)
    networks = []
    for folder in (usual, odd, odd):
        torch.manual_seed(3)
        networks.append(load_network(ref(folder), ClassifierSettings(), 2))
    stored = load_file(odd / "model.safetensors")[HEAD]
    for network in networks:
        assert torch.equal(network.get_input_embeddings().weight, stored)
        assert torch.equal(network.score.weight, networks[0].score.weight)


def test_a_tie_of_two_different_tensors_is_refused(model, tmp_path):
    folder = changed(model, tmp_path / "untied", tie_word_embeddings=True)
    for load in loaders(folder).values():
        with pytest.raises(FacError, match=rf"ties the embedding to the head, but {EMBEDDING} and {HEAD} differ"):
            load()
    same = changed(model, tmp_path / "same", lambda t: {**t, HEAD: t[EMBEDDING].clone()}, tie_word_embeddings=True)
    for load in loaders(same).values():
        load()


# Tensors that are not there, too many, or others


def prefixed(prefix):
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def without(*names):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


FAULTS = {
    "all under another prefix": (prefixed("base_model.model."), r"missing: .*and \d+ more; not part of it: base_model"),
    "in a wrapper of another kind": (prefixed("language_model."), r"missing: .*; not part of it: language_model"),
    "one missing": (without(UP), r"missing: [\w.]*layers\.0\.mlp\.up_proj\.weight\)"),
    "the embedding missing": (without(EMBEDDING), r"missing: [\w.]*embed_tokens\.weight\)"),
    "one of another shape": (
        lambda t: {**t, UP: torch.zeros(3, 5)},
        r"of another shape: .*up_proj.*\[3, 5\] in place of",
    ),
    "a layer too many": (
        lambda t: {**t, UP.replace("0", "4"): t[UP].clone()},
        r"not part of it: model\.layers\.4\.mlp\.up_proj\.weight\)",
    ),
    "one of another kind of model": (
        lambda t: {**t, "model.layers.0.self_attn.q_norm.weight": torch.ones(32)},
        r"not part of it: model\.layers\.0\.self_attn\.q_norm\.weight\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_unknown_or_of_another_shape_is_refused_by_name(model, tmp_path, fault):
    change, said = FAULTS[fault]
    folder = changed(model, tmp_path / "broken", change)
    for load in loaders(folder).values():
        with pytest.raises(FacError, match=f"not those of the LlamaForCausalLM .*{said}"):
            load()


def test_layers_behind_the_one_that_is_read_may_be_missing(model, tmp_path):
    folder = changed(model, tmp_path / "cut", without(DEEP))
    whole, cut = (Backbone(ref(f), 2).residual(IDS) for f in (model, folder))
    assert torch.equal(whole, cut)
    for load in (lambda: Backbone(ref(folder), 4), lambda: load_causal_lm(ref(folder))):
        with pytest.raises(FacError, match=r"missing: [\w.]*layers\.3\.mlp\.up_proj\.weight\)"):
            load()


def test_a_model_without_its_head_can_be_measured_but_not_asked(model, tmp_path):
    folder = changed(model, tmp_path / "headless", without(HEAD))
    assert torch.equal(Backbone(ref(folder), 2).residual(IDS), Backbone(ref(model), 2).residual(IDS))
    with pytest.raises(FacError, match=rf"missing: {HEAD}\)"):
        load_causal_lm(ref(folder))


def test_buffers_that_old_versions_stored_and_names_without_prefix_are_taken(model, tmp_path):
    old = changed(
        model, tmp_path / "old", lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    )
    bare = changed(model, tmp_path / "bare", lambda t: {n.removeprefix("model."): v for n, v in t.items()})
    for folder in (old, bare):
        assert torch.equal(Backbone(ref(folder), 2).residual(IDS), Backbone(ref(model), 2).residual(IDS))
        load_causal_lm(ref(folder))


def test_a_checkpoint_with_a_head_of_its_own_is_no_base_for_a_new_one(model, tmp_path):
    for width in (1, 2):
        change = lambda t, w=width: {**without(HEAD)(t), "score.weight": torch.ones(w, 64)}  # noqa: E731
        folder = changed(model, tmp_path / str(width), change)
        with pytest.raises(FacError, match=r"score\.weight"):
            load_network(ref(folder), ClassifierSettings(), 2)


# Files


def damaged(value):
    def change(tensors):
        tensors[UP][1, 2] = value
        return tensors

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_before_anything_is_computed(model, tmp_path, value):
    folder = changed(model, tmp_path / "broken", damaged(value))
    for load in loaders(folder).values():
        with pytest.raises(FacError, match=rf"{UP} holds NaN or infinity. Fetch or train them again\."):
            load()


def pointer(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 99\n")


def truncated(file):
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("model.safetensors", truncated, r"model\.safetensors is not whole .*: fetch it again"),
        ("model.safetensors", pointer, r"model\.safetensors is the pointer that Git LFS leaves .*git lfs pull"),
        ("tokenizer.json", pointer, r"tokenizer\.json is the pointer that Git LFS"),
        ("tokenizer.json", truncated, "cannot be loaded"),
        ("model.safetensors", lambda file: file.write_bytes(b""), r"model\.safetensors is empty"),
        ("model.safetensors", lambda file: file.write_text("<html>404</html>"), r"model\.safetensors is not whole"),
        ("config.json", lambda file: file.write_text("{"), "cannot be loaded"),
        ("model.safetensors", lambda file: file.unlink(), "There are no weights in"),
    ],
)
def test_files_that_are_not_whole_are_said_in_one_sentence(model, tmp_path, name, spoil, said):
    folder = shutil.copytree(model, tmp_path / "broken")
    spoil(folder / name)
    for load in (lambda: Backbone(ref(folder), 2), lambda: load_causal_lm(ref(folder))):
        with pytest.raises(FacError, match=said) as failure:
            load()
        assert "\n" not in str(failure.value)


def test_shards_are_looked_at_one_by_one(model, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder, max_shard_size="200KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(Backbone(ref(folder), 2).residual(IDS), Backbone(ref(model), 2).residual(IDS))
    kept = shards[-1].read_bytes()
    truncated(shards[-1])
    with pytest.raises(FacError, match=f"{shards[-1].name} is not whole"):
        Backbone(ref(folder), 2)
    shards[-1].unlink()
    with pytest.raises(FacError, match=f"{shards[-1].name} is missing: fetch the model again"):
        Backbone(ref(folder), 2)
    shards[-1].write_bytes(kept)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(FacError, match="index of the weights .* cannot be read"):
        Backbone(ref(folder), 2)


def test_files_of_torch_are_read_and_looked_at_too(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "bin")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert torch.equal(Backbone(ref(folder), 2).residual(IDS), Backbone(ref(model), 2).residual(IDS))
    torch.save(damaged(float("nan"))(tensors), folder / "pytorch_model.bin")
    with pytest.raises(FacError, match="holds NaN or infinity"):
        Backbone(ref(folder), 2)
    truncated(folder / "pytorch_model.bin")
    with pytest.raises(FacError, match=r"pytorch_model\.bin is not whole"):
        Backbone(ref(folder), 2)


# Models of several parts


def test_of_a_model_of_text_and_images_the_language_model_is_read(model, tmp_path):
    folder = gemma3(tmp_path / "gemma", model)
    full = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    for layer in (1, 3):
        backbone = Backbone(ref(folder), layer)
        assert (backbone.d_model, backbone.layer) == (64, layer)
        ids = encode(backbone.tokenizer, as_chat("How do I bake bread at home without an oven?")).ids
        with torch.inference_mode():
            hidden = full(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer]
        torch.testing.assert_close(backbone.residual([ids]), hidden, rtol=1e-5, atol=1e-5)
    with pytest.raises(FacError, match="has 4 layers, so sae.layer=5 does not exist"):
        Backbone(ref(folder), 5)


def test_a_wrapper_tied_under_the_head_only_is_read_too(model, tmp_path):
    folder = gemma3(tmp_path / "gemma", model)
    stored = load_file(folder / "model.safetensors")
    own = next(name for name in stored if name.endswith("embed_tokens.weight"))
    odd = shutil.copytree(folder, tmp_path / "odd")
    head = own.replace("model.embed_tokens", "lm_head")
    renamed = {head if name == own else name: tensor for name, tensor in stored.items()}
    save_file(renamed, odd / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(Backbone(ref(odd), 2).residual(IDS), Backbone(ref(folder), 2).residual(IDS))
    lost = {name: tensor for name, tensor in stored.items() if name != own}
    save_file(lost, odd / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FacError, match=r"missing: .*embed_tokens\.weight"):
        Backbone(ref(odd), 2)


# Adapters


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter") / "lora"
    base = AutoModelForCausalLM.from_pretrained(model)
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder, save_embedding_layers=False)
    return folder


def test_an_adapter_must_hold_exactly_what_it_adds(model, adapter, tmp_path):
    tensors = load_file(adapter / "adapter_model.safetensors")
    load_causal_lm(ModelRef(str(model), adapter=str(adapter)))
    first, *_ = sorted(tensors)
    nan = {**tensors, first: torch.full_like(tensors[first], float("nan"))}
    cases = {
        "missing": ({n: t for n, t in tensors.items() if n != first}, rf"missing: {first}\)"),
        "renamed": (
            {n.replace("base_model.", ""): t for n, t in tensors.items()},
            "missing: .*; not part of it: model",
        ),
        "extra": ({**tensors, "base_model.model.more": torch.ones(2)}, r"not part of it: base_model\.model\.more"),
        "reshaped": ({**tensors, first: torch.zeros(2, 3)}, "does not go with"),
        "nan": (nan, f"{first} holds NaN or infinity"),
    }
    for name, (held, said) in cases.items():
        broken = shutil.copytree(adapter, tmp_path / name)
        save_file(held, broken / "adapter_model.safetensors")
        with pytest.raises(FacError, match=said):
            load_causal_lm(ModelRef(str(model), adapter=str(broken)))
    broken = shutil.copytree(adapter, tmp_path / "cut")
    truncated(broken / "adapter_model.safetensors")
    with pytest.raises(FacError, match="is not whole"):
        load_adapter(AutoModelForCausalLM.from_pretrained(model), broken, "base")


def test_looking_draws_no_random_number_and_prints_nothing(model, capfd):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    config = json.loads((model / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    Backbone(ref(model), 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert check_weights(AutoModelForCausalLM, ref(model), AutoModelForCausalLM.from_pretrained(model).config) is None
