"""Experiments for the length of a test: modules in a folder that joins the package `experiments`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import experiments

PROBE = '''
"""Reads what a table of trained tasks reads."""
from dataclasses import dataclass
from types import SimpleNamespace

from experiments.harness.experiment import Plan
from fac.errors import FacError

@dataclass(frozen=True)
class Options:
    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")
    rows: tuple[str, ...] = ("baseline", "fac")
    at_least: float = 0.7

    def __post_init__(self):
        if "fc" in self.rows:
            raise FacError("rows cannot be fc: did you mean fac.")

def plan(run, graph=None):
    run.model.ref, run.sae, run.sae_layer, run.features, run.interpret, run.thresholds, run.llms, run.seeds.training
    for name in run.experiment.tasks:
        task = run.tasks[name]
        task.train, task.budget, task.protocol, task.prompts, task.sizes, task.data, run.synthesis(name)
    return Plan([], None)

EXPERIMENT = SimpleNamespace(name="probe", options=Options, help="a probe", plan=plan)
'''
OWN_DATA = '''
"""Reads two data sets of one's own, and may read a third."""
from types import SimpleNamespace

from experiments.harness.experiment import Plan

def plan(run, graph=None):
    run.data["anchor"], run.data["seed"], run.data.get("more"), run.parts, run.model.ref, run.sae, run.thresholds
    return Plan([], None)

EXPERIMENT = SimpleNamespace(
    name="own_data", plan=plan, data={"anchor": {}, "seed": {}, "more": {"path": None}}, settings={"data.parts": None}
)
'''


def declare(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Write modules to `folder` and make it a part of the package until the test ends."""
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, f"experiments.{name}", raising=False)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(folder)])
    importlib.invalidate_caches()


TABLE10 = '''
"""Table 10 on one task: what one step and two steps of writing cover, at every threshold."""
from experiments.harness.experiment import Experiment, Plan, grid

def plan(run, graph):
    trials = grid(run, task="toxicity", method=("fac_one_step", "fac"), seed=None)
    return Plan(trials, lambda results: None)

EXPERIMENT = Experiment("two_steps_of_one", "Table 10 on one task", plan)
'''
MEASURING = '''
"""Measures two data sets of one's own, and reads a file beside them."""
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.harness.experiment import Experiment, Plan
from fac.data.corpus import write_corpus
from fac.data.files import content_digest
from fac.store import Step

@dataclass(frozen=True)
class Options:
    truth: str | None = None
    only_file: bool = False

def corpus(source):
    return Step("corpus", partial(write_corpus, source), {"source": partial(content_digest, source)})

def compare(truth, folder, *inputs):
    pass

def plan(run, graph):
    o = run.experiment
    truth = None if o.truth is None else Path(o.truth)
    if o.only_file:
        return Plan([], None, [Step("coverage", partial(compare, truth), {})])
    anchor, seed = (corpus(run.data[role]) for role in ("anchor", "seed"))
    encoder = graph.encoder(run, anchor)
    measured = [encoder.features(texts) for texts in (anchor, seed)]
    return Plan([], None, [Step("coverage", partial(compare, truth), {}, tuple(measured))])

EXPERIMENT = Experiment("measuring", "two data sets", plan, Options, data=("anchor", "seed"))
'''
