"""The lab's toxicity table: the whole method on the written world, beside the paper's numbers, and against the truth.

fac experiment=lab [seeds.data=1]     (= make lab)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Trial, grid, possible, sweep
from experiments.harness.graph import Graph
from experiments.harness.tables import BASELINE
from experiments.pages.lab import page
from experiments.pages.lab_table import PROTOCOL, TASK
from fac.gap import missing_as_relevant_to, relevant_by_labels
from fac.store import Step


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    methods: tuple[str, ...] = (BASELINE, "seed_twice", "full", "random_features", "fac_one_step", "fac")
    protocols: tuple[Literal["added", "alone"], ...] = ("added", "alone")
    test: Literal["test", "validation"] = "test"  # choices are made on validation, in a world of their own


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Every method under both protocols, one training per seed; and what is missing with Top-K off."""
    o: Options = run.experiment
    axes = sweep(PROTOCOL, o.protocols)
    trials = possible(run, grid(run, task=TASK.name, method=o.methods, settings=axes, test=o.test))
    diagnostics = beside(run, graph, trials[0])
    return Plan(trials, partial(page, run, diagnostics), list(diagnostics.values()))


def beside(run: RunConfig, graph: Graph, trial: Trial) -> dict[str, Step]:
    """What the page compares with: the released code's rule (Top-K off), and the judge that asks no LLM."""
    data = graph.data(run, TASK.name, trial.data_seed, trial.test)
    mining = graph.mining(run, TASK, data)
    official = graph.encoder(run.with_({"features.rule": "official"}), data.anchor)
    off = missing_as_relevant_to(official, data.anchor, data.seed, mining.missing, run.thresholds)
    assert data.labelled is not None
    statistical = relevant_by_labels(mining.encoder, data.labelled, run.interpret.fdr)
    return {"official": off, "statistical": statistical}


EXPERIMENT = Experiment(
    "lab",
    "The lab's toxicity table: all methods under both protocols, against the ground truth (make lab)",
    plan,
    Options,
    settings={"seeds.training": (42, 43, 44, 45, 46)},
)
