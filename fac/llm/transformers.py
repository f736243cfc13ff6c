"""The `transformers` engine: any causal LM on CPU or GPU, in this process (`generation` continues the chats)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from fac.llm.base import Completion, Request, Sampling
from fac.model_ref import ModelRef, default_device
from fac.store import Step


class TransformersChat:
    """A ChatModel on `transformers`."""

    engine = "transformers"

    def __init__(self, ref: ModelRef, batch: int = 64) -> None:
        self.ref, self.batch = ref, batch
        self._loaded: tuple[Any, Any] | None = None

    @property
    def made_by(self) -> tuple[Step, ...]:
        """The steps that make its model."""
        return self.ref.made_by

    @property
    def identity(self) -> str:
        """Model and engine, and the batch on a GPU: in few bits and with padding, a reply depends on its neighbours."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        on_gpu = default_device().type == "cuda"
        return f"transformers:{self.ref.identity()}" + (f"/batch {self.batch}" if on_gpu else "")

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        from fac.llm.generation import replies

        model, tokenizer = self._load()
        return replies(model, tokenizer, requests, sampling, self.ref.path)

    def close(self) -> None:
        self._loaded = None

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from fac.backbone import load_causal_lm

            self._loaded = load_causal_lm(self.ref)
        return self._loaded
