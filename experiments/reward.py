"""A reward model on preference pairs of one's own: trained on one set, tested on another, by section.

    fac experiment=reward data.train.path=FILE data.test.path=FILE model=llama31_8b

Files of UltraFeedback, HH-RLHF, LLMBar, RM-Bench, RewardBench or trl's layout, or data sets of the hub:
data.test.path=hub:allenai/reward-bench data.test.split=filtered. How it is trained: tasks.reward.train, seeds.training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Results
from experiments.harness.graph import Graph
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell, measured
from experiments.harness.tables import table
from experiments.tasks import TASKS
from experiments.tasks.base import load_metrics, load_replicates, scores_step, train_step
from fac.data.example_set import load_examples, save_examples
from fac.data.examples import LoadReport, left_out
from fac.data.held_out import HeldOut
from fac.data.pairs import pairs_fingerprint, read_pairs
from fac.data.schemas import PAIR
from fac.data.source import Source
from fac.errors import FacError
from fac.store import Step

TASK = TASKS["reward"]
TRAINED = "trained"  # the row
BEST = ("chat", "chat_hard", "safety", "reasoning", "average")
REPORT, DROPPED = "report.json", "dropped.json"


def plan(run: RunConfig, graph: Graph) -> Plan:
    """Pairs, those that the test does not ask, and a training and test for each seed."""
    train, test = (pairs_step(run.data[role]) for role in ("train", "test"))
    kept = Step("kept_pairs", _kept, {}, (train, test))
    model, settings = run.model.ref, run.tasks[TASK.name].train
    scores = {}
    for seed in run.seeds.training:
        trained = train_step(TASK, model, settings, seed, [kept], None, None)
        scores[seed] = scores_step(TASK, model, settings, trained, test, {}, None)
    return Plan(
        [], partial(page, run, {"train": train, "test": test}, kept, scores), [train, test, kept, *scores.values()]
    )


def pairs_step(source: Source) -> Step:
    """A data set of pairs, beside the report of how it was read; by the bytes of its files."""
    return Step("pairs", partial(_read, source), {"pairs": partial(pairs_fingerprint, source)})


def _read(source: Source, folder: Path) -> None:
    report = LoadReport()
    save_examples(PAIR, list(read_pairs(source, report=report)), folder)
    (folder / REPORT).write_text(json.dumps(asdict(report)), encoding="utf-8")


def _kept(folder: Path, train: Path, test: Path) -> None:
    """The pairs whose prompt does not stand in the test, and how many do. Raises FacError if all do."""
    pairs = load_examples(PAIR, [train])
    tested = HeldOut.of(PAIR.asked(pair) for pair in load_examples(PAIR, [test]))
    kept = [pair for pair in pairs if PAIR.asked(pair) not in tested]
    if not kept:
        raise FacError(
            "Every prompt of data.train stands in data.test, which is not trained on: name another data set."
        )
    save_examples(PAIR, kept, folder)
    (folder / DROPPED).write_text(json.dumps(len(pairs) - len(kept)), encoding="utf-8")


def page(run: RunConfig, pairs: Mapping[str, Step], kept: Step, scores: Mapping[int, Step], results: Results) -> Page:
    """Accuracy by section, its mean, and what was left out."""
    train, test = run.data["train"], run.data["test"]
    reports = {
        role: LoadReport(**json.loads((results.folder(step) / REPORT).read_text("utf-8")))
        for role, step in pairs.items()
    }
    dropped = json.loads((results.folder(kept) / DROPPED).read_text("utf-8"))
    asked = [f"{dropped} pairs of train were left out: the test asks what they ask."] if dropped else []
    kind = labels.kind("paper" if labels.is_published(TASK, [test]) else "own", {run.model.name: run.model.ref})
    beside = labels.stands_beside(kind, run.model.name)
    cells = _cells({seed: results.folder(step) for seed, step in scores.items()})
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


EXPERIMENT = Experiment(
    "reward",
    "A reward model on preference pairs of one's own, by section",
    plan,
    paper="table14",
    data=("train", "test"),
)
