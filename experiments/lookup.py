"""Tables 2 and 16 to 19: what given features are, task by task: spans, explanation, verification, relevance.

    fac experiment=lookup experiment.ids=[2039,6840] experiment.tasks=[toxicity]
    fac experiment=lookup scale=paper                        # the paper's features, beside its words for them

Only the features that are named are explained. Where none are named and the model is not the one whose features the
paper shows, every feature is, and those are shown that most texts activate, relevant ones and others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from pydantic import Field

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.lookup import Looked, page, papers_features
from experiments.tasks import TASKS
from fac.errors import FacError, closest
from fac.gap import interpretations


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    ids: tuple[Annotated[int, Field(ge=0)], ...] = ()  # of the SAE's features; none: the paper's, or the most active
    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")  # relevant to which

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in TASKS:
                raise FacError(f"experiment.tasks cannot be {task}{closest(task, TASKS)}.")


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The features of each task's anchor and seed data, and what the annotator says of those that are looked up."""
    looked = {task: looked_up(run, graph, task, ids) for task, ids in named(run).items()}
    steps = [step for one in looked.values() for step in (one.anchor_features, one.seed_features, one.told)]
    return Plan([], partial(page, run, looked), steps)


def named(run: RunConfig) -> Mapping[str, Sequence[int]]:
    """The ids that are looked up for each task; none where they are chosen by what the annotator says."""
    o: Options = run.experiment
    if o.ids:
        return dict.fromkeys(o.tasks, o.ids)
    papers = papers_features(run)
    return {task: [f.feature for f in papers if f.task == task] for task in o.tasks}


def looked_up(run: RunConfig, graph: Graph, name: str, ids: Sequence[int]) -> Looked:
    """The steps of one task."""
    task = TASKS[name]
    data = graph.data(run, name, run.seeds.data, "test")
    mining = graph.mining(run, task, data)
    told = mining.interpretations
    if ids:  # few enough to be verified, too
        annotators, settings = graph.llms(run, run.model.ref).annotators, replace(run.interpret, verified=True)
        measured, prompts = mining.anchor_features, graph.prompts(run, task)
        told = interpretations(mining.encoder, measured, mining.anchor, annotators, prompts, settings, only=ids)
    return Looked(mining.encoder, mining.anchor, mining.anchor_features, mining.seed_features, told, tuple(ids))


EXPERIMENT = Experiment(
    "lookup",
    "Tables 2 and 16 to 19: given features with their spans, explanation and verdicts",
    plan,
    Options,
    paper=("table2", "table16", "table17", "table18", "table19"),
)
