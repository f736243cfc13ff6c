"""How texts are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fac.sae.settings import Product

GPU_BATCH, CPU_BATCH = 8192, 2048  # padded tokens: larger ones gain nothing on an H100, and cost caches on a CPU


@dataclass(frozen=True)
class FeatureSettings:
    """How texts are measured. `batch_tokens` and `encode_elements` do not change results."""

    max_tokens: int = 512  # longer texts are cut on the right, as the released code does
    rule: str = "paper"  # "paper": Top-K kept; "official": off, as the released code measures
    top_spans: int = 10  # texts kept per feature (paper App. K)
    batch_tokens: int | None = None  # padded tokens per forward pass; None: what suits the device
    encode_elements: int = 1 << 25  # largest tokens x width, and texts x width, block of activations held at a time
    product: Product = "auto"  # of residuals and the SAE's encoder: as exact as the model's dtype is, or one of the two
    # Ways of the released code (conf/parity says where they are found):
    shift: int | None = None  # None: content is what the messages say; n: every token from index n on
    double_bos: bool = False  # a second BOS before the template's own
    span_end: Literal["at", "before"] = "at"  # a span ends with the activating token, or just before it

    def batch_on(self, gpu: bool) -> int:
        """Padded tokens per forward pass on a GPU, or on a CPU."""
        return self.batch_tokens or (GPU_BATCH if gpu else CPU_BATCH)
