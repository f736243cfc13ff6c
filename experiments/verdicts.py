"""Fig. 11: the missing features of each model, by how sure the judge is that they matter: Yes, Probably, Maybe.

    fac experiment=verdicts [experiment.models=[lab_llama,lab_qwen]] [experiment.tasks=[toxicity,reward]]

Nothing is written or trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Record, Repeated, Results, grid
from experiments.harness.graph import Graph
from experiments.harness.nested import cell_of, reading_aid
from experiments.harness.report import Figure, Page, Series
from experiments.harness.tables import BASELINE, found_missing, place, table
from experiments.pages import rows
from fac.gap import MissingFeatures
from fac.interpret import load_interpretations

VERDICTS = ("Yes", "Probably", "Maybe")  # that make a feature relevant (App. K)


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity",)
    models: tuple[str, ...] = ()  # names of conf/model; none: those of the scale


def models_of(run: RunConfig) -> tuple[str, ...]:
    return run.experiment.models or run.families


def plan(run: RunConfig, graph: Graph) -> Plan:
    """What is missing in the seed data, by the features of every model."""
    o: Options = run.experiment
    axes = {**o.axes, "generation": 0}  # nothing is written
    return Plan(
        grid(run, task=o.tasks, method=BASELINE, seed=None, features_of=models_of(run), **axes), partial(page, run)
    )


def counted(results: Results, record: Record) -> dict[str, int]:
    """Missing features by verdict."""
    mining = results.trials[record.trial].mining
    assert mining is not None
    told = load_interpretations(results.folder(mining.interpretations))
    missing = MissingFeatures.load(results.folder(mining.missing)).missing().nonzero()[0].tolist()
    verdicts = [told[feature].relevance for feature in missing if feature in told]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def page(run: RunConfig, results: Results) -> Page:
    """A row for each model, a column for each task's verdicts."""
    o: Options = run.experiment
    models, records = models_of(run), results.records
    columns = {f"{task}_{v.lower()}": f"{run.task(task).title}: {v}" for task in o.tasks for v in VERDICTS}
    values: dict[tuple[str, str], dict[tuple[int, int, int], float]] = {}
    for record in records:
        for verdict, count in counted(results, record).items():
            at = record.trial.features_of, f"{record.trial.task}_{verdict.lower()}"
            values.setdefault(at, {})[record.trial.data_seed, 0, 0] = float(count)
    main = table(
        run,
        "verdicts",
        f"Missing features by relevance, {rows.where(run, o, o.tasks)}",
        models,
        list(columns),
        [cell_of(*at, found, "count") for at, found in values.items()],
        columns,
        [
            "Of the features that the anchor activates and the seed data do not, by the judge's verdict on their "
            "relevance. The paper prints no number of this figure: Mistral has most of each, Qwen2 fewest Yes.",
        ],
        [rows.kind_of(run, task, records) for task in o.tasks],
        aid=reading_aid((record.trial for record in records), place(run, o.tasks).removesuffix(" seed")) or "",
    )
    series = [
        Series(columns[name], list(range(len(models))), [cell.mean for m in models if (cell := main.cell(m, name))])
        for name in columns
    ]
    axis = f"model: {', '.join(models)}"
    return Page(
        title=main.title,
        subtitle="Fig. 11 of the paper: what each model finds missing, by how sure its judge is.",
        tables=[main],
        facts=found_missing(records),
        figures=[Figure("Missing features by model", axis, "features", series)],
    )


EXPERIMENT = Experiment("verdicts", "Fig. 11: missing features by verdict, per model", plan, Options, paper="figure11")
