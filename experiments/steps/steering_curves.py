"""What a model answers with a task's steering vector at every multiplier, as a step: robust and standard accuracy."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from fac.data.example_set import load_examples
from fac.data.schemas import CHOICE
from fac.model_ref import ModelRef
from fac.store import Step
from fac.train.settings import Positions

CURVE = "curve.json"


def curve_step(model: ModelRef, positions: Positions, vector: Step, test: Step) -> Step:
    """The numbers of `eval.steering.Score` by multiplier (`load_curve`)."""
    params = {"model": model, "positions": positions}
    return Step("steering_curve", partial(_measure, model, positions), params, (vector, test), parallel=True)


def _measure(model: ModelRef, positions: Positions, folder: Path, vector: Path, test: Path) -> None:
    from eval.steering import MULTIPLIERS, evaluate, score
    from fac.backbone import load_causal_lm
    from fac.train.steering import SteeringVector

    steering, loaded = SteeringVector.load(vector), load_causal_lm(model)
    items = load_examples(CHOICE, [test])
    found = {
        f"{at:+g}": asdict(score(evaluate(*loaded, items, steering, at, positions, batch_size=32)))
        for at in MULTIPLIERS
    }
    (folder / CURVE).write_text(json.dumps(found), encoding="utf-8")


def load_curve(folder: Path) -> dict[str, dict[str, float]]:
    """By multiplier ("-1", ..., "+1"): robust, standard, p_matching, mass; fractions."""
    return json.loads((folder / CURVE).read_text(encoding="utf-8"))
