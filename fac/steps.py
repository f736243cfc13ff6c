"""Versions of the steps that the store holds: one number for the code of each, which is part of its key.

Raise a step's version when its code gives another result for the same settings and inputs; what was stored is then made
again, and so is all that was made from it. tests/fac/test_steps.py notices when code that decides a step has changed.
"""

from __future__ import annotations

from collections.abc import Mapping

VERSIONS: Mapping[str, int] = {
    # data
    "corpus": 2,
    "joined": 1,
    "draw": 4,
    "examples": 1,
    "pool": 1,
    "mixture": 2,
    "mixture_split": 2,
    "pairs": 3,
    "kept_pairs": 1,
    # measuring and interpreting
    "sae": 2,
    "features": 3,
    "interpret": 3,
    "relevance": 1,
    "noisy_interpretations": 1,
    "missing": 1,
    "sought": 1,
    "wanted": 1,
    "distinct_interpretations": 1,
    "clusters": 1,
    "dense_coverage": 1,
    "coverage": 1,
    "matching": 2,
    "sae_quality": 3,
    "diversity": 2,
    "embeddings": 1,
    "sampled_diversity": 1,
    # writing
    "own_texts": 1,
    "synthesis": 1,
    "candidates": 1,
    "selection": 1,
    "selected": 1,
    "answers": 3,
    # training and testing
    "states": 1,
    "classifier": 2,
    "reward": 2,
    "sft": 2,
    "vector": 2,
    "steering_choice": 1,
    "reference": 2,
    "evaluation": 2,
    "scores": 2,
    "trained_model": 1,
    "subsets": 1,
    "annotations": 1,
    "judged": 3,
    "steering_questions": 1,
    "steering_vector": 3,
    "equal_vectors": 1,
    "steering_answers": 3,
    "steering_curve": 1,
    # what people say of features (Table 5)
    "rating_sheet": 1,
    "ratings": 1,
    "benchmarks": 1,
}


def version_of(step: str) -> int:
    """Of a step's code; 1 for a step that is not in the table."""
    return VERSIONS.get(step, 1)
