"""Methods that need more than all are given, in the reduced lab: each adds rows to each task, nothing is done twice."""

from __future__ import annotations

import pytest
from support.reduced import reduced

from experiments.harness.config import read_config
from experiments.harness.experiment import grid
from experiments.harness.graph import Graph
from experiments.harness.records import record_of
from fac.clusters import load_dense_coverage
from fac.store import Store
from fac.synthesis.methods import METHODS

NEEDING = [name for name, method in METHODS.items() if method.needs]
RUN_OUT = (
    "select_fac",
    "select_dense",
)  # of a pool of 20: what is missing in the seed, or in its clusters, stands in few


@pytest.mark.slow
@pytest.mark.parametrize("task", ["toxicity", "reward", "sycophancy", "survival", "instruction"])
def test_every_method_that_needs_more_adds_rows_to_every_task(task, tmp_path):
    settings = [setting for setting in reduced(task, budget=6) if "train" not in setting]
    if task == "survival":  # so many clusters that some of the verdicts on them can be read
        settings.append("tasks.survival.sizes.anchor=120")
    run = read_config(["experiment=main_results", *settings, f"tasks.{task}.pool=20", f"paths.outputs={tmp_path}"])
    built: list[str] = []
    store = Store(tmp_path / "store", lambda event: built.append(event.name) if event.kind == "built" else None)
    with Graph(run, lambda _: None) as graph:
        trials = grid(run, task=task, method=NEEDING, seed=None)
        for trial in trials:
            for step in graph.steps(trial).targets:
                store.get(step)
        records = {trial.method: record_of(trial, graph.steps(trial), store) for trial in trials}
        for trial in trials:
            found = load_dense_coverage(store.get(graph.dense_coverage(trial)))
            assert found.surrogate_error >= found.merge_loss >= 0
    for name, record in records.items():
        counts = record.counts
        assert 0 <= counts["added"] <= 6
        assert (counts["added_tokens"] > 0) == (counts["added"] > 0), name
        assert counts["added"] == 6 or METHODS[name].prompts or name in RUN_OUT, name
        assert ("own" in record.coverage["chosen"]) == (name == "steered" and counts["added"] > 0), name
    assert sum(record.counts["added"] > 0 for record in records.values()) >= len(NEEDING) - 2
    assert built.count("pool") == built.count("clusters") == 1  # for all methods together
