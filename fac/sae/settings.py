"""How SAEs are trained and computed with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fac.errors import FacError

CURVE = "curve.json"  # of the paper's recipe: what was measured at every step
Product = Literal["auto", "float32", "bfloat16"]  # of residuals and the encoder (`fac.sae.strongest`)
Tokens = Literal["all", "content"]  # of a chat, with those of its template or without
OnStep = Callable[[int, Mapping[str, float]], None]  # steps done, and what was measured in the last


@dataclass(frozen=True)
class TrainSettings:
    """How `sae=train` trains a TopK SAE on streamed activations (sae-lens defaults where nothing is said)."""

    width: int = 2048
    k: int = 8
    steps: int = 3200
    batch_size: int = 256  # tokens; the number of steps decides whether features are useful, not the tokens
    lr: float = 2e-3
    max_tokens: int = 512
    seed: int = 42
    # Each text goes through the model once, its activations on disk (`fac.sae.held`), and batches are drawn from all of
    # them; else they are streamed anew in every pass and mixed over 512 texts.
    held: bool = False

    def identity(self) -> dict[str, Any]:
        """What decides the trained SAE, for store keys."""
        told = asdict(self)
        return told if self.held else {name: value for name, value in told.items() if name != "held"}


@dataclass(frozen=True)
class RecipeSettings:
    """The released recipe (paper §4.2). Only the last two do not decide the result."""

    width: int = 65536  # 2^16 [P, C]
    k: int = 20  # [P, C]
    k_start: int = 200  # K falls linearly from here [C]
    anneal_steps: int = 625  # to k, over so many optimizer steps: half of the code's first epoch [C]
    batch_size: int = 512  # sequences of an optimizer step [C]; the paper says "batch 512"
    epochs: int = 3  # [P]; the code's default is 5
    lr: float = 1e-3  # fixed [P, C]
    betas: tuple[float, float] = (0.9, 0.999)  # Adam [C]; the paper says AdamW, without weight decay they are the same
    eps: float = 6.25e-10  # [C]
    max_tokens: int = 286  # first tokens of a sequence: LLaMA 286, Mistral and Qwen2 256 [C]
    tokens: Tokens = "all"  # with those of the chat template, as the code caches them [C]; or the content's only
    seed: int = 42  # [C]
    batch_tokens: int = 8192  # padded tokens that go through the model and the SAE at a time
    checkpoint_every: int = 25  # steps; a killed training loses at most so many

    def __post_init__(self) -> None:
        if not self.k <= self.k_start <= self.width:
            raise FacError(
                f"sae.train: k={self.k} (at the end), k_start={self.k_start} and width={self.width} must not decrease "
                f"in this order: set them so."
            )

    def identity(self) -> dict[str, Any]:
        """What decides the trained SAE, for store keys."""
        return {key: v for key, v in asdict(self).items() if key not in ("batch_tokens", "checkpoint_every")}

    def k_at(self, step: int) -> int:
        """K of an optimizer step, counted from 0: one step down the line is taken before the first [C]."""
        fallen = (self.k_start - self.k) * (step + 1)
        return max((self.k_start * self.anneal_steps - fallen) // self.anneal_steps, self.k)
