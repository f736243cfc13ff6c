"""Table 9, Fig. 4 and Fig. 1: samples for a share of the missing features alone, which the generation seed draws.

    fac experiment=shares [experiment.tasks=[toxicity]] [experiment.shares=[0.3,1.0]]

one: a sample for each of these features (Table 9, whose rows of Fig. 1 have 600, 1,200 and 2,000 samples); budget: as
many samples as every method adds, whatever the share (Fig. 4's N = 200). At scale=paper heads are trained, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, grid
from experiments.harness.graph import Graph
from experiments.harness.tables import BASELINE
from experiments.pages.shares import page
from fac.errors import FacError

SHARE, EACH = "synthesis.ratio", "synthesis.per_feature"


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")
    shares: tuple[float, ...] = (0.3, 0.6, 0.9, 1.0)  # of the missing features that are written for
    counts: tuple[Literal["one", "budget"], ...] = ("one", "budget")

    def __post_init__(self) -> None:
        if not all(0 < share <= 1 for share in self.shares):
            raise FacError("shares are above 0 and at most 1.")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline, and FAC at every share with either number of samples."""
    o: Options = run.experiment
    changes = [{SHARE: share, EACH: {"one": 1, "budget": None}[count]} for count in o.counts for share in o.shares]
    written = grid(run, task=o.tasks, method="fac", settings=changes, **o.axes)
    return Plan([*grid(run, task=o.tasks, method=BASELINE, **o.axes), *written], partial(page, run))


EXPERIMENT = Experiment(
    "shares",
    "Table 9, Figs. 1 and 4: samples for a share of the missing features",
    plan,
    Options,
    paper=("table9", "figure1", "figure4"),
    defaults=({"override /tasks": "${scale}_heads"},),
)
