"""Table 3 and Figs. 16 to 18: features mined with one model, data written by a second, a third one trained.

    fac experiment=cross_model [experiment.sources=[lab_llama]] [experiment.task=reward]

All combinations of the models named. At scale=paper heads are trained, as in Table 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, grid
from experiments.harness.graph import Graph
from experiments.harness.tables import BASELINE
from experiments.pages.cross_model import page
from experiments.tasks import TASKS
from fac.errors import FacError, closest


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY; models are names of conf/model, none: those of the scale."""

    sources: tuple[str, ...] = ()  # whose features and SAE find what is missing
    writers: tuple[str, ...] = ()  # who writes for it
    trained: tuple[str, ...] = ()  # who is trained on what was written
    task: str = "toxicity"


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline of every trained model, and every combination."""
    options = chosen(run)
    if options.task not in TASKS:
        raise FacError(f"experiment.task cannot be {options.task}{closest(options.task, TASKS)}.")
    task = TASKS[options.task]
    if task.from_base or task.references:
        raise FacError("experiment.task of cross_model names a task that trains the instruct model, such as reward.")
    if not run.llms.writer.follows_run:
        raise FacError(
            "experiment.writers of cross_model names the models that write: leave out llm.path, and choose "
            "llm=transformers or llm=vllm."
        )
    # A baseline needs no features; with those of the first source, none are mined for it alone.
    first = {"features_of": options.sources[0], "writer": options.writers[0]}
    baselines = grid(run, task=task.name, method=BASELINE, trained=options.trained, **first)
    crossed = grid(
        run, task=task.name, method="fac", features_of=options.sources, writer=options.writers, trained=options.trained
    )
    return Plan([*baselines, *crossed], partial(page, run, options))


def chosen(run: RunConfig) -> Options:
    """The options with the scale's models where none are named."""
    options: Options = run.experiment
    named = {part: getattr(options, part) or run.families for part in ("sources", "writers", "trained")}
    return replace(options, **named)


EXPERIMENT = Experiment(
    "cross_model",
    "Table 3: features of one model, written by a second, a third one trained",
    plan,
    Options,
    paper=("table3", "figure16", "figure17", "figure18"),
    defaults=({"override /tasks": "${scale}_heads"},),
)
