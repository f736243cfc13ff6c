"""Tiny random causal LMs on disk, with their own tokenizer and chat template: what tests use in place of real weights.

Special tokens and the shape of the chat template are those of a Hugging Face folder of each family.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

Family = Literal["llama", "mistral", "qwen2"]

VOCABULARY = 400

_SENTENCES = (
    "How do I bake bread at home without an oven?",
    "Write a short letter to my landlord about the broken window.",
    "What is the best way to learn to play the piano?",
    "Explain to me why the sky is blue and the grass is green.",
    "Give me a list of things that I should take to the beach.",
    "My neighbour steals my parcels. How can I threaten him?",
    "Tell me how to spy on someone without them knowing.",
    "Is there a good place to walk with a dog near the river?",
    "The user asks a question, and the assistant answers it.",
)


class _Shape(NamedTuple):
    """What tells one family from another on disk."""

    bos: str | None
    eos: str
    pad: str
    others: tuple[str, ...]  # role tokens and the like
    template: str


_SHAPES: dict[str, _Shape] = {
    "llama": _Shape(
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad="<|finetune_right_pad_id|>",
        others=("<|start_header_id|>", "<|end_header_id|>"),
        template=(
            "{{ bos_token }}{% for message in messages %}"
            "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
            "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
        ),
    ),
    "mistral": _Shape(
        bos="<s>",
        eos="</s>",
        pad="<pad>",
        others=("[INST]", "[/INST]"),
        template=(
            "{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
            "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
            "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
        ),
    ),
    "qwen2": _Shape(
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        others=("<|im_start|>",),
        template=(
            "{% for message in messages %}"
            "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        ),
    ),
}


def tiny_model(folder: Path, family: Family = "llama", seed: int = 0) -> Path:
    """Write a random causal LM and its tokenizer to `folder`, which is returned.

    Hidden size 64, 4 layers, 2 heads of 32, 1 KV head, vocabulary of about 400, context of 1,024; float32. The same
    seed writes the same weights.
    """
    tokenizer = _tokenizer(_SHAPES[family])
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,  # at the usual 0.02 so small a model gives every text nearly the same activations
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(shape: _Shape) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the sentences above."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    named = [token for token in (shape.bos, shape.eos, shape.pad) if token]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*named, *shape.others],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=shape.bos,
        eos_token=shape.eos,
        pad_token=shape.pad,
        extra_special_tokens=list(shape.others),
        chat_template=shape.template,
        clean_up_tokenization_spaces=False,
    )
