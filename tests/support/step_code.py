"""Which code decides which step of the store, and its digests, which `python tests/support/step_code.py` writes.

A digest is of a module's syntax tree without its docstrings, so comments, layout and documentation do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("step_code.json")

MEASURING = ("features", "write", "diversity", "sae_quality", "sae")
TRAINING = ("classifier", "reward", "sft")
DATA = ("corpus", "draw", "pairs", "mixture")

# Modules (or folders of them) whose code decides results, and the steps that must be made again if it gives others.
# Code that only decides what is asked for is not here: that is in the keys.
DECIDE: Mapping[str, tuple[str, ...]] = {
    "fac/chat.py": (*MEASURING, *TRAINING, "vector", "answers", "interpret", "scores"),
    "fac/backbone.py": (*MEASURING, "vector", "steering_vector", "answers"),
    "fac/weights.py": (*MEASURING, *TRAINING, "vector", "steering_vector", "answers", "scores"),
    "fac/model_ref.py": (*MEASURING, *TRAINING, "vector", "steering_vector", "answers", "scores"),
    "fac/model_weights.py": (*MEASURING, *TRAINING, "vector", "steering_vector", "answers", "scores"),
    "fac/train/double.py": ("classifier", "reward", "sft", "scores"),
    "fac/features.py": MEASURING,
    "fac/pooled.py": ("features", "write"),
    "fac/sae": ("sae", *MEASURING),
    "fac/diversity": ("diversity",),
    "fac/matching.py": ("matching",),
    "fac/interpret.py": ("interpret",),
    "fac/llm/base.py": ("interpret", "write", "answers", "scores", "judged"),
    "fac/llm/local.py": ("interpret", "write", "answers", "scores", "judged"),
    "fac/llm/answers.py": ("interpret", "write", "answers", "scores", "judged"),
    "fac/llm/transformers.py": ("interpret", "write", "answers", "scores", "judged"),
    "fac/synthesis/writer.py": ("write",),
    "fac/synthesis/samples.py": ("write",),
    "fac/synthesis/refusals.py": ("write",),
    "fac/synthesis/replies.py": ("write",),
    "fac/data": (*DATA, "mixture_split", "rows", "write", "kept_pairs", "steering_questions"),
    "fac/lab/world": ("world", "texts", "rows"),
    "fac/train/sequence.py": ("classifier", "reward", "scores"),
    "fac/train/classifier.py": ("classifier", "scores"),
    "fac/train/reward.py": ("reward", "scores"),
    "fac/train/sft.py": ("sft",),
    "fac/train/steering.py": (
        *("vector", "scores", "steering_questions", "steering_vector", "equal_vectors", "steering_answers"),
    ),
    "eval/alpaca.py": ("scores", "judged", "annotations"),
    "eval/judging.py": ("scores", "judged"),
    "eval/classification.py": ("scores",),
    "eval/harness.py": ("scores",),
    "eval/reward.py": ("scores",),
    "eval/steering.py": ("scores", "steering_answers"),
    "eval/statistics.py": ("scores",),
    "experiments/tasks/data.py": ("draw",),
    "experiments/tasks/instruction.py": ("sft", "answers", "scores", "evaluation", "reference"),
    "experiments/tasks/reward.py": ("reward", "scores"),
    "experiments/tasks/steering.py": ("vector", "scores", "steering_questions", "steering_vector"),
    "experiments/tasks/toxicity.py": ("classifier", "scores"),
    "experiments/cells.py": ("untrained", "scores"),
}


def digests() -> dict[str, str]:
    """Of each of DECIDE."""
    return {place: _digest(ROOT / place) for place in DECIDE}


def _digest(path: Path) -> str:
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    text = "\n".join(f"{file.relative_to(ROOT)}\n{code_of(file.read_text(encoding='utf-8'))}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_of(source: str) -> str:
    """The syntax tree of a module, without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(digests(), indent=1) + "\n")
