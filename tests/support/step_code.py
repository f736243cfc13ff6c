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

MEASURING = ("features", "synthesis", "diversity", "embeddings", "sae_quality", "sae")
TRAINING = ("classifier", "reward", "sft")
STEERING = ("steering_choice", "steering_questions", "steering_vector", "equal_vectors", "steering_answers")
DATA = ("corpus", "draw", "examples", "pool", "pairs", "kept_pairs", "mixture", "mixture_split", "steering_questions")
ASKING = ("interpret", "synthesis", "answers", "reference", "scores", "judged")
LOADING = (*MEASURING, *TRAINING, "states", "vector", "steering_vector", "answers", "scores")

# Modules (or folders of them) whose code decides results, and the steps that must be made again if it gives others.
# Code that only decides what is asked for is not here: that is in the keys, as are the texts of the lab's world.
DECIDE: Mapping[str, tuple[str, ...]] = {
    "fac/chat.py": (*MEASURING, *TRAINING, "vector", "answers", "interpret", "scores"),
    "fac/backbone.py": (*MEASURING, "vector", "steering_vector", "answers"),
    "fac/norms.py": (*MEASURING, "vector", "steering_vector"),
    "fac/weights.py": LOADING,
    "fac/model_ref.py": LOADING,
    "fac/model_weights.py": LOADING,
    "fac/encoder.py": (*MEASURING, "interpret"),
    "fac/corpus_features.py": (*MEASURING, "interpret", "missing", "coverage"),
    "fac/features": (*MEASURING, "interpret"),
    "fac/pooled.py": ("features", "synthesis", "missing", "coverage", "matching"),
    "fac/sae": MEASURING,
    "fac/diversity": ("diversity", "embeddings", "sampled_diversity"),
    "fac/matching.py": ("matching",),
    "fac/coverage.py": ("missing", "coverage"),
    "fac/relevance.py": ("missing", "relevance"),
    "fac/clusters.py": ("clusters", "dense_coverage", "synthesis"),
    "fac/vectors.py": ("diversity", "embeddings", "clusters", "dense_coverage", "synthesis"),
    "fac/gap.py": ("interpret", "missing", "relevance"),
    "fac/own_gap.py": ("missing", "sought", "wanted", "distinct_interpretations"),
    "fac/noise.py": ("noisy_interpretations",),
    "fac/interpret.py": ("interpret", "missing", "synthesis", "clusters"),
    "fac/prompts/__init__.py": ("interpret", "synthesis", "answers", "judged"),
    "fac/llm/base.py": ASKING,
    "fac/llm/local.py": ASKING,
    "fac/llm/answers.py": ASKING,
    "fac/llm/transformers.py": ASKING,
    "fac/llm/generation.py": ASKING,
    "fac/synthesis/generate.py": ("synthesis",),
    "fac/synthesis/method.py": ("synthesis", "answers"),
    "fac/synthesis/needs.py": ("synthesis",),
    "fac/synthesis/methods/controls.py": ("synthesis",),
    "fac/synthesis/methods/selection.py": ("synthesis", "selected"),
    "fac/synthesis/methods/dense_clusters.py": ("synthesis",),
    "fac/synthesis/methods/synalign.py": ("synthesis",),
    "fac/synthesis/methods/prismatic.py": ("synthesis",),
    "fac/synthesis/methods/steered.py": ("synthesis",),
    "fac/synthesis/likeness.py": ("synthesis",),
    "fac/gradients.py": ("synthesis",),
    "fac/synthesis/methods/fac.py": ("synthesis",),
    "fac/synthesis/methods/alpaca.py": ("synthesis",),
    "fac/synthesis/methods/evol_instruct.py": ("synthesis",),
    "fac/synthesis/methods/magpie.py": ("synthesis",),
    "fac/synthesis/methods/cot_self_instruct.py": ("synthesis",),
    "fac/synthesis/methods/sao.py": ("synthesis",),
    "fac/synthesis/expansion.py": ("synthesis",),
    "fac/synthesis/novelty.py": ("synthesis",),
    "fac/synthesis/verdicts.py": ("synthesis",),
    "fac/synthesis/contrast.py": ("synthesis",),
    "fac/synthesis/writer.py": ("synthesis",),
    "fac/synthesis/samples.py": ("synthesis", "coverage"),
    "fac/synthesis/refusals.py": ("synthesis", "answers"),
    "fac/synthesis/replies.py": ("synthesis", "answers"),
    "fac/synthesis/covered.py": ("coverage",),
    "fac/synthesis/selection.py": ("candidates", "selection"),
    "fac/data": (*DATA, "joined", "synthesis"),
    "fac/lab/world/grammar.py": ("draw", "scores"),  # also the names that an answer must say
    "fac/lab/world/corpora.py": ("draw", "pool"),
    "fac/lab/world/instructions.py": ("draw",),
    "fac/lab/world/opinions.py": ("draw",),
    "fac/lab/world/replies.py": ("draw",),
    "fac/lab/world/tasks.py": ("draw",),
    "fac/train/adapters.py": TRAINING,
    "fac/train/double.py": (*TRAINING, "scores"),
    "fac/train/loop.py": ("classifier", "reward"),
    "fac/train/packing.py": (*TRAINING, "scores"),
    "fac/train/tokens.py": ("classifier", "reward", "scores"),
    "fac/train/trainer.py": ("sft",),
    "fac/train/merged.py": ("trained_model",),
    "fac/train/settings.py": (*TRAINING, "states", "scores"),
    "fac/train/sequence.py": ("classifier", "reward", "states", "scores"),
    "fac/train/states.py": ("classifier", "reward", "states", "scores"),
    "fac/train/classifier.py": ("classifier", "states", "scores"),
    "fac/train/reward.py": ("reward", "states", "scores"),
    "fac/train/sft.py": ("sft", "scores"),
    "fac/train/steering.py": ("vector", "scores", "steering_curve", *STEERING),
    "eval/alpaca.py": ("draw", "scores", "judged", "annotations"),
    "eval/judging.py": ("scores", "judged"),
    "eval/classification.py": ("scores",),
    "eval/harness.py": ("scores",),
    "eval/reward.py": ("scores",),
    "eval/steering.py": ("scores", "steering_answers", "steering_curve"),
    "eval/statistics.py": ("scores",),
    "experiments/tasks/base.py": (*TRAINING, "vector", "scores"),
    "experiments/tasks/sources.py": ("draw", "examples", "pool"),
    "experiments/tasks/instruction.py": ("draw", "sft", "answers", "scores", "evaluation", "reference"),
    "experiments/tasks/reward.py": ("draw", "reward", "scores"),
    "experiments/tasks/steering.py": ("draw", "vector", "scores", "steering_questions", "steering_vector"),
    "experiments/tasks/toxicity.py": ("draw", "classifier", "scores"),
    "eval/annotation.py": ("rating_sheet", "ratings"),
    "experiments/steps/reasoning.py": ("benchmarks",),
    "eval/tasks/gsm8k/utils.py": ("benchmarks",),
    "experiments/steps/annotation.py": ("rating_sheet", "ratings"),
    "experiments/steps/alpaca_eval.py": ("annotations", "judged"),
    "experiments/steps/fill.py": ("own_texts",),
    "experiments/steps/subsets.py": ("subsets",),
    "experiments/steps/select.py": ("selected",),
    "experiments/steps/steering.py": STEERING,
    "experiments/steps/steering_curves.py": ("steering_curve",),
    "experiments/steps/steering_questions.py": ("steering_questions",),
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
