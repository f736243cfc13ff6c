"""The lab's tasks, small enough that a whole loop takes seconds: settings of the command line."""

from __future__ import annotations

SIZES = {
    "toxicity": {"anchor": 60, "safe": 40, "seed": 20, "human": 20, "labelled": 40, "validation": 20, "test": 80,
                 "known": 8},
    "reward": {"anchor": 40, "seed": 20, "human": 20, "validation": 10, "test": 40, "known": 8},
    "sycophancy": {"anchor": 40, "seed": 10, "human": 10, "validation": 10, "test": 20, "known": 5},
    "survival": {"anchor": 40, "seed": 10, "human": 10, "validation": 10, "test": 20, "known": 4},
    "instruction": {"anchor": 40, "seed": 20, "human": 20, "validation": 10, "test": 20, "known": 8},
}  # fmt: skip
TRAINED = ("toxicity", "reward", "instruction")  # for epochs; steering reads a vector


def reduced(*tasks: str, budget: int = 4) -> list[str]:
    """What makes these tasks small; no settings but those that the tasks read."""
    settings = ["interpret.spans=2", "synthesis.n=1", "synthesis.m=1", "synthesis.top_up=0", "seeds.training=[42]"]
    for task in tasks:
        sizes = ", ".join(f"{name}: {size}" for name, size in SIZES[task].items())
        settings += [f"tasks.{task}.sizes={{{sizes}}}", f"tasks.{task}.budget={budget}"]
        settings += [f"tasks.{task}.train.epochs=1"] if task in TRAINED else []
    return settings


def measured(*tasks: str) -> list[str]:
    """`reduced` for what looks at features alone: without settings of writing and training, which it reads not."""
    return [s for s in reduced(*tasks) if not any(part in s for part in ("train", "synthesis", "budget"))]
