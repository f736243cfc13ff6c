"""What `experiments.shares` shows: a row for each share and number of samples, curves, and numbers by samples added."""

from __future__ import annotations

from functools import partial
from math import log10
from typing import TYPE_CHECKING

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results, Trial, matching
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Table
from experiments.harness.tables import BASELINE, TITLES, number
from experiments.harness.views import Column, sweep_figure
from experiments.pages import rows

if TYPE_CHECKING:
    from experiments.shares import Options

SHARE, EACH = "synthesis.ratio", "synthesis.per_feature"
COUNTS = {"one": "one sample per feature", "budget": "as many as the budget"}
NOTE = (
    "The share is of the missing features that are written for, drawn by the generation seed; what the samples come to "
    "cover is in the column FAC of missing. The paper's Table 9 stands beside one sample per feature, whose numbers of "
    "samples are those of Fig. 1."
)


def count_of(trial: Trial) -> str:
    return "budget" if trial.setting(EACH) is None else "one"


def row_of(trial: Trial) -> str:
    return BASELINE if trial.method == BASELINE else key(trial.setting(SHARE), count_of(trial))


def key(share: float, count: str) -> str:
    """Of a row; with one sample per feature as the paper's, in percent."""
    return f"{100 * share:g}" if count == "one" else f"{100 * share:g}/{count}"


def page(run: RunConfig, results: Results) -> Page:
    """One table for both numbers of samples; the largest share is compared with the others."""
    o: Options = run.experiment
    names = {key(share, count): f"{100 * share:g} %, {COUNTS[count]}" for count in o.counts for share in o.shares}
    most = max(o.shares)
    pairs = [(key(most, count), key(share, count)) for count in o.counts for share in o.shares if share != most]
    if len(o.counts) > 1:
        pairs += [(key(share, "budget"), key(share, "one")) for share in o.shares]

    def printed(task: str, row: str) -> PaperNumber | None:
        return paper_table("table9").get(row, task) if "table1" in run.task(task).paper else None

    made = rows.Rows(names={BASELINE: TITLES[BASELINE], **names}, of=row_of, pairs=pairs, paper=printed, mode="head")
    shown = rows.Shown(
        "Share of the missing features written for",
        "Table 9 and Figs. 1 and 4 of the paper: what is gained by covering more of what is missing.",
        notes=[NOTE],
        figures=lambda main: [*(_by_share(run, results, task) for task in o.tasks), *_by_samples(run, main)],
    )
    return rows.page(run, results, "shares", o.tasks, made, shown, budgets=False)


def _by_share(run: RunConfig, results: Results, name: str) -> Figure:
    """Fig. 4."""
    o: Options = run.experiment
    task = run.task(name)
    columns = [Column(count, COUNTS[count], number(task), partial(_has, count)) for count in o.counts]
    held = matching(results.records, task=name, method="fac")
    title, label = f"{task.title}: by share of the missing features (Fig. 4)", "% of the missing features"
    caption = "Mean over seeds; bands are one standard deviation."
    return sweep_figure(held, lambda t: 100 * t.setting(SHARE), columns, title, label, task.metric_title, caption)


def _has(count: str, trial: Trial) -> bool:
    return count_of(trial) == count


def _by_samples(run: RunConfig, main: Table) -> list[Figure]:
    """Fig. 1: instruction following by the number of samples, and by each 1,000 of them."""
    o: Options = run.experiment
    if "instruction" not in o.tasks:
        return []
    points = {}
    for row in (key(share, "one") for share in sorted(o.shares)):
        score, added = main.cell(row, "instruction"), main.cell(row, "instruction_rows")
        if score and added and added.mean > 0:
            points[added.mean] = score.mean
    x = [log10(samples) for samples in points]
    title, label = run.task("instruction").metric_title, "log10 of the samples added"
    caption = "The paper's points (results/paper/figure1.yaml) are win rates of AlpacaEval 2's annotator."
    each = [1000 * score / samples for samples, score in points.items()]
    return [
        Figure(
            "Instruction following by number of samples (Fig. 1)",
            label,
            title,
            [Series("FAC", x, [*points.values()])],
            caption,
        ),
        Figure("... and for each 1,000 samples", label, f"{title} per 1,000", [Series("FAC", x, each)], caption),
    ]
