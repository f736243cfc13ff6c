"""Annotation noise (paper Table 6): interpretations of which a share is spoilt on purpose, as a step.

What the paper does is known by its numbers alone. The Jaccard indices of its missing sets, 82.13 and 66.54 %, are those
of 214 features of which 21 and 43 (10 and 20 %) are exchanged for as many others: 193/235 and 171/257. So `mislabel`
exchanges missing features for irrelevant ones. Poor summaries leave the missing set as it is (100 %).
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from fac.errors import FacError
from fac.gap import InterpretSettings, Mining, MissingFeatures
from fac.interpret import RELEVANT, Interpretation, load_interpretations
from fac.store import Step

KEPT_WORDS = 0.5  # of a truncated summary; the paper does not say how much is cut


def with_noise(mining: Mining, settings: InterpretSettings) -> Mining:
    """What is missing, and what is told of it, by interpretations that are spoilt as the settings say.

    Raises FacError for noise on verdicts that the settings do not read.
    """
    kind, share = settings.noise, settings.noise_share
    if kind == "none":
        return mining
    if settings.judge != "llm":
        raise FacError(f"interpret.noise={kind} spoils what the LLM says: set interpret.judge=llm.")
    params = {"kind": kind, "share": share, "seed": settings.seed}
    build = partial(_spoil, kind, share, settings.seed)
    told = Step("noisy_interpretations", build, params, (mining.interpretations, mining.wanted))
    inputs = tuple(told if part is mining.interpretations else part for part in mining.wanted.inputs)
    wanted = replace(mining.wanted, inputs=inputs)
    missing = replace(mining.missing, inputs=(*mining.missing.inputs[:-1], wanted))
    return replace(mining, interpretations=told, wanted=wanted, missing=missing)


def _spoil(kind: str, share: float, seed: int, folder: Path, told: Path, missing: Path) -> None:
    found = spoilt(load_interpretations(told), MissingFeatures.load(missing), kind, share, seed)
    lines = "".join(json.dumps(asdict(said)) + "\n" for said in found.values())
    (folder / "interpretations.jsonl").write_text(lines)
    (folder / "replies-judge.jsonl").write_text("")  # what the judge said of them was of summaries as they were


def spoilt(
    told: Mapping[int, Interpretation], found: MissingFeatures, kind: str, share: float, seed: int
) -> dict[int, Interpretation]:
    """Interpretations with a share of the missing features', drawn by `seed`, spoilt.

    mislabel: they become irrelevant, and as many become relevant that are not and that the anchor activates and the
    seed does not; truncate: the first half of the words of their summaries is kept; mismatch: each has the summary of
    another missing feature. Raises FacError where there are too few features to exchange.
    """
    draw, missing = random.Random(f"{seed}/{kind}"), np.flatnonzero(found.missing()).tolist()
    chosen = draw.sample(missing, round(share * len(missing)))
    if kind == "mislabel":
        return {**told, **_mislabelled(told, found, chosen, draw)}
    if kind == "truncate":
        return {**told, **{f: replace(told[f], explanation=_truncated(told[f].explanation)) for f in chosen}}
    if chosen and len(missing) < 2:
        raise FacError("Summaries cannot be exchanged among fewer than two missing features: use another noise.")
    others = {f: draw.choice([other for other in missing if other != f]) for f in chosen}
    return {**told, **{f: replace(told[f], explanation=told[other].explanation) for f, other in others.items()}}


def _mislabelled(
    told: Mapping[int, Interpretation], found: MissingFeatures, chosen: Sequence[int], draw: random.Random
) -> dict[int, Interpretation]:
    row = found.chosen
    unseen = (found.anchor_counts[row] > 0) & (found.seed_counts[row] == 0) & ~found.relevant
    pool = [f for f in np.flatnonzero(unseen).tolist() if f in told and told[f].explanation]
    if len(pool) < len(chosen):
        raise FacError(
            f"There are {len(pool)} irrelevant features that only the anchor activates, too few to take the place of "
            f"{len(chosen)}: lower interpret.noise_share."
        )
    instead = {
        f: replace(told[f], relevance=RELEVANT[0], verification=RELEVANT[0]) for f in draw.sample(pool, len(chosen))
    }
    return {f: replace(told[f], relevance="No") for f in chosen} | instead


def _truncated(summary: str) -> str:
    words = summary.split()
    return " ".join(words[: max(round(KEPT_WORDS * len(words)), 1)])
