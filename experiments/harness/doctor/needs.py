"""What work needs, by formula: memory, disk, floating-point operations, tokens asked of LLMs.

Models are known by their shape, work by its numbers. The assumptions below are printed with the estimates, which are
meant to be right within a factor of two or three. Bytes, tokens and FLOP throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fac.train.settings import PROJECTIONS

# Assumptions.
TEXT_TOKENS = 178  # mean length of a text at paper scale (paper App. J: mean query)
LAB_TOKENS = 25  # ... in the lab's world
PROMPT_TOKENS = 400  # of a request, without the spans it shows
REPLY_TOKENS = 150  # mean length of a reply, where more is allowed
ASSUMED_TEXTS = 10_000  # of a data set that is not here, has no limit, and is none of these:
KNOWN_TEXTS = {  # by hub id, or by the name of a file
    "Anthropic/hh-rlhf": 40_000,  # one of its parts
    "anon8231489123/ShareGPT_Vicuna_unfiltered": 94_000,
    "THUDM/webglm-qa": 44_000,
    "WizardLMTeam/WizardLM_evol_instruct_70k": 70_000,
    "nvidia/HelpSteer2": 20_000,
    "lmsys/toxic-chat": 5_000,  # one split
    "allenai/reward-bench": 2_985,  # filtered
    "tatsu-lab/alpaca": 52_000,
    "tatsu-lab/alpaca_eval": 805,
    "generate_dataset.json": 1_000,  # CAA
    "test_dataset_ab.json": 50,
}
CHAT_BATCH = 64  # requests that the transformers engine continues at once
COMPUTED = 0.4  # share of the matmul peak that forward and backward passes reach
DECODED = {"transformers": 0.02, "vllm": 0.1}  # ... that generation reaches, by engine
H100_FLOPS = 6e14  # matmul peak in bf16 that is reached on one H100
# Bytes kept for the backward pass per token and layer, for each of (d_model, d_ff, key-value width), by (bfloat16 under
# autocast with float32 adapters, dropout in the adapters). Measured with saved-tensor hooks on LLaMA's layer with LoRA
# on all seven projections; tests/experiments/doctor/test_needs.py measures again.
KEPT = {(True, False): (24, 8, 4), (True, True): (48, 12, 4), (False, False): (24, 16, 8), (False, True): (64, 20, 8)}
ALLOCATED = 1.2  # memory taken per byte kept: on an H100, 8.0 MiB a token of LLaMA-3.1-8B where 6.6 are kept
LOGIT_BYTES = 12  # per token and entry of the vocabulary: logits, log-probabilities, both gradients
GIB = 1 << 30

# What config.json says of the paper's models, for machines that have not fetched it.
_LLAMA3 = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
PAPER_MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", _LLAMA3),
    "meta-llama/Meta-Llama-3-8B": ("llama", _LLAMA3),
    "mistralai/Mistral-7B-Instruct-v0.2": ("mistral", {**_LLAMA3, "vocab_size": 32000}),
    "Qwen/Qwen2-7B-Instruct": (
        "qwen2",
        {**_LLAMA3, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A causal LM in numbers."""

    params: int
    layers: int
    layer_params: int
    d_model: int
    d_ff: int
    kv_width: int  # key-value heads x their width
    vocab: int
    lora_width: int  # inputs + outputs of the projections of all layers: a LoRA of rank r has r x as many parameters

    def up_to(self, layer: int) -> int:
        """Parameters that are computed with for the residual after `layer`."""
        return min(layer, self.layers) * self.layer_params

    def kv_bytes(self, tokens: int, size: int) -> int:
        return 2 * self.layers * self.kv_width * tokens * size


def shape_of(config: Any) -> Shape:
    """The shape of the model that a transformers config describes; its weights are not made."""
    import torch
    from transformers import AutoModelForCausalLM

    from fac.backbone import decoder_layers

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()  # of a model of text and images its language model
    layers = decoder_layers(model, text.num_hidden_layers, str(config.model_type))
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    lora = sum(
        module.in_features + module.out_features
        for name, module in layers[0].named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in PROJECTIONS
    )
    return Shape(
        params=sum(p.numel() for p in model.parameters()),
        layers=text.num_hidden_layers,
        layer_params=sum(p.numel() for p in layers[0].parameters()),
        d_model=text.hidden_size,
        d_ff=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        kv_width=heads * head_dim,
        vocab=text.vocab_size,
        lora_width=text.num_hidden_layers * lora,
    )


@dataclass(frozen=True)
class Encoder:
    """Layer and SAE that texts are measured with."""

    layer: int
    width: int
    k: int | None  # None: Top-K is off, or not known


def paper_encoder(shape: Shape) -> Encoder:
    """What the paper measures with: half the depth, 2^16 features, K 20 (App. J)."""
    return Encoder(shape.layers // 2, 65536, 20)


@dataclass(frozen=True)
class TrainingLoad:
    """One training in numbers."""

    task: str
    rows: int
    tokens: int  # mean length of a row
    epochs: int
    longest: int  # tokens of the longest row
    batch: int  # rows at once
    rank: int
    dropout: float
    bf16: bool
    float64: bool
    checkpointed: bool  # gradient checkpointing
    head_only: bool
    next_token: bool  # what is trained predicts tokens, with logits over the vocabulary

    @property
    def trained_tokens(self) -> int:
        return self.rows * self.epochs * min(self.tokens, self.longest)


@dataclass(frozen=True)
class Asked:
    """What is asked of an LLM: requests, and tokens in prompts and replies together."""

    requests: int
    prompt: int
    reply: int

    def __add__(self, other: Asked) -> Asked:
        return Asked(self.requests + other.requests, self.prompt + other.prompt, self.reply + other.reply)


NOTHING = Asked(0, 0, 0)


def asked(requests: int, longest: int, shown: int = 0) -> Asked:
    """Requests that show `shown` tokens beside their prompt, with replies of at most `longest` tokens."""
    return Asked(requests, requests * (PROMPT_TOKENS + shown), requests * min(longest, REPLY_TOKENS))


# -------------------------------------------------------------------------------------------------------------- FLOP


def measuring_flop(shape: Shape, encoder: Encoder, tokens: int) -> float:
    """A forward pass of the first layers, and the SAE's encoder."""
    return 2.0 * tokens * (shape.up_to(encoder.layer) + shape.d_model * encoder.width)


def sae_training_flop(shape: Shape, layer: int, width: int, tokens: int) -> float:
    """A forward pass of the first layers; forward and backward pass of encoder and decoder."""
    return 2.0 * tokens * shape.up_to(layer) + 12.0 * tokens * shape.d_model * width


def training_flop(shape: Shape, tokens: int) -> float:
    """LoRA: forward pass, and a backward pass without gradients of the frozen weights."""
    return 4.0 * shape.params * tokens


def testing_flop(shape: Shape, tokens: int) -> float:
    return 2.0 * shape.params * tokens


def asking_seconds(shape: Shape, asked: Asked, engine: str, flops: float) -> float:
    """Prompts at the speed of computing, replies at that of decoding."""
    return 2.0 * shape.params * (asked.prompt / COMPUTED + asked.reply / DECODED[engine]) / flops


# ------------------------------------------------------------------------------------------------------------ memory


def encoder_bytes(shape: Shape, encoder: Encoder, batch_tokens: int, encode_elements: int, size: int) -> int:
    """The first layers, the embeddings, their activations, the SAE, and two blocks of features.

    The blocks are the SAE's activations (4 bytes) and the maxima of a batch of texts with their positions (8 bytes).
    """
    weights = (shape.up_to(encoder.layer) + shape.vocab * shape.d_model) * size
    activations = batch_tokens * (4 * shape.d_model + 3 * shape.d_ff) * size
    sae = 2 * shape.d_model * encoder.width * 4
    return weights + activations + sae + 3 * min(encode_elements, batch_tokens * encoder.width) * 4


def writer_bytes(shape: Shape, longest: int, size: int) -> int:
    """The whole model, its key-value cache, and the logits of one batch in double precision."""
    return shape.params * size + shape.kv_bytes(CHAT_BATCH * longest, size) + 3 * CHAT_BATCH * shape.vocab * 8


def training_bytes(shape: Shape, load: TrainingLoad, on_gpu: bool) -> int:
    """Frozen weights; LoRA with gradients and Adam (float32); activations kept for the backward pass; logits.

    With gradient checkpointing only what enters each layer is kept, and the rest of one layer at a time.
    """
    half = on_gpu and load.bf16 and not load.float64
    size = 2 if half else 8 if load.float64 else 4
    tokens = load.batch * load.longest
    adapters = load.rank * shape.lora_width * 16
    if load.head_only:  # the backbone runs once, without gradients
        return shape.params * size + tokens * (4 * shape.d_model + 3 * shape.d_ff) * size
    of_model, of_ff, of_kv = KEPT[half, load.dropout > 0]
    within = of_model * shape.d_model + of_ff * shape.d_ff + of_kv * shape.kv_width
    entering = shape.layers * shape.d_model * size
    within *= 2 if load.float64 else 1
    kept = entering + within if load.checkpointed else shape.layers * within
    logits = tokens * shape.vocab * LOGIT_BYTES if load.next_token else 0
    return int(shape.params * size + adapters + ALLOCATED * tokens * kept + logits)


def sae_training_bytes(shape: Shape, layer: int, width: int, size: int) -> int:
    """The first layers; encoder and decoder with gradients and Adam in float32."""
    return (shape.up_to(layer) + shape.vocab * shape.d_model) * size + 2 * shape.d_model * width * 16


# -------------------------------------------------------------------------------------------------------------- disk


def measured_bytes(encoder: Encoder, texts: int, tokens: int, top_spans: int) -> int:
    """Pooled activations and top spans of texts of `tokens` tokens, and the texts themselves."""
    per_text = min(encoder.width, encoder.k * tokens) if encoder.k else encoder.width // 2
    return texts * per_text * 8 + encoder.width * top_spans * 16 + math.ceil(texts * tokens * 6)


def trained_bytes(shape: Shape, rank: int) -> int:
    """An adapter with its tokenizer."""
    return rank * shape.lora_width * 4 + shape.vocab * 140


def sae_bytes(shape: Shape, width: int) -> int:
    """A trained SAE, and one checkpoint of its training with Adam's state."""
    return 4 * 2 * shape.d_model * width * 4
