"""How models are trained, each kind with the paper's values (App. J) as its defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from fac.errors import FacError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WHOLE = ("partial", "full")  # modes that train weights of the model itself

Positions = Literal["all", "after_prompt"]
"""Where the vector is added: at all positions, as the released script does, or at those after the user's words (the
paper's text)."""


@dataclass(frozen=True)
class SequenceSettings:
    """How a model with a head is trained; a subclass gives its row of the paper's App. J as defaults.

    Optimizer: AdamW (0.9, 0.999, 1e-8), gradients clipped at norm 1, as the defaults of transformers' Trainer are.
    """

    MODES: ClassVar[tuple[str, ...]] = ("lora", "head")

    # "lora": adapters and head are trained; "head": the backbone is frozen; "partial": the last layers, final norm and
    # head are trained; "full": all weights are
    mode: str
    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    epochs: int
    learning_rate: float
    batch_size: int
    gradient_accumulation: int  # the effective batch is batch_size * gradient_accumulation
    max_tokens: int  # of a chat; what longer ones lose is the subclass's business
    schedule: str  # a name of transformers.SchedulerType
    warmup: float  # share of the steps, below 1
    weight_decay: float
    bf16: bool  # backbone and matrix products on a GPU; a CPU computes in float32
    float64: bool = False  # train and score in float64, so that the numbers come back elsewhere (`fac.train.double`)
    # Keep only what enters each layer and compute the rest again for the backward pass: much less memory, a third more
    # time, the same weights.
    gradient_checkpointing: bool = False
    # Tokens of one forward pass of a training: an optimizer step is one pass where its batch has no more. It decides
    # the draws of a dropout, and else no weights.
    pass_tokens: int = 4096
    # mode "head": the model's states are steps of their own, shared by all rows and seeds (`fac.train.states`).
    kept_states: bool = False

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, for store keys."""
        return deciding(self)

    def __post_init__(self) -> None:
        if self.mode not in self.MODES:
            raise FacError(
                f"mode={self.mode} will not do: a training is {', '.join(self.MODES[:-1])} or {self.MODES[-1]}."
            )
        if self.kept_states and self.mode != "head":
            raise FacError(
                f"kept_states=true goes with mode=head, since mode={self.mode} trains what makes the states."
            )
        object.__setattr__(self, "target_modules", tuple(self.target_modules))


def deciding(settings: Any) -> dict[str, Any]:
    """The settings of a training that decide its weights, with bf16 as it is on this machine."""
    unread = {"gradient_checkpointing"} | ({"layers"} if getattr(settings, "mode", "") != "partial" else set())
    unread |= set() if settings.dropout and getattr(settings, "mode", "lora") == "lora" else {"pass_tokens"}
    unread |= set() if getattr(settings, "kept_states", False) else {"kept_states"}
    decided = {name: value for name, value in asdict(settings).items() if name not in unread}
    return {**decided, "bf16": uses_bf16(settings)}


def uses_bf16(settings: Any) -> bool:
    """Whether matrix products are in bfloat16 on this machine."""
    if not settings.bf16 or settings.float64:
        return False
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class ClassifierSettings(SequenceSettings):
    """How a classifier is trained. The defaults are the paper's LoRA row (App. J, Table 1).

    The paper's head-only row (Table 13) is `ClassifierSettings("head", epochs=15, learning_rate=8e-5, batch_size=1)`.
    """

    MODES: ClassVar[tuple[str, ...]] = ("lora", "head", "partial", "full")

    mode: str = "lora"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1
    target_modules: tuple[str, ...] = PROJECTIONS
    epochs: int = 3
    learning_rate: float = 5e-5
    batch_size: int = 4
    gradient_accumulation: int = 4
    max_tokens: int = 512  # longer chats lose their end
    schedule: str = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.0
    bf16: bool = True
    layers: int = 1  # mode "partial": how many of the last layers are trained
    group_by_length: bool = False  # batches of chats of like length: less padding, in an order that is still drawn


@dataclass(frozen=True)
class RewardSettings(SequenceSettings):
    """How a reward model is trained. The defaults are the paper's LoRA row (App. J, Tables 1 and 14).

    The paper's head-only row (Table 13) is `RewardSettings("head", epochs=5, batch_size=1)`.
    """

    mode: str = "lora"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    target_modules: tuple[str, ...] = PROJECTIONS
    epochs: int = 1
    learning_rate: float = 8e-5
    batch_size: int = 2  # pairs
    gradient_accumulation: int = 4
    max_tokens: int = 1024  # of a conversation with its reply; longer ones lose their start
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.01
    bf16: bool = True


@dataclass(frozen=True)
class SftSettings:
    """How a model is fine-tuned. The defaults are the paper's (App. J: LLaMA-Factory, LoRA on all linear layers).

    Optimizer: AdamW (0.9, 0.999, 1e-8), as the Trainer's default is.
    """

    chat_template: str | None = None  # None: the model's own; "alpaca": the paper's choice, for base models
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    epochs: int = 5
    learning_rate: float = 1e-4
    batch_size: int = 4
    gradient_accumulation: int = 4  # the effective batch is batch_size * gradient_accumulation
    max_tokens: int = 2048  # longer chats lose their end
    schedule: str = "linear"  # a name of transformers.SchedulerType
    warmup: float = 0.0  # share of the steps, below 1
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of a gradient
    bf16: bool = True  # on a GPU; a CPU computes in float32
    float64: bool = False  # train in float64, but for the loss (`fac.train.double`)
    gradient_checkpointing: bool = False  # as in fac.train.sequence
    pass_tokens: int = 8192  # as there: most that one forward pass may come to

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, for store keys."""
        return deciding(self)
