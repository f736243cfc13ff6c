"""fac.from_gguf: a model that went through llama.cpp's format and back is the same model."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from support.models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from fac.backbone import Backbone, ModelRef, load_causal_lm
from fac.chat import as_chat, encode
from fac.errors import FacError
from fac.from_gguf import write_out

TEXTS = ("How do I bake bread at home without an oven?", "My neighbour's 12 parcels: naïve 你好  two  blanks")
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "llama")


def in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a projection in the order in which llama.cpp rotates them."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def written(folder: Path, file: Path, *, packed: bool = False, without: str = "-", cut: str = "gpt-2") -> Path:
    """A model of transformers as a GGUF file, as llama.cpp's converter lays it out; `packed`: matrices in 8 bits."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    words, config = AutoTokenizer.from_pretrained(folder), model.config
    out = gguf.GGUFWriter(file, "llama")
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    out.add_rope_freq_base(10_000.0)
    out.add_vocab_size(config.vocab_size)
    core = json.loads(words.backend_tokenizer.to_str())
    by_id = sorted(words.get_vocab().items(), key=lambda item: item[1])
    special = set(words.all_special_tokens)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(cut)
    out.add_token_list([token for token, _ in by_id])
    out.add_token_types([3 if token in special else 1 for token, _ in by_id])
    out.add_token_merges([" ".join(pair) for pair in core["model"]["merges"]])
    out.add_bos_token_id(words.bos_token_id)
    out.add_eos_token_id(words.eos_token_id)
    out.add_pad_token_id(words.pad_token_id)
    out.add_chat_template(words.chat_template)
    for name, tensor in model.state_dict().items():
        if without in name:
            continue
        value = tensor.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        if name.startswith("model.layers."):
            _, _, number, inner = name.removesuffix(".weight").split(".", 3)
            value = next((in_pairs(value, count) for end, count in heads.items() if inner.endswith(end)), value)
            called = f"blk.{number}.{NAMES[inner]}.weight"
        else:
            called = {
                "model.embed_tokens.weight": "token_embd.weight",
                "model.norm.weight": "output_norm.weight",
                "lm_head.weight": "output.weight",
            }[name]
        if packed and value.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            out.add_tensor(called, gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            out.add_tensor(called, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


def ids(folder: Path) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [encode(tokenizer, as_chat(text)).ids for text in TEXTS]


def test_a_model_that_went_through_gguf_is_the_same(model, tmp_path):
    write_out(written(model, tmp_path / "tiny.gguf"), tmp_path / "back")
    assert ids(tmp_path / "back") == ids(model)
    here, there = (Backbone(ModelRef(str(folder)), 3).residual(ids(model)) for folder in (tmp_path / "back", model))
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)
    assert "GGUF, F32" in json.loads((tmp_path / "back" / "config.json").read_text())["weights_of"]
    assert not list(tmp_path.glob("*.draft"))


def test_weights_of_a_few_bits_are_written_out_and_said(model, tmp_path):
    write_out(written(model, tmp_path / "tiny.Q8_0.gguf", packed=True), tmp_path / "back", dtype="bfloat16")
    told = json.loads((tmp_path / "back" / "config.json").read_text())
    assert told["weights_of"] == "tiny.Q8_0.gguf (GGUF, Q8_0), written out in bfloat16"
    assert "quantization_config" not in told
    loaded, _ = load_causal_lm(ModelRef(str(tmp_path / "back"), dtype="bfloat16"))
    original, _ = load_causal_lm(ModelRef(str(model)))
    assert loaded.dtype == torch.bfloat16
    for name, weight in original.state_dict().items():
        off = (loaded.state_dict()[name].float() - weight).abs().max()
        assert 0 <= off < 0.02 * weight.abs().max() + 1e-9


def test_what_cannot_be_written_out_exactly_is_refused(model, tmp_path):
    whole = written(model, tmp_path / "tiny.gguf")
    cases = {
        "cut off": (whole.read_bytes()[:2000], "cannot be read"),
        "another file": (b"PK\x03\x04", "is no GGUF file"),
        "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    }
    for name, (content, said) in cases.items():
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(content)
        with pytest.raises(FacError, match=said):
            write_out(file, tmp_path / "out")
    with pytest.raises(FacError, match=r"lacks weights \(model\.layers\.0\.mlp\.up_proj\.weight"):
        write_out(written(model, tmp_path / "less.gguf", without="up_proj"), tmp_path / "out")
    odd = written(model, tmp_path / "odd.gguf", cut="unheard-of")
    with pytest.raises(FacError, match="cuts texts as 'unheard-of' does.*--tokenizer"):
        write_out(odd, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_out(odd, tmp_path / "out", tokenizer=str(model))
    assert ids(tmp_path / "out") == ids(model)
    with pytest.raises(FacError, match="is there already"):
        write_out(whole, tmp_path / "out")
