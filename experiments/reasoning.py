"""Table 15: does training on what FAC wrote cost the instruct model its reasoning? GSM8K before and after.

    fac experiment=reasoning scale=paper experiment.models=[llama31_8b]
    fac experiment=reasoning experiment.gsm8k=FILE.jsonl

The instruct model is fine-tuned (as tasks.instruction.train says, in its own chat template) on the instructions that
FAC wrote; how the paper trains for this table is not known. lm-eval 0.4.13 has no LiveCodeBench, so its columns are
missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, grid
from experiments.harness.graph import Graph
from experiments.pages.reasoning import Steps, page
from experiments.steps.reasoning import FILE_TASK, benchmarks_step
from experiments.tasks import TASKS
from experiments.tasks.base import train_step
from fac.errors import FacError

TASK = "instruction"


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    models: tuple[str, ...] = ()  # names of conf/model; none: those of the scale
    method: str = "fac"  # whose rows are trained on
    gsm8k: str | None = None  # a file in place of the hub's: rows with question and answer
    benchmarks: tuple[str, ...] = ("gsm8k",)  # tasks of lm-eval

    @property
    def file(self) -> Path | None:
        return None if self.gsm8k is None else Path(self.gsm8k).expanduser()

    @property
    def tasks(self) -> list[str]:
        """As lm-eval calls them."""
        return [FILE_TASK if name == "gsm8k" and self.gsm8k else name for name in self.benchmarks]


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Each model as it is, and fine-tuned with each training seed, measured by the same benchmarks."""
    o: Options = run.experiment
    if run.scale == "lab" and o.gsm8k is None:
        raise FacError("The lab's models know the lab's words only: set experiment.gsm8k=FILE to questions of yours.")
    steps = {name: _steps(run, graph, name) for name in o.models or run.families}
    read = [step for one in steps.values() for step in (one.before, *one.after.values())]
    return Plan([], partial(page, run, steps), read)


def _steps(run: RunConfig, graph: Graph, name: str) -> Steps:
    o: Options = run.experiment
    model = run.for_model(name).model.ref
    (trial,) = grid(run, task=TASK, method=o.method, seed=None, features_of=name)
    added = graph.steps(trial).added
    if added is None:
        raise FacError(f"experiment.method={o.method} adds no rows to train on: name another, such as fac.")
    settings: Any = replace(run.tasks[TASK].train, chat_template=None)
    measured = partial(benchmarks_step, model, tasks=o.tasks, file=o.file)
    trained = {s: train_step(TASKS[TASK], model, settings, s, [], None, added) for s in run.seeds.training}
    return Steps(measured(None), {seed: measured(step) for seed, step in trained.items()})


EXPERIMENT = Experiment(
    "reasoning", "Table 15: GSM8K before and after training on what was written", plan, Options, paper="table15"
)
