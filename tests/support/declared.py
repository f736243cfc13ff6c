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

from fac.errors import FacError

@dataclass(frozen=True)
class Options:
    tasks: tuple[str, ...] = ("toxicity", "reward", "sycophancy", "survival", "instruction")
    rows: tuple[str, ...] = ("baseline", "fac")
    at_least: float = 0.7

    def __post_init__(self):
        if "fc" in self.rows:
            raise FacError("rows cannot be fc: did you mean fac.")

def plan(run):
    run.model.ref, run.sae, run.sae_layer, run.features, run.interpret, run.thresholds, run.llms, run.seeds.training
    for name in run.experiment.tasks:
        task = run.tasks[name]
        task.train, task.budget, task.protocol, task.prompts, task.sizes, task.data, run.synthesis(name)
    return "planned"

EXPERIMENT = SimpleNamespace(name="probe", options=Options, help="a probe", plan=plan)
'''
OWN_DATA = '''
"""Reads two data sets of one's own, and may read a third."""
from types import SimpleNamespace

def plan(run):
    run.data["anchor"], run.data["seed"], run.data.get("more"), run.parts, run.model.ref, run.sae, run.thresholds
    return "planned"

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
