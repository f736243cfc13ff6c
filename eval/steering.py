"""How far a steering vector moves a model's answers (paper App. J, Table 1, Fig. 13 and 14).

Vectors are made in `fac.train.steering`. All metrics are fractions in 0..1 (the paper prints percent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.statistics import Replicates, resampled, resampled_means
from fac.errors import FacError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fac.data.choices import Choice
    from fac.train.settings import Positions
    from fac.train.steering import SteeringVector

MULTIPLIERS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # paper 4.5
_FILE = "answers.npz"


@dataclass(frozen=True)
class Answers:
    """What a model answers to n items, asked as they stand and with the two asked options swapped."""

    p: NDArray[np.float64]  # [2, n, most options]: softmax over the item's letters, as it stands and swapped
    matching: NDArray[np.int64]  # [2, n]: index of the matching letter
    mass: NDArray[np.float64]  # [2, n]: probability of all letters of the item among all tokens

    def save(self, folder: Path) -> None:
        np.savez(folder / _FILE, **vars(self))

    @classmethod
    def load(cls, folder: Path) -> Answers:
        with np.load(folder / _FILE) as held:
            return cls(**held)


@dataclass(frozen=True)
class Score:
    """The numbers of one multiplier; fractions."""

    robust: float  # robust accuracy
    standard: float  # accuracy in the order of the data set, which a liking for a letter can inflate (Fig. 13)
    p_matching: float  # mean probability of the matching letter, over both orders
    mass: float  # mean probability that the model names a letter at all


def right(p: ArrayLike, matching: ArrayLike) -> NDArray[np.bool_]:
    """Whether the matching letter is more probable than every other; `p` [n, letters], `matching` [n]. Ties are not."""
    values = np.array(p, dtype=np.float64)
    index = np.asarray(matching, dtype=np.int64)[:, None]
    own = np.take_along_axis(values, index, axis=1)[:, 0]
    np.put_along_axis(values, index, -np.inf, axis=1)
    return own > values.max(axis=1)


def standard_accuracy(p: ArrayLike, matching: ArrayLike) -> float:
    """Share of items that are right in the order of the data set."""
    return float(right(p, matching).mean())


def robust_accuracy(p: ArrayLike, matching: ArrayLike) -> float:
    """Share of items that are right in both orders (paper App. J); `p` [2, n, letters], `matching` [2, n]."""
    orders = [right(*order) for order in zip(np.asarray(p), np.asarray(matching), strict=True)]
    return float(np.logical_and(*orders).mean())


def mean_matching(p: ArrayLike, matching: ArrayLike) -> float:
    """Mean probability of the matching letter over items and both orders; shapes as for `robust_accuracy`."""
    return float(np.take_along_axis(np.asarray(p), np.asarray(matching)[..., None], axis=-1).mean())


def scr(robust: Mapping[float, float]) -> float:
    """Steering control range: robust accuracy at multiplier +1 less that at -1 (paper App. J), in -1..1.

    Raises FacError if one of the two was not measured.
    """
    if not {-1.0, 1.0} <= set(robust):
        raise FacError(f"SCR needs the multipliers -1 and 1, but there are {sorted(robust)}: add them.")
    return robust[1.0] - robust[-1.0]


def replicates(low: Answers, high: Answers) -> Replicates:
    """Bootstrap replicates, over the questions, of what the multipliers -1 (`low`) and +1 (`high`) differ by.

    "scr" of robust accuracy, "matching_range" of the mean probability of the matching letter; fractions.
    """
    counts = resampled(np.zeros(low.matching.shape[1]))
    robust = [np.logical_and(*map(right, a.p, a.matching)).astype(float) for a in (low, high)]
    own = [np.take_along_axis(a.p, a.matching[..., None], axis=-1)[..., 0].mean(axis=0) for a in (low, high)]
    return {
        "scr": resampled_means(robust[1] - robust[0], counts),
        "matching_range": resampled_means(own[1] - own[0], counts),
    }


def score(answers: Answers) -> Score:
    return Score(
        robust=robust_accuracy(answers.p, answers.matching),
        standard=standard_accuracy(answers.p[0], answers.matching[0]),
        p_matching=mean_matching(answers.p, answers.matching),
        mass=float(answers.mass.mean()),
    )


def evaluate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Choice],
    vector: SteeringVector | None = None,
    multiplier: float = 0.0,
    positions: Positions = "all",
    batch_size: int = 8,
) -> Answers:
    """Ask every item in both orders, with `multiplier` times `vector` added at `positions`."""
    from fac.train.steering import letter_probabilities

    orders = [list(items), [item.swapped() for item in items]]
    found = [letter_probabilities(model, tokenizer, o, vector, multiplier, positions, batch_size) for o in orders]
    return Answers(
        p=np.stack([answer.p for answer in found]),
        matching=np.array([[item.matching for item in order] for order in orders]),
        mass=np.stack([answer.mass for answer in found]),
    )
