"""Fig. 15: self-improvement. What a model was trained to be is the model of the next round; toxicity.

    fac experiment=self_improvement [experiment.rounds=3] [sae=train]

In every round the model's own missing features are mined, it writes for them itself, and is trained on that beside all
that it was trained on before. The classifier of the first training seed, its adapters merged and its head left out, is
the model of the next round: it is measured, writes and is trained again, with a new head. Who explains and judges
features stays who it was, as the paper's GPT-4o mini does.

The paper tells no more than its numbers, so this is chosen here: "missing" in a later round is what the seed data miss
together with the rows of the rounds before, and the improved model is read with the SAE of the original weights, whose
fit the table tells beside the original's. With sae=train every round trains an SAE of its own. Beside the paper's two
rows stands the improved model trained again on the rows of the round before: what training twice does by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Record, Repeated, Results, Trial, grid
from experiments.harness.graph import IMPROVING, Graph, TrialSteps
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Page
from experiments.harness.tables import BASELINE, number, of_task
from experiments.harness.views import Column, Value, bars, count
from experiments.pages import rows
from fac.encoder import load_quality
from fac.errors import FacError
from fac.store import Step

TASK = "toxicity"
PAPER = {"round_1": "base", "round_2": "round_2"}  # rows of Fig. 15


@dataclass(frozen=True, kw_only=True)
class Options(Repeated):
    """What can be set as experiment.KEY."""

    rounds: int = 2

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise FacError("rounds needs to be 2 or more: the first has the model as it is.")


def row_of(trial: Trial) -> str:
    if trial.method != BASELINE:
        return f"round_{trial.round}"
    return BASELINE if trial.round == 1 else f"again_{trial.round}"


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The baseline and FAC in every round, and how well the SAE fits each round's model."""
    o: Options = run.experiment
    if not run.llms.writer.follows_run:
        raise FacError(
            "A model that improves itself writes itself: set llm=transformers or llm=vllm, without llm.path."
        )
    trials = grid(run, task=TASK, method=(BASELINE, IMPROVING), round=range(1, o.rounds + 1), **o.axes)
    return Plan(trials, partial(page, run), [fit(graph.steps(trial)) for trial in trials])


def fit(steps: TrialSteps) -> Step:
    """How well the SAE of a trial's mining reconstructs its model's activations on the anchor."""
    assert steps.mining is not None
    return steps.mining.encoder.quality(steps.mining.anchor)


def page(run: RunConfig, results: Results) -> Page:
    """A row for each round, beside the paper's two, and what training twice does by itself."""
    o: Options = run.experiment
    kind = rows.kind_of(run, TASK, results.records)
    beside = rows.is_beside(run, TASK, kind, "lora", o.test)
    fits = {trial: load_quality(results.folder(fit(steps))) for trial, steps in results.trials.items()}

    def explained(record: Record) -> float:
        return 100 * fits[record.trial]["explained_variance"]

    def printed(column: str, task: str, row: str) -> PaperNumber | None:
        return paper_table("figure15").get(PAPER[row], column) if beside and row in PAPER else None

    def gap(row: str) -> PaperNumber | None:
        return paper_table("figure15").get("gap", "auprc") if beside and row == "round_2" else None

    def columns(task: str) -> list[Column]:
        held = of_task(task)
        fitted = Value(explained, seed=lambda trial: None)
        missing = partial(printed, "missing", task)
        return [
            Column(f"{task}_over_first", "minus Round 1", number(run.task(task)), held, less="round_1", paper=gap),
            Column(f"{task}_missing", "missing", count("missing"), held, paper=missing),
            Column(f"{task}_explained", "variance that the SAE explains", fitted, held),
        ]

    names = names_of(o.rounds)
    pairs = [("round_1", BASELINE)]
    for n in range(2, o.rounds + 1):
        pairs += [(f"round_{n}", f"round_{n - 1}"), (f"round_{n}", f"again_{n}"), (f"again_{n}", f"round_{n - 1}")]
    made = rows.Rows(
        names=names,
        of=row_of,
        pairs=pairs,
        paper=partial(printed, "auprc"),
        covered=partial(printed, "fac"),
        mode="lora",
    )
    shown = rows.Shown(
        "Self-improvement",
        "Fig. 15 of the paper: a model trained on what it wrote for its own missing features, round after round.",
        columns=columns,
        notes=notes(run),
        figures=lambda main: [bars(main, list(names), (TASK,), "By round (Fig. 15)")],
    )
    return rows.page(run, results, "self_improvement", (TASK,), made, shown)


def names_of(rounds: int) -> Mapping[str, str]:
    """What the rows are called, in their order."""
    later = {}
    for n in range(2, rounds + 1):
        later[f"again_{n}"] = f"Round {n - 1}, trained again on the same rows"
        later[f"round_{n}"] = f"Round {n}: features and rows of the improved model"
    return {BASELINE: "Seed data", "round_1": "Round 1: FAC", **later}


def notes(run: RunConfig) -> list[str]:
    """What is chosen here, since the paper does not tell it."""
    first = run.seeds.training[0]
    sae = (
        "each round's model has an SAE that was trained on its own activations"
        if run.values["sae"]["train"] is not None
        else "the improved model is read with the SAE of the original weights, on purpose (sae=train: with its own)"
    )
    return [
        f"The model of a later round is that which training seed {first} of the round before gave, its adapters merged "
        "and its classifier's head left out; all training seeds of a round start from it, so their spread is of one "
        "such model. It writes with the head that it had; the writer named below is that of round 1. Missing in a "
        "later round is what the seed data miss together with the rows of the rounds before, which are trained on "
        f"again; {sae}. How the paper does this is not known.",
        "The paper's Round 1 is what its figure calls base.",
    ]


EXPERIMENT = Experiment(
    "self_improvement",
    "Fig. 15: the model trained on its own rows mines and writes again",
    plan,
    Options,
    paper="figure15",
)
