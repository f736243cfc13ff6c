"""Win rates from AlpacaEval annotations: the instruction-following columns of Table 1, for any annotated model.

    fac experiment=alpaca_eval experiment.annotations=FILE [experiment.calibration=FILE]
    fac experiment=alpaca_eval experiment.outputs=FILE experiment.reference=FILE \\
        annotator=openai annotator.model=gpt-4-1106-preview

With annotations no model runs. With outputs the annotator of the role `compare` judges them: as AlpacaEval 2's own does
(its prompt, each preference weighted by log-probabilities, through the alpaca_eval package), on any server that tells
log-probabilities; or, with experiment.judging.annotator=compare, any LLM by its verdict on a prompt of this project. LC
is fitted to AlpacaEval's own annotator, so it is given for that one's preferences only, and only they stand beside the
paper's numbers; other columns carry their judge's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from eval.alpaca import check_calibration
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.alpaca_eval import HUB, page
from experiments.steps.alpaca_eval import Instructions, Judging, annotations_step, judged_step
from fac.errors import FacError
from fac.llm.engines import COMPARE


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    annotations: str | None = None  # .json, .jsonl or either with .gz, as alpaca_eval writes them
    outputs: str | None = None  # the model's answers, as alpaca_eval keeps them (instruction, output, generator)
    reference: str | None = None  # the answers they are compared with
    instructions: Instructions = "alpaca_eval"  # alpaca_eval: its 805 only
    judging: Judging = field(default_factory=Judging)
    # Of the length control: hub | FILE (df_gamed.csv of the hub data set tatsu-lab/alpaca_eval), needed offline
    calibration: str = HUB

    def __post_init__(self) -> None:
        given = {name for name in ("annotations", "outputs", "reference") if getattr(self, name) is not None}
        if given not in ({"annotations"}, {"outputs", "reference"}):
            raise FacError(
                "Set experiment.annotations=FILE to what a judge said, or experiment.outputs=FILE and "
                "experiment.reference=FILE to have one judge."
            )

    @property
    def only(self) -> bool:
        """Whether all instructions must be AlpacaEval's."""
        return self.instructions == "alpaca_eval"

    def file(self, name: str) -> Path:
        """The file that an option names."""
        return Path(getattr(self, name)).expanduser()


def plan(run: RunConfig, graph: Graph) -> Plan:
    """The annotations: those of the file, or a judge's."""
    options: Options = run.experiment
    if options.calibration != HUB:
        check_calibration(options.file("calibration"))
    if options.annotations is not None:
        step = annotations_step(options.file("annotations"), options.instructions)
    else:
        files = {name: options.file(name) for name in ("outputs", "reference")}
        judge = graph.llms(run, run.model.ref).annotators[COMPARE]
        step = judged_step(files, options.instructions, options.judging, judge)
    return Plan([], partial(page, run, step), [step])


EXPERIMENT = Experiment(
    "alpaca_eval",
    "Table 1's instruction following: win rates of one model's AlpacaEval annotations, or of a judge's",
    plan,
    Options,
)
