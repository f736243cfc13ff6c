"""What the tables of RewardBench's sections show (`experiments.heads`, `experiments.sections`)."""

from __future__ import annotations

from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Page
from experiments.harness.tables import of_task
from experiments.harness.views import Column, bars, metric
from experiments.pages import rows

SECTIONS = {"chat": "Chat", "chat_hard": "Chat-Hard", "safety": "Safety", "reasoning": "Reasoning"}


def page(run: RunConfig, name: str, paper: str, mode: str, results: Results) -> Page:
    """The table of the paper that is called `paper`, which trains as `mode` says."""
    o = run.experiment
    printed = paper_table(paper)

    def number(task: str, row: str) -> PaperNumber | None:
        return printed.get(row, run.task(task).paper.get(paper, ""))

    def gain(task: str, row: str) -> PaperNumber | None:
        return printed.get("gap", run.task(task).paper.get(paper, "")) if row == "fac" else None

    def sections(task: str) -> list[Column]:
        if task != "reward":
            return []
        beside = rows.is_beside(run, task, rows.kind_of(run, task, results.records), mode, o.test)
        return [
            Column(f"{task}_{key}", title, metric(key), of_task(task), paper=partial(section, key) if beside else _none)
            for key, title in SECTIONS.items()
        ]

    def section(key: str, row: str) -> PaperNumber | None:
        return printed.get(row, key)

    shown = rows.Shown(
        printed.title,
        f"{printed.source.rpartition(', ')[2]} of the paper.",
        columns=sections,
        figures=lambda main: [
            bars(main, o.methods, [*(f"reward_{key}" for key in SECTIONS), "reward"], "Reward by section")
        ],
    )
    made = rows.of_methods(o.methods, paper=number, gain=gain, mode=mode)
    return rows.page(run, results, name, o.tasks, made, shown)


def _none(row: str) -> PaperNumber | None:
    return None
