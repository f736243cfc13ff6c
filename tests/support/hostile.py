"""Replies and answers that no model and no server should give, drawn from a seed."""

from __future__ import annotations

import json
import random
from typing import Any

PIECES = (
    *(
        '"',
        '\\"',
        "\\",
        "{",
        "}",
        "[",
        "]",
        "[[",
        "]]",
        "[[[",
        ":",
        ",",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "\x1b[0m",
        "\u2028",
        "\ufeff",
    ),
    *(
        "```",
        "```json\n",
        "<think>",
        "</think>",
        "[THINK]",
        "[/THINK]",
        "◁think▷",
        "◁/think▷",
        "<|channel|>final<|message|>",
    ),
    *(
        "<|im_end|>",
        "<answer>",
        "</answer>",
        "<unused94>",
        "analysisA",
        "assistantfinal",
        "<|end|>",
        "**",
        "# ",
        "- ",
        "1. ",
    ),
    *(
        "Query-1: ",
        "Query-2:",
        "<instruction>",
        "</instruction>",
        "Instruction: ",
        "Output:",
        "(A) yes",
        "\n (B) no",
        "Choices:",
    ),
    *(
        "I can't help with that.",
        "Sorry, ",
        "Sure! Here is",
        "As an AI",
        "我无法",
        "Ich kann das nicht",
        "I must decline",
    ),
    *(
        "[[Yes]]",
        "[[No]]",
        "[[Maybe",
        "Final Decision: Yes",
        "[[first]]",
        "[[second]]",
        "[[tie]]",
        "null",
        "NaN",
        "1e999",
    ),
    *(
        '{"prompt": "a b", "chosen": "c", "rejected": "d"}',
        '{"question": "x?\\n (A) y\\n (B) z"',
        '"answer_matching_behavior": "(A)"',
    ),
    *(
        "a",
        "how do i",
        "漢字",
        "😀",
        "a\u0301",
        "\u202e",
        "\ud83d",
        "é" * 40,
        " " * 30,
        "word " * 30,
        "[" * 400,
        '{"a":' * 200,
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**30, float("nan"), "", " ", "text", [], {}, [None], [[]], ["a"], {"content": None}),
    *({"message": "x", "code": 500}, {"role": "user"}, [{"message": {}}], {"a": {"b": []}}),
)
KEYS = (
    "choices",
    "message",
    "content",
    "error",
    "usage",
    "prompt",
    "chosen",
    "rejected",
    "question",
    "finish_reason",
    "code",
)


def reply(rng: random.Random) -> str:
    """A reply of some pieces, or JSON of no form."""
    if rng.random() < 0.2:
        return json.dumps(value(rng))
    return "".join(rng.choices(PIECES, k=rng.randrange(9)))


def value(rng: random.Random, depth: int = 3) -> Any:
    """A JSON value with keys that are known and values that are not."""
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(VALUES) if rng.random() < 0.5 else "".join(rng.choices(PIECES, k=3))
    if rng.random() < 0.3:
        return [value(rng, depth - 1) for _ in range(rng.randrange(3))]
    return {key: value(rng, depth - 1) for key in rng.sample(KEYS, k=rng.randrange(1, 5))}
