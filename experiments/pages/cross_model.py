"""What `experiments.cross_model` shows: a row for each source and writer, a column for each trained model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from experiments.harness import labels
from experiments.harness.comparisons import Comparison, claims_table, compare, sentence, values_of
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Results, Trial
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Table
from experiments.harness.tables import (
    BASELINE,
    coverage_columns,
    found_missing,
    number,
    place,
    table,
    task_notes,
    written,
)
from experiments.harness.views import Column, names_of, pivot
from experiments.pages import lab_truth
from experiments.tasks import TASKS

if TYPE_CHECKING:
    from experiments.cross_model import Options

PAPER_ROW = {  # rows of Table 3, by names of conf/model
    "lab_llama": "llama",
    "lab_mistral": "mistral",
    "lab_qwen": "qwen2",
    "llama31_8b": "llama",
    "mistral_7b": "mistral",
    "qwen2_7b": "qwen2",
}


def row_of(trial: Trial) -> str:
    return BASELINE if trial.method == BASELINE else f"{trial.features_of}+{trial.writer}"


def page(run: RunConfig, options: Options, results: Results) -> Page:
    """One table: a row per source and writer, a column per trained model; in the lab, what families miss alike."""
    records = results.records
    task = TASKS[options.task]
    kind = labels.kind_of(run, task.name, {*options.sources, *options.writers, *options.trained})
    # Table 3 trains heads: beside LoRA's numbers it would mislead, but for the lab's, whose note says it.
    mode = getattr(run.tasks[task.name].train, "mode", "")
    beside = not labels.is_own(kind) and task.name == "toxicity" and (kind == "lab" or mode == "head")

    def paper(target: str, row: str) -> PaperNumber | None:
        llama = {f"{one}+{one}" for one in ("lab_llama", "llama31_8b")}
        printed = "baseline" if row == BASELINE else "fine_tuned" if row in llama else None
        return paper_table("table3").get(PAPER_ROW.get(target, ""), printed) if beside and printed else None

    def gap(target: str, row: str) -> PaperNumber | None:
        return paper_table("table3").get(PAPER_ROW[target], "gap") if row != BASELINE and paper(target, row) else None

    def trained(target: str) -> list[Column]:
        holds = partial(_is_trained, target)
        return [
            Column(target, f"{target} trained", number(task), holds, paper=partial(paper, target)),
            Column(f"{target}_gain", "minus Baseline", number(task), holds, less=BASELINE, paper=partial(gap, target)),
        ]

    rows = list(dict.fromkeys(row_of(record.trial) for record in records))
    columns = [column for target in options.trained for column in trained(target)]
    columns += coverage_columns(lambda trial: trial.method != BASELINE, "written")
    main = table(
        run,
        "cross_model",
        f"Transfer between models, {task.title}, {place(run, [task.name])} {run.seeds.data}",
        rows,
        [column.name for column in columns],
        pivot(records, rows, columns, row_of),
        {name: "features of {}, written by {}".format(*name.split("+")) for name in rows if "+" in name}
        | names_of(columns),
        [
            *task_notes(run, records, [task.name]),
            "Coverage is of the source's features.",
            "The paper's Table 3 (head-only, LLaMA's features and data) stands beside the cells that match it"
            f"{'' if mode == 'head' else '; here LoRA is trained, since heads of so small models are near chance'}."
            if beside
            else "The paper's Table 3 trains heads only (train.mode=head), so it does not stand beside these numbers.",
        ],
        [kind],
    )
    names = {row: main.name(row) for row in rows}
    compared = _compared(run, options, records)
    titled = {target: f"{target} trained" for target in options.trained}
    claims = claims_table(run, compared, "Features of another model against the model's own", [kind], names, titled)
    tables = [main]
    if len(options.sources) > 1 and task.name == "toxicity" and run.tasks[task.name].sizes is not None:
        cells, names = lab_truth.agreement(results, options.sources)
        title = "What two families find missing alike (Jaccard index, ground truth)"
        tables.append(table(run, "agreement", title, list(names), ["concepts", "wordings"], cells, names, kinds=[kind]))
    return Page(
        title=main.title,
        subtitle="Features mined with one model, data written by a second, a third one trained.",
        tables=[main, *([claims] if compared else []), *tables[1:]],
        facts=[*((c.task, sentence(c, names)) for c in compared), *found_missing(records), *written(records)],
        figures=[_figure(run, options, main, target) for target in options.trained],
    )


def _compared(run: RunConfig, options: Options, records: Sequence[Record]) -> list[Comparison]:
    """For each model that is trained, the features of every other one less its own, with the same writer."""
    value = number(run.task(options.task))
    numbers = {
        target: values_of((r for r in records if r.trial.trained == target), value, row_of)
        for target in options.trained
    }
    pairs = [
        (target, f"{source}+{writer}", f"{target}+{writer}")
        for target in options.trained
        for writer in options.writers
        for source in options.sources
        if source != target
    ]
    return compare(numbers, pairs)


def _figure(run: RunConfig, options: Options, main: Table, target: str) -> Figure:
    """Figs. 16 to 18: one model trained on what was written for the features of each, by writer."""
    task = run.task(options.task)
    lines = []
    for source in options.sources:
        cells = [main.cell(f"{source}+{writer}", target) for writer in options.writers]
        found = [(x, cell) for x, cell in enumerate(cells) if cell is not None]
        spread = [(cell.mean - (cell.std or 0), cell.mean + (cell.std or 0)) for _, cell in found]
        low, high = zip(*spread, strict=True) if any(cell.std for _, cell in found) else ((), ())
        lines.append(Series(f"features of {source}", [x for x, _ in found], [c.mean for _, c in found], low, high))
    axis = f"written by: {', '.join(options.writers)}"
    return Figure(f"{target} trained (Figs. 16 to 18)", axis, f"{task.title} {task.metric_title}", lines)


def _is_trained(target: str, trial: Trial) -> bool:
    return trial.trained == target
