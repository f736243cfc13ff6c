"""Table 4: who writes, at which temperature; toxicity.

    fac experiment=generators [experiment.writers=[lab_llama,lab_qwen]] [experiment.temperatures=[0.4,0.8]]

Writers are models of conf/model, or engines of conf/llm (openai: GPT-4o mini). What is missing is found with the run's
own model. At scale=paper heads are trained, as in Table 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Repeated, grid, sweep
from experiments.harness.graph import Graph
from experiments.pages.generators import TEMPERATURE, page
from fac.errors import FacError


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    task: str = "toxicity"
    temperatures: tuple[float, ...] = (0.4, 0.6, 0.8, 1.0, 1.2)
    writers: tuple[str, ...] = ()  # two, of which the first has the gap; none: the run's model, and another one


def writers_of(run: RunConfig) -> tuple[str, ...]:
    """The run's model and GPT-4o mini; in the lab, another of its models in place of that."""
    named: tuple[str, ...] = run.experiment.writers
    if named and len(named) != 2:
        raise FacError("experiment.writers names two, such as [llama31_8b,openai], or none.")
    if not run.llms.writer.follows_run:
        raise FacError("experiment.writers names who writes: leave out llm.path, and llm=openai.")
    other = (
        next((name for name in run.families if name != run.model.name), "openai") if run.scale == "lab" else "openai"
    )
    return named or (run.model.name, other)


def plan(run: RunConfig, graph: Graph) -> Plan:
    """FAC, written by either at every temperature."""
    o: Options = run.experiment
    writers = writers_of(run)
    settings = sweep(TEMPERATURE, o.temperatures)
    one = {"trained": run.model.name}
    return Plan(
        grid(run, task=o.task, method="fac", writer=writers, settings=settings, **one, **o.axes),
        partial(page, run, writers),
    )


EXPERIMENT = Experiment(
    "generators",
    "Table 4: who writes, at which temperature",
    plan,
    Options,
    paper="table4",
    defaults=({"override /tasks": "${scale}_heads"},),
)
