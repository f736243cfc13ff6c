"""fac.model_folder: what lies where a model's folder was meant is said in one sentence."""

import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from support.models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from fac.backbone import Backbone, ModelRef, load_causal_lm
from fac.errors import FacError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    base = AutoModelForCausalLM.from_pretrained(model)
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def refused(path, said):
    ref = ModelRef(str(path))
    ways = [lambda: Backbone(ref, 2), lambda: load_causal_lm(ref)]
    for load in ways if ref.is_local else [*ways, ref.identity]:
        with pytest.raises(FacError, match=said) as failure:
            load()
        assert "\n" not in str(failure.value)


def test_an_adapter_is_no_model(adapter):
    refused(adapter, r"is a LoRA adapter of .*llama, not a model: merge it into that .*set model\.path to the merged")


def test_an_adapter_beside_the_weights_is_not_put_on_them_without_a_word(model, adapter, tmp_path):
    both = shutil.copytree(model, tmp_path / "both")
    for file in adapter.glob("adapter_*"):
        shutil.copy(file, both)
    refused(both, r"holds an adapter \(adapter_config\.json\) beside the model")


@pytest.mark.parametrize("name", ["whole.safetensors", "whole.bin", "whole.pt"])
def test_one_file_of_weights_is_no_folder(model, tmp_path, name, monkeypatch):
    shutil.copy(model / "model.safetensors", tmp_path / name)
    refused(tmp_path / name, r"whole\.\w+ is one file of weights, and a model is a folder: .*model\.safetensors")
    monkeypatch.chdir(tmp_path)
    refused(name, "is one file of weights")


def test_a_gguf_file_is_to_be_written_out(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    for path in (tmp_path / "tiny.gguf", tmp_path):
        refused(path, r"tiny\.gguf is a GGUF file.*`python -m fac\.from_gguf .*tiny\.gguf FOLDER`")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(FacError, match=r"python -m fac\.from_gguf"):
        Backbone(ModelRef(str(tmp_path)), 2)
    refused("gone.gguf", "There is no model folder gone.gguf")


def test_another_file_and_a_folder_without_configuration(model, tmp_path):
    (tmp_path / "notes.md").write_text("about")
    refused(tmp_path / "notes.md", "is a file, and a model is a folder")
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "config.json").unlink()
    refused(bare, r"has no config\.json, so it is no model's folder \(it holds model\.safetensors\)")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"has no config\.json.*it holds no weights")


def test_weights_under_another_name_are_named(model, tmp_path):
    tensors = load_file(model / "model.safetensors")
    without = shutil.ignore_patterns("model.safetensors")
    for name in ("consolidated.00.pth", "model.pt", "weights.safetensors"):
        folder = shutil.copytree(model, tmp_path / name, ignore=without)
        if name.endswith("safetensors"):
            save_file(tensors, folder / name)
        else:
            torch.save(tensors, folder / name)
        refused(folder, rf"under a name that is read .* but {name}: rename it")
    folder = shutil.copytree(model, tmp_path / "shards", ignore=without)
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder, max_shard_size="200KB")
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, r"shards of weights in .*, but not their index model\.safetensors\.index\.json")
