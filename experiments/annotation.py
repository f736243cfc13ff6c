"""Table 5: do people agree with the LLM's verdicts on features? A sheet to rate, and what two raters made of it.

    fac experiment=annotation out=outputs/annotation            # writes sheet.html (a form) and sheet.csv
    fac experiment=annotation experiment.raters=[anna.csv,ben.csv] out=outputs/annotation

The form opens from a folder, without a server, and saves a rater's labels as CSV. Both runs need the same settings: the
sheet is drawn by experiment.seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import PositiveInt

from eval.annotation import Of
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan
from experiments.harness.graph import Graph
from experiments.pages.annotation import page
from experiments.steps.annotation import ratings_step, sheet_step
from experiments.tasks import TASKS
from fac.errors import FacError, closest


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    tasks: tuple[str, ...] = ("toxicity", "reward", "instruction")  # those of Table 5
    features: PositiveInt = 200  # of each task; Table 5 lists 200, the paper's text says 100
    # relevant: drawn from what the LLM found relevant, as the paper's text suggests | judged: from all that it judged
    of: Of = "relevant"
    seed: int = 0
    raters: tuple[str, ...] = ()  # the two files that they filled in; none: the sheet alone is written

    def __post_init__(self) -> None:
        if len(self.raters) not in (0, 2):
            raise FacError("raters names two files, one of each rater: experiment.raters=[FIRST.csv,SECOND.csv].")
        for task in self.tasks:
            if task not in TASKS:
                raise FacError(f"experiment.tasks cannot be {task}{closest(task, TASKS)}.")

    @property
    def files(self) -> list[Path]:
        """Of the raters."""
        return [Path(name).expanduser() for name in self.raters]


def plan(run: RunConfig, graph: Graph) -> Plan:
    """What the annotator said of every feature of the tasks, the sheet, and the ratings if they are there."""
    o: Options = run.experiment
    told = {}
    for name in o.tasks:
        data = graph.data(run, name, run.seeds.data, "test")
        told[name] = graph.mining(run, TASKS[name], data).interpretations
    sheet = sheet_step(told, o.features, o.of, o.seed)
    ratings = ratings_step(o.files, sheet) if o.raters else None
    return Plan([], partial(page, run, sheet, ratings), [sheet, *([ratings] if ratings else [])])


EXPERIMENT = Experiment(
    "annotation",
    "Table 5: do people agree with the LLM's verdicts on features? A sheet to rate, and two raters' agreement",
    plan,
    Options,
    paper="table5",
)
