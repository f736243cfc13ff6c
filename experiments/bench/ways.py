"""Ways to get from texts to pooled features, each as its users write it, on one model and SAE.

Those of others give the maximum of each feature over all tokens of each text, sparse, and nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from fac.backbone import Backbone, decoder_layers
from fac.chat import Message
from fac.features.batches import Batch, windows
from fac.features.extract import Extractor
from fac.features.settings import FeatureSettings
from fac.sae.load import Sae
from fac.sae.settings import Product

PROMPTS = 16  # that a script pads to one length
Pooled = list[torch.Tensor]  # [width] of each text, sparse
STORED = 32  # that sae-lens' store takes at a time
SPAN = 32  # tokens of a span


class Stop(Exception):
    """Ends a forward pass at a layer."""


@dataclass(frozen=True)
class Bench:
    """What is measured with: a whole model, its first layers as a backbone, an SAE of sae-lens, and chats."""

    name: str
    full: Any  # AutoModelForCausalLM
    backbone: Backbone
    half: Backbone  # the same in bfloat16
    module: Any  # of sae-lens
    chats: Sequence[Sequence[Message]]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.backbone.tokenizer

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def layers(self) -> Any:
        """Those of the whole model that the features need."""
        depth = self.full.config.num_hidden_layers
        return decoder_layers(self.full.get_decoder(), depth, self.name)[: self.backbone.layer]

    @cached_property
    def batches(self) -> list[Batch]:
        """The chats, encoded and sorted, in the batches that suit the device."""
        extractor = self.extractor("auto")
        made = windows(self.backbone, self.chats, extractor.settings)
        return [b for window in made for b in window.batches(extractor.batch_tokens, extractor.batch_texts)]

    def extractor(self, product: Product, half: bool = False) -> Extractor:
        elements = 1 << (29 if self.device.type == "cuda" else 25)
        settings = FeatureSettings(encode_elements=elements, product=product)
        return Extractor(self.half if half else self.backbone, Sae(self.module, {}, product=product), settings)

    def prompts(self, chats: Sequence[Sequence[Message]]) -> Any:
        """Chats as one padded batch of ids and attention mask, as `apply_chat_template` makes it."""
        self.tokenizer.padding_side = "right"
        batch: Any = self.tokenizer.apply_chat_template(
            [list(chat) for chat in chats], padding=True, truncation=True, max_length=512, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        return batch.to(self.device)


def ours(bench: Bench, folder: Path | None = None, *, product: Product = "float32", half: bool = False) -> None:
    """This project's extraction, to files."""
    with tempfile.TemporaryDirectory() as scratch:
        bench.extractor(product, half).extract(bench.chats, folder or Path(scratch))


def layers_and_encode(bench: Bench) -> None:
    """The layers and sae-lens' encoder on ids that are ready, in the best batches: what nothing else is added to."""
    step = max((1 << 25) // int(bench.module.cfg.d_sae), 1)
    for batch in bench.batches:
        for part in batch.content(bench.backbone).residual.split(step):
            bench.module.encode(part.to(bench.module.W_enc.dtype))


def products(bench: Bench) -> None:
    """The products with the weights of layers and encoder alone, for as many tokens."""
    weights = [p for layer in bench.layers for p in layer.parameters() if p.dim() == 2]
    dtype, encoder = weights[0].dtype, bench.module.W_enc
    for batch in bench.batches:
        tokens = len(batch.ids) * max(map(len, batch.ids))
        inputs = {p.shape[1]: torch.ones(tokens, p.shape[1], dtype=dtype, device=p.device) for p in weights}
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)
        content = torch.ones(len(batch.row), encoder.shape[0], dtype=encoder.dtype, device=encoder.device)
        torch.mm(content, encoder)


def script(bench: Bench) -> Pooled:
    """What a careful user writes in thirty lines: padded batches, all hidden states, encode, a masked maximum."""
    pooled = []
    for start in range(0, len(bench.chats), PROMPTS):
        batch = bench.prompts(bench.chats[start : start + PROMPTS])
        out = bench.full(**batch, output_hidden_states=True)
        activations = bench.module.encode(out.hidden_states[bench.backbone.layer].to(bench.module.W_enc.dtype))
        masked = activations.masked_fill(batch["attention_mask"][:, :, None] == 0, 0)
        pooled += masked.amax(dim=1).to_sparse().cpu()
    return pooled


def sae_lens(bench: Bench) -> Pooled:
    """The activations of sae-lens' own store for padded prompts, its encoder, and a masked maximum."""
    from datasets import Dataset
    from sae_lens import ActivationsStore
    from sae_lens.load_model import HookedProxyLM

    hook = f"model.layers.{bench.backbone.layer - 1}"
    store = ActivationsStore(
        model=HookedProxyLM(bench.full, bench.tokenizer, hook_names=[hook]),
        dataset=Dataset.from_dict({"text": ["a text", "another"]}), streaming=False, hook_name=hook,
        hook_head_index=None, context_size=512, d_in=int(bench.module.cfg.d_in), n_batches_in_buffer=2,
        total_training_tokens=1 << 20, store_batch_size_prompts=STORED, train_batch_size_tokens=4096, prepend_bos=False,
        normalize_activations="none", device=bench.device, dtype=str(bench.module.W_enc.dtype).removeprefix("torch."),
    )  # fmt: skip
    pooled = []
    for start in range(0, len(bench.chats), STORED):
        batch = bench.prompts(bench.chats[start : start + STORED])
        held = store.get_activations(batch["input_ids"]).flatten(2)
        activations = bench.module.encode(held)
        masked = activations.masked_fill(batch["attention_mask"][:, :, None] == 0, 0)
        pooled += masked.amax(dim=1).to_sparse().cpu()
    return pooled


def released(bench: Bench) -> Pooled:
    """As the paper's code goes about it: text by text, a sort of the whole width, reconstruction and loss, spans.

    Top-K is kept where that code switches it off, so that it finds as many features as the other ways do: a span is
    decoded for each of them.
    """
    module, tokenizer, k = bench.module, bench.tokenizer, int(bench.module.cfg.k)
    caught: list[torch.Tensor] = []
    pooled = []

    def stop(_module: Any, _args: Any, out: Any) -> None:
        caught.append(out[0] if isinstance(out, tuple) else out)
        raise Stop

    hook = bench.layers[-1].register_forward_hook(stop)
    try:
        for chat in bench.chats:
            ids = bench.prompts([chat])["input_ids"]
            with suppress(Stop):
                bench.full(ids)
            hidden = caught.pop()[0].float()
            pre = (hidden - module.b_dec) @ module.W_enc + module.b_enc
            order = pre.topk(pre.shape[1], dim=-1).indices  # sorted whole
            kept = torch.zeros_like(pre).scatter_(-1, order[:, :k], 1.0)
            activations = (pre * kept).relu()
            activations.norm(p=0, dim=-1).mean()
            (((activations @ module.W_dec + module.b_dec) - hidden).norm(dim=-1) / hidden.norm(dim=-1)).mean()
            maxima, places = activations.max(dim=0)
            for feature in maxima.nonzero()[:, 0].tolist():
                end = int(places[feature]) + 1
                tokenizer.batch_decode(ids[:, max(end - SPAN, 0) : end])
            pooled.append(maxima.to_sparse().cpu())
    finally:
        hook.remove()
    return pooled


WAYS: Mapping[str, Callable[[Bench], Pooled | None]] = {
    "ours": ours,
    "ours_bf16": lambda bench: ours(bench, product="bfloat16", half=True),
    "layers_and_encode": layers_and_encode,
    "products": products,
    "script": script,
    "sae_lens": sae_lens,
    "released": released,
}
