"""Checkpoints that differ from a whole one in one way: other names, missing or strange tensors, other settings.

It imports nothing of the project under test.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def changed(model: Path, folder: Path, change: Callable[[Tensors], Tensors] | None = None, **settings: object) -> Path:
    """A copy of a model's folder with its tensors changed, and with other settings in its config.json."""
    shutil.copytree(model, folder)
    file, config = folder / "model.safetensors", folder / "config.json"
    if change is not None:
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
    return folder


def tied_usually(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != HEAD}


def tied_under_the_head(tensors: Tensors) -> Tensors:
    tensors[HEAD] = tensors.pop(EMBEDDING)
    return tensors


def gemma3(folder: Path, tokenizer_of: Path) -> Path:
    """A random Gemma 3 of text and images, whose sizes stand under text_config, with another model's tokenizer."""
    from transformers import AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 1024,
            "sliding_window": 8,
            "initializer_range": 0.1,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,  # as many as the text's: they must not be taken for them
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        boi_token_index=len(tokenizer) - 3,
        eoi_token_index=len(tokenizer) - 2,
        image_token_index=len(tokenizer) - 1,
        eos_token_id=tokenizer.eos_token_id,  # type: ignore[call-arg]
        bos_token_id=tokenizer.bos_token_id,  # type: ignore[call-arg]
        pad_token_id=tokenizer.pad_token_id,  # type: ignore[call-arg]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gemma3ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
