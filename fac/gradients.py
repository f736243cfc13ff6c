"""Gradients of a small model's loss as embeddings of examples (G-Vendi and Prismatic Synthesis, arXiv 2505.20161).

An example is where it would push a proxy that learnt from it: the gradient, over all parameters, of the mean negative
log-likelihood of its answers, or of its own words where it has none; for a preference pair, of the chosen reply's less
that of the rejected one's. A count sketch (each parameter has one of `DIM` places and a sign, both drawn by a seed)
keeps dot products without bias, in one pass over the gradient, where the paper multiplies with a dense random matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fac.chat import Message, encode, encode_lesson
from fac.data.schemas import PAIR, Schema
from fac.vectors import unit_rows

if TYPE_CHECKING:
    import torch

    from fac.model_ref import ModelRef

DIM = 1024  # of the sketch, as the paper's projection
MAX_TOKENS = 512  # of a chat


@dataclass(frozen=True, eq=False)
class GradientProxy:
    """A causal LM whose gradients are taken; it is loaded when the first is asked for."""

    ref: ModelRef
    dim: int = DIM
    seed: int = 0

    def identity(self) -> dict[str, object]:
        """What decides a gradient, for store keys."""
        return {"proxy": self.ref.identity(), "dim": self.dim, "seed": self.seed, "max_tokens": MAX_TOKENS}

    def __call__(self, schema: Schema[Any], examples: Sequence[Any]) -> NDArray[np.float32]:
        """Unit vectors [examples, dim]; zero for an example that says nothing."""
        from tqdm import tqdm

        found = np.zeros((len(examples), self.dim), np.float64)
        for row, example in enumerate(tqdm(examples, desc="gradients", unit="example", leave=False)):
            for sign, chat in signed_chats(schema, example):
                found[row] += sign * self.of_chat(chat)
        return unit_rows(found).astype(np.float32)

    def of_chat(self, chat: Sequence[Message]) -> NDArray[np.float64]:
        """The sketch [dim] of the gradient of a chat's loss; zero where nothing is predicted."""
        import torch

        model, tokenizer = self._loaded
        of_replies = any(turn["role"] == "assistant" for turn in chat)
        told = (encode_lesson if of_replies else encode)(tokenizer, chat, max_tokens=MAX_TOKENS)
        ids, counted = torch.tensor([told[0]], device=model.device), torch.tensor(told[1][1:], device=model.device)
        if not counted.any():
            return np.zeros(self.dim)
        model.zero_grad(set_to_none=True)
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1][counted].float()
        torch.nn.functional.cross_entropy(logits, ids[0, 1:][counted]).backward()
        sketch = torch.zeros(self.dim, dtype=torch.float64, device=model.device)
        for weight, places in zip(model.parameters(), self._places, strict=True):
            if weight.grad is not None:
                place = places.long()
                signed = weight.grad.flatten().double() * (1 - 2 * (place >= self.dim).double())
                sketch.index_add_(0, place % self.dim, signed)
        model.zero_grad(set_to_none=True)
        return sketch.cpu().numpy()

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from fac.backbone import load_causal_lm

        model, tokenizer = load_causal_lm(self.ref)
        for weight in model.parameters():
            weight.requires_grad_(True)
        return model, tokenizer

    @cached_property
    def _places(self) -> list[torch.Tensor]:
        """Of every entry of every parameter: its place in the sketch, and `dim` more where its sign is negative."""
        import torch

        drawn = torch.Generator().manual_seed(self.seed)
        model = self._loaded[0]
        return [
            torch.randint(2 * self.dim, (weight.numel(),), generator=drawn, dtype=torch.int16).to(weight.device)
            for weight in model.parameters()
        ]


def signed_chats(schema: Schema[Any], example: Any) -> Iterator[tuple[float, list[Message]]]:
    """The chats whose losses an example's gradient is made of, each with its sign."""
    signs = (1.0, -1.0) if schema is PAIR else (1.0,)
    return zip(signs, schema.chats(example), strict=True)


def g_vendi(gradients: NDArray[np.floating]) -> float:
    """G-Vendi: the effective number of gradients among unit vectors [n, d], from 1 to n (arXiv 2505.20161).

    The Vendi score of gradients in the place of embeddings.
    """
    from fac.diversity.metrics.embedding import vendi

    return vendi(gradients)
