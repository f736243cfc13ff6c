"""Models and SAEs of a given shape with random weights, and texts for them: what benches run on without downloads."""

from __future__ import annotations

import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerBase

from fac.backbone import Backbone, ModelRef, load_tokenizer
from fac.errors import FacError
from fac.lab import shipped
from fac.lab.world.corpora import Sizes, draw_corpus
from fac.sae.load import Sae


@dataclass(frozen=True)
class Shape:
    """Of a LLaMA and of a Top-K SAE on its layer `cut`; without arguments Llama-3.1-8B and the paper's SAE."""

    hidden: int = 4096
    intermediate: int = 14336
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    vocabulary: int = 128256
    cut: int = 16  # layers that the features need
    width: int = 65536
    k: int = 20


def decoder_weights(shape: Shape) -> int:
    """Weights of one decoder layer's matrices."""
    attention = 2 * shape.hidden**2 * (shape.heads + shape.kv_heads) // shape.heads
    return attention + 3 * shape.hidden * shape.intermediate


def describe(folder: Path, shape: Shape) -> LlamaConfig:
    """Write the configuration of a model of the shape, and the lab's tokenizer: a model without weights."""
    tokenizer: Any = load_tokenizer(ModelRef(str(shipped("llama"))))
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=max(shape.vocabulary, len(tokenizer)),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return config


def write_model(folder: Path, shape: Shape, device: torch.device) -> float:
    """A random LLaMA of the shape in `folder`, in bfloat16, with the lab's tokenizer; returns its size in GiB."""
    config = describe(folder, shape)
    weights = decoder_weights(shape) * shape.layers + 2 * config.vocab_size * shape.hidden
    if shutil.disk_usage(folder).free < 2.2 * weights:
        raise FacError(
            f"{folder} has less than {2.2 * weights / 2**30:.0f} GiB free, which the random model needs: set TMPDIR."
        )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4GB")
    return 2 * weights / 2**30


def random_backbone(folder: Path, shape: Shape, device: torch.device, dtype: torch.dtype) -> Backbone:
    """The first layers of the model that `describe` wrote, with random weights made where they are used."""

    def load(config: Any) -> Any:
        torch.manual_seed(0)
        with torch.device(device):
            return AutoModel.from_config(config, dtype=dtype)

    return Backbone(ModelRef(str(folder)), shape.cut, device, load)


def random_sae(shape: Shape, device: torch.device, dtype: torch.dtype, **how: Any) -> Sae:
    """An SAE of the shape with random weights, ready to encode. It fits nothing, so `fac.sae.load` would refuse it."""
    from sae_lens import TopKSAE, TopKSAEConfig

    name = str(dtype).removeprefix("torch.")
    torch.manual_seed(0)
    module = TopKSAE(TopKSAEConfig(d_in=shape.hidden, d_sae=shape.width, k=shape.k, dtype=name, device=str(device)))
    torch.nn.init.normal_(module.W_enc, std=shape.hidden**-0.5)
    return Sae(module, {}, **how)


def texts_of(tokenizer: PreTrainedTokenizerBase, count: int, mean: int, longest: int) -> list[str]:
    """Queries of the lab, strung together to log-normal lengths as real queries have, about `mean` tokens each."""
    rng = random.Random(f"{count}/{mean}")
    queries = [example.text for example in draw_corpus("anchor", 0, Sizes(anchor=500))]
    lengths = [len(ids) for ids in tokenizer(queries, add_special_tokens=False)["input_ids"]]
    spread, made = 0.7, []
    for _ in range(count):
        wanted = min(rng.lognormvariate(math.log(mean) - spread**2 / 2, spread), longest - 16)
        parts, tokens = [], 0
        while tokens < wanted:
            place = rng.randrange(len(queries))
            parts.append(queries[place])
            tokens += lengths[place] + 1
        made.append(" ".join(parts))
    return made
