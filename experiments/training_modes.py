"""Fig. 12: how much of the model is trained: the head, LoRA, the last layers, or all; PES = AUPRC / log10(parameters).

    fac experiment=training_modes [experiment.modes=[head,lora]]

At the paper's scale full training needs 128 GB for weights, gradients and optimizer: more than one card has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Record, Repeated, Results, Trial, grid
from experiments.harness.graph import Graph
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Table
from experiments.harness.tables import number, of_task
from experiments.harness.views import Column, Value
from experiments.pages import rows

TASK = "toxicity"
KEY = f"tasks.{TASK}.train"
NAMES = {"head": "Head only", "lora": "LoRA (Table 1)", "partial": "Last layers", "full": "All weights"}
# What differs from LoRA's settings, by scale. Head-only is the paper's (4.5); of the last two nothing is known.
SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "lab": {
        "head": {"mode": "head", "epochs": 15},
        "lora": {},
        "partial": {"mode": "partial", "learning_rate": 1e-3},
        "full": {"mode": "full", "learning_rate": 1e-3},
    },
    "small": {
        "head": {"mode": "head"},
        "lora": {"mode": "lora", "epochs": 3, "learning_rate": 2e-4},
        "partial": {"mode": "partial", "epochs": 3, "learning_rate": 5e-5},
        "full": {"mode": "full", "epochs": 3, "learning_rate": 5e-5},
    },
    "paper": {
        "head": {"mode": "head", "epochs": 15, "learning_rate": 8e-5, "batch_size": 1},
        "lora": {},
        "partial": {"mode": "partial", "learning_rate": 1e-5},
        "full": {"mode": "full", "learning_rate": 1e-5},
    },
}


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    modes: tuple[Literal["head", "lora", "partial", "full"], ...] = ("head", "lora", "partial", "full")


def settings_of(run: RunConfig, mode: str) -> dict[str, Any]:
    return {f"{KEY}.{name}": value for name, value in SETTINGS[run.scale][mode].items()}


def row_of(trial: Trial) -> str:
    return trial.setting(f"{KEY}.mode") or "lora"


def plan(run: RunConfig, graph: Graph) -> Plan:
    """FAC's rows, trained in each mode."""
    o: Options = run.experiment
    settings = [settings_of(run, mode) for mode in o.modes]
    return Plan(grid(run, task=TASK, method="fac", settings=settings, **o.axes), partial(page, run))


def page(run: RunConfig, results: Results) -> Page:
    """Score, trained parameters and their ratio; LoRA against the others."""
    from fac.train.sequence import trained_count

    o: Options = run.experiment
    trained = {}
    for trial, steps in results.trials.items():
        assert steps.trained is not None
        trained[trial] = trained_count(results.folder(steps.trained))
    score = number(run.task(TASK))

    def efficiency(record: Record) -> float | None:
        found = score.of(record)
        return None if found is None else found / math.log10(trained[record.trial])

    held = of_task(TASK)
    columns = [
        Column(
            f"{TASK}_parameters", "trained parameters", Value(lambda r: trained[r.trial], "count", lambda t: None), held
        ),
        Column(f"{TASK}_pes", "PES", Value(efficiency, "points per decade"), held),
    ]
    shown = rows.Shown(
        "How much is trained",
        "Fig. 12 of the paper: the same data, with more or less of the model trained on them.",
        columns=lambda task: columns,
        notes=[
            "PES is the score in percent over log10 of the number of trained parameters. Learning rates of the last "
            "layers and of all weights were not chosen on validation data, and the paper's are not known. The paper "
            "says that LoRA scores best, that the head alone has the best PES, and that the others are worse."
        ],
        figures=lambda main: [figure(main, o.modes)],
    )
    pairs = [("lora", mode) for mode in o.modes if mode != "lora" and "lora" in o.modes]
    made = rows.Rows(names={mode: NAMES[mode] for mode in o.modes}, of=row_of, pairs=pairs)
    return rows.page(run, results, "training_modes", (TASK,), made, shown, budgets=False)


def figure(main: Table, modes: tuple[str, ...]) -> Figure:
    """Score by the number of trained parameters."""
    points = {mode: (main.cell(mode, f"{TASK}_parameters"), main.cell(mode, TASK)) for mode in modes}
    found = sorted((count.mean, cell.mean, NAMES[mode]) for mode, (count, cell) in points.items() if count and cell)
    x = [math.log10(count) for count, _, _ in found]
    series = Series("FAC", x, [score for _, score, _ in found], labels=[name for *_, name in found])
    return Figure("Score by how much is trained (Fig. 12)", "log10 of trained parameters", "AUPRC, %", [series])


EXPERIMENT = Experiment(
    "training_modes", "Fig. 12: head, LoRA, last layers or all weights", plan, Options, paper="figure12"
)
