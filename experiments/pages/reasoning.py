"""What `experiments.reasoning` shows: each benchmark before and after training, beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell, measured, observed
from experiments.harness.tables import table
from experiments.steps.reasoning import load_benchmarks
from fac.errors import FacError
from fac.store import Step

if TYPE_CHECKING:
    from experiments.reasoning import Options

ROWS = {"llama31_8b": "llama", "mistral_7b": "mistral", "qwen2_7b": "qwen2"}  # of Table 15, by name of conf/model
METRICS = ("exact_match", "exact_match,flexible-extract")  # of gsm8k_file and of lm-eval's gsm8k: the last number


@dataclass(frozen=True)
class Steps:
    """Benchmarks of one model."""

    before: Step
    after: Mapping[int, Step]  # by training seed


def page(run: RunConfig, steps: Mapping[str, Steps], results: Results) -> Page:
    """A row for each model."""
    o: Options = run.experiment
    data = "paper" if run.scale == "paper" and o.gsm8k is None else "own"
    kinds: list[labels.Kind] = [labels.kind(data, {name: run.for_model(name).model.ref for name in steps})]
    cells: list[Cell] = []
    names = {}
    for name, asked in zip(o.benchmarks, o.tasks, strict=True):
        names |= {f"{name}_before": f"{name} before", f"{name}_after": f"{name} after", f"{name}_gap": "difference"}
        for model, one in steps.items():
            before = _score(load_benchmarks(results.folder(one.before))[asked])
            after = {s: _score(load_benchmarks(results.folder(step))[asked]) for s, step in one.after.items()}
            papers = [_printed(kinds[0], model, f"{name}_{when}") for when in ("before", "after")]
            cells.append(observed(model, f"{name}_before", before, paper=papers[0]))
            cells.append(measured(model, f"{name}_after", after, paper=papers[1]))
            gap = {seed: score - before for seed, score in after.items()}
            cells.append(measured(model, f"{name}_gap", gap, unit="points"))
    notes = [
        f"The instruct model is fine-tuned on the rows that {o.method} added to the task instruction, in its own chat "
        "template; how the paper trains for this table is not known. GSM8K counts the last number of a reply, with the "
        "examples in the prompt that lm-eval's task has (a file of one's own: none).",
        "LiveCodeBench is not in lm-eval 0.4.13: its columns are missing.",
    ]
    made = table(
        run, "reasoning", "Reasoning before and after training", list(steps), list(names), cells, names, notes, kinds
    )
    return Page(made.title, "Table 15 of the paper: what training on written instructions costs elsewhere.", [made])


def _score(metrics: Mapping[str, float]) -> float:
    """In percent. Raises FacError for a benchmark that is scored otherwise."""
    for name in METRICS:
        if name in metrics:
            return 100 * metrics[name]
    raise FacError(
        f"experiment.benchmarks names a task without exact_match (it has {', '.join(metrics)}): leave it out."
    )


def _printed(kind: labels.Kind, model: str, column: str) -> PaperNumber | None:
    return paper_table("table15").get(ROWS.get(model, ""), column) if kind == "paper" else None
