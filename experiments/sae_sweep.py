"""Table 7 and Fig. 8: the SAE's width, its K and the layer that it reads: reconstruction, and the score in the end.

    fac experiment=sae_sweep [experiment.swept=[widths] experiment.widths=[1024,4096]]

Every SAE is trained on the anchor texts of the task, by sae=train in the lab and by the paper's recipe at its scale
(the paper's are trained on a corpus of their own, 711,000 queries; experiment=sae measures one that is). One of the
three is changed at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import PositiveInt

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, Trial, grid
from experiments.harness.graph import Graph
from experiments.harness.tables import BASELINE
from experiments.pages.sae_sweep import TASK, page, row_name

KEYS = {"widths": "sae.train.width", "ks": "sae.train.k", "layers": "sae.layer"}
SWEPT = {  # by scale, beside the run's own: Table 7 and Fig. 8, and what is their like in the lab
    "lab": {"widths": (1024, 4096), "ks": (4, 16), "layers": (1, 3)},
    "small": {"widths": (4096, 16384), "ks": (10, 40), "layers": (8, 22)},
    "paper": {"widths": (2**14, 2**17), "ks": (10, 40), "layers": (8, 24)},
}


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY; values beside the run's own, none: those of the scale."""

    swept: tuple[Literal["widths", "ks", "layers"], ...] = ("widths", "ks", "layers")
    widths: tuple[PositiveInt, ...] = ()
    ks: tuple[PositiveInt, ...] = ()
    layers: tuple[PositiveInt, ...] = ()


def settings_of(run: RunConfig) -> dict[str, Mapping[str, int]]:
    """What each row changes, by its name; the first is the run's own SAE."""
    o: Options = run.experiment
    changed: list[Mapping[str, int]] = [{}]
    for name, key in KEYS.items():
        if name in o.swept:
            changed += [{key: value} for value in getattr(o, name) or SWEPT[run.scale][name]]
    return {row_name(run.with_(one)): one for one in changed}


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline, FAC by every SAE, and each SAE's reconstruction of the test, on which none was trained."""
    o: Options = run.experiment
    settings = settings_of(run)
    written = grid(run, task=TASK, method="fac", settings=list(settings.values()), **o.axes)
    baseline = grid(run, task=TASK, method=BASELINE, settings=[{}], **o.axes)
    quality = {}
    for row, changed in settings.items():
        trial = next(t for t in written if dict(t.settings) == changed)
        steps = graph.steps(trial)
        assert steps.mining is not None
        quality[row] = steps.mining.encoder.quality(steps.data.test)
    read = partial(page, run, partial(row_of, settings), quality)
    return Plan([*baseline, *written], read, list(quality.values()))


def row_of(settings: Mapping[str, Mapping[str, int]], trial: Trial) -> str:
    if trial.method == BASELINE:
        return BASELINE
    return next(row for row, changed in settings.items() if dict(trial.settings) == changed)


EXPERIMENT = Experiment(
    "sae_sweep",
    "Table 7 and Fig. 8: the SAE's width, K and layer, and what they mean for the score",
    plan,
    Options,
    paper=("table7", "figure8"),
    defaults=({"override /sae": "train_${scale}"},),
)
