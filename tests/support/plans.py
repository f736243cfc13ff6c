"""What a dry run says is to do, against what a run then builds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.harness.config import read_config
from experiments.harness.graph import Graph
from experiments.harness.listing import experiments
from experiments.harness.plan import Planned, planned
from experiments.harness.run import lay_out
from experiments.harness.session import store_of


def plan_of(settings: Sequence[str]) -> Planned:
    """What a dry run with these settings finds."""
    run = read_config(settings)
    with Graph(run, lambda _: None) as graph:
        laid = lay_out(experiments()[run.name], run, graph)
        targets = [target for steps in laid.trials.values() for target in steps.targets]
        return planned([*targets, *laid.plan.steps], store_of(run))


def stored(store: Path) -> dict[tuple[str, str], int]:
    """When each finished step of a store was finished, by name and key."""
    records = store.glob("*/*/stage.json")
    return {(file.parts[-3], file.parts[-2]): file.stat().st_mtime_ns for file in records}
