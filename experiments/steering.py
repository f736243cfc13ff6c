"""How far do the steering vectors of CAA behaviours move a model's answers? (as in paper Fig. 13 and 14)

    fac experiment=steering experiment.behavior=ROOT/generate/sycophancy model=llama31_8b

Any pair of CAA folders, or files: data.generate.path=FILE data.test.path=FILE. Several behaviours are brought to one
norm: experiment.behavior=[ROOT/generate/A,ROOT/generate/B].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.harness.paper_numbers import paper_table
from experiments.pages.steering import page
from experiments.steps.steering import SteeringOptions, steering_steps
from experiments.steps.steering_questions import question_files
from fac.errors import FacError, closest


@dataclass(frozen=True, kw_only=True)
class Options(SteeringOptions):
    """What can be set as experiment.KEY. Pairs are drawn by seeds.training; where all are taken, seeds are one run.

    No cue: from the behaviour's name. Layers count as the paper's do.
    """

    # Folders with generate_dataset.json; the test is ../../test/NAME/test_dataset_ab.json
    behavior: str | tuple[str, ...]
    # The row of Table 1 that the pairs stand for: full (all of CAA's), fac, ...; None: none
    method: str | None = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = paper_table("table1").rows
        if self.method is not None and self.method not in rows:
            raise FacError(f"Table 1 has no row experiment.method={self.method}{closest(self.method, rows)}.")
        if not self.folders or len({folder.name for folder in self.folders}) < len(self.folders):
            raise FacError("behavior must name at least one behaviour, and each only once.")

    @property
    def folders(self) -> list[Path]:
        """Of the behaviours."""
        named = (self.behavior,) if isinstance(self.behavior, str) else self.behavior
        return [Path(name).expanduser().absolute() for name in named]


def plan(run: RunConfig, graph: Graph) -> Plan:
    """One vector for every behaviour and seed, brought to one norm; answers at all multipliers."""
    options: Options = run.experiment
    seeds = run.seeds.training if options.pairs is not None else run.seeds.training[:1]
    steps = steering_steps(question_files(run, options.folders), run.model.ref, options, seeds)
    return Plan([], partial(page, run, steps), steps.all)


EXPERIMENT = Experiment(
    "steering",
    "How far steering vectors of CAA behaviours, read from files, move a model's answers",
    plan,
    Options,
    data={"generate": {"path": None}, "test": {"path": None}},
)
