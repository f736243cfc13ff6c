"""What `experiments.reward` shows: accuracy by section, beside the paper's full-data model, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell, measured
from experiments.harness.tables import table
from experiments.tasks import TASKS
from experiments.tasks.base import load_metrics, load_replicates
from fac.data.examples import left_out
from fac.data.pair_steps import load_dropped, load_pairs_report
from fac.store import Step

TASK = TASKS["reward"]
TRAINED = "trained"  # the row
BEST = ("chat", "chat_hard", "safety", "reasoning", "average")


@dataclass(frozen=True)
class Steps:
    """What the page is made of."""

    pairs: Mapping[str, Step]  # by role
    kept: Step
    scores: Mapping[int, Step]  # by seed


def page(run: RunConfig, steps: Steps, results: Results) -> Page:
    """Accuracy by section, its mean, and what was left out."""
    train, test = run.data["train"], run.data["test"]
    reports = {role: load_pairs_report(results.folder(step)) for role, step in steps.pairs.items()}
    dropped = load_dropped(results.folder(steps.kept))
    asked = [f"{dropped} pairs of train were left out: the test asks what they ask."] if dropped else []
    kind = labels.kind("paper" if labels.is_published(TASK, [test]) else "own", {run.model.name: run.model.ref})
    beside = labels.stands_beside(kind, run.model.name)
    cells = _cells({seed: results.folder(step) for seed, step in steps.scores.items()})
    main = table(
        run,
        "reward",
        f"Reward model, {run.model.name}: {train.title} to {test.title}",
        [TRAINED],
        [cell.column for cell in cells],
        cells,
        {TRAINED: "Trained on these pairs"},
        [*([_printed(run)] if beside else []), *left_out(reports), *asked],
        [kind],
    )
    return Page(
        title=main.title,
        subtitle="Share of pairs whose chosen reply scores higher, by section.",
        tables=[main],
        facts=[(role, f"{run.data[role]}: {report}") for role, report in reports.items()],
    )


def _cells(scores: Mapping[int, Path]) -> list[Cell]:
    """One for each metric, over the seeds."""
    metrics = {seed: load_metrics(folder) for seed, folder in scores.items()}
    drawn = {seed: load_replicates(folder) for seed, folder in scores.items()}
    names = [name for name in next(iter(metrics.values())) if name != "n"]
    return [
        measured(
            TRAINED,
            name,
            {seed: 100 * found[name] for seed, found in metrics.items()},
            replicates=[100 * drawn[seed][name] for seed in sorted(drawn) if name in drawn[seed]],
        )
        for name in names
    ]


def _printed(run: RunConfig) -> str:
    """What the paper's model of all its human data has on RewardBench, trained as this one was."""
    printed = paper_table("table13" if run.tasks[TASK.name].train.mode == "head" else "table14")
    full = [(name, printed.get("full", name)) for name in BEST]
    told = ", ".join(f"{name} {number.mean}" for name, number in full if number)
    return f"The paper's full-data model on RewardBench ({printed.source}): {told}."
