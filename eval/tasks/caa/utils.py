"""CAA's questions as lm-eval documents: each one asked twice, as it stands and with the two asked options swapped.

The metrics are those of `eval.steering`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from eval.steering import mean_matching, right
from fac.data.choices import read_choices
from fac.data.source import Source
from fac.errors import FacError


def load(behavior: str, caa: str | None = None, **_: Any) -> dict[str, Dataset]:
    """The test of one behaviour; `caa` is the folder that holds CAA's test/BEHAVIOR/test_dataset_ab.json."""
    if caa is None:
        raise FacError(f'The data of caa_{behavior} are not named: add --metadata \'{{"caa": "DIR"}}\'.')
    path = Path(caa).expanduser() / "test" / behavior / "test_dataset_ab.json"
    documents = [
        {"item": i, "question": choice.text, "letters": list(choice.letters), "matching": choice.matching}
        for i, item in enumerate(read_choices(Source(path, name="test")))
        for choice in (item, item.swapped())
    ]
    return {"test": Dataset.from_list(documents)}


def process(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """Log-likelihoods of the letters to what the metrics are made from."""
    p = np.exp([loglikelihood for loglikelihood, _ in results])
    p /= p.sum()
    return {
        "robust": (doc["item"], bool(right(p[None], [doc["matching"]])[0])),
        "p_matching": mean_matching(p, doc["matching"]),
    }


def robust(pairs: Sequence[tuple[int, bool]]) -> float:
    """Share of items that are right in both orders."""
    items = {item for item, _ in pairs}
    return 1 - len({item for item, is_right in pairs if not is_right}) / len(items)
