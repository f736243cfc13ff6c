"""Win rates from AlpacaEval annotations: the instruction-following columns of Table 1, for any annotated model.

    fac experiment=alpaca_eval experiment.annotations=FILE [experiment.calibration=FILE]
    fac experiment=alpaca_eval experiment.outputs=FILE experiment.reference=FILE \\
        annotator=openai annotator.model=gpt-4-1106-preview

With annotations no model runs; with outputs the annotator of the role `compare` judges them, by a prompt of this
project. LC is fitted to AlpacaEval's own annotator, so it is given for that one's preferences only, and only they stand
beside the paper's numbers; other columns carry their judge's name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from eval.alpaca import (
    ANNOTATOR,
    Annotation,
    WinRate,
    annotation_file,
    annotators,
    check_calibration,
    hub_calibration,
    length_controlled,
    minimal_length_control,
    read_annotations,
    win_rate,
)
from eval.judging import Answers, annotate, output_file, paired_outputs
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Results
from experiments.harness.graph import Graph
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import table
from fac.data.files import content_digest
from fac.errors import FacError
from fac.jsonl import write_json_atomic
from fac.llm.base import ChatModel, Sampling
from fac.llm.engines import COMPARE
from fac.prompts import Prompts
from fac.store import Step

ANNOTATIONS, ANSWERS = "annotations.json", "answers.json"
HUB = "hub"
MINIMAL = "minimal length control"
NAMES = {
    "lc": "LC",
    "lc_error": "standard error of LC",
    "minimal_length_control": MINIMAL,
    "wr": "WR",
    "sd": "SD",
    "n": "annotations",
}


@dataclass(frozen=True)
class Judging:
    """How outputs are compared."""

    prompts: str = "paper/instruction"  # its compare.jinja
    both_orders: bool = False  # True: ask about every pair in both orders; the preference is the mean
    temperature: float = 0.0
    max_new_tokens: PositiveInt = 512
    seed: int = 0  # of the order in which the two are shown

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens)


@dataclass(frozen=True)
class Options:
    """What can be set as experiment.KEY."""

    annotations: str | None = None  # .json, .jsonl or either with .gz, as alpaca_eval writes them
    outputs: str | None = None  # the model's answers, as alpaca_eval keeps them (instruction, output, generator)
    reference: str | None = None  # the answers they are compared with
    instructions: Literal["alpaca_eval", "any"] = "alpaca_eval"  # alpaca_eval: its 805 only
    judging: Judging = Judging()
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
        params = {"file": partial(_digest, options), "instructions": options.instructions}
        step = Step("annotations", partial(_annotations, options), params)
    else:
        step = judged_step(options, graph.llms(run, run.model.ref).annotators[COMPARE])
    return Plan([], partial(page, run, step), [step])


def _digest(options: Options) -> str:
    return content_digest(annotation_file(options.file("annotations")))


def _annotations(options: Options, folder: Path) -> None:
    read = read_annotations(options.file("annotations"), alpaca_eval_only=options.only)
    write_json_atomic(folder / ANNOTATIONS, read)


def judged_step(options: Options, judge: ChatModel) -> Step:
    """What the judge says of every pair of outputs, as alpaca_eval writes it, and how many answers held no verdict."""
    how, prompts = options.judging, Prompts(options.judging.prompts)
    params = {
        "outputs": {name: partial(_output_digest, options, name) for name in ("outputs", "reference")},
        "instructions": options.instructions,
        "judge": judge,
        "prompt": partial(prompts.digest, "compare"),
        "sampling": how.sampling,
        "both_orders": how.both_orders,
        "seed": how.seed,
    }
    return Step("judged", partial(_judged, options, judge, prompts), params, resumable=True)


def _output_digest(options: Options, name: str) -> str:
    return content_digest(output_file(options.file(name), name))


def _judged(options: Options, judge: ChatModel, prompts: Prompts, folder: Path) -> None:
    pairs = paired_outputs(options.file("outputs"), options.file("reference"), alpaca_eval_only=options.only)
    how = options.judging
    judged = annotate(
        judge, pairs, prompts, seed=how.seed, log=folder / "replies.jsonl", sampling=how.sampling,
        both_orders=how.both_orders,
    )  # fmt: skip
    write_json_atomic(folder / ANNOTATIONS, judged.annotations)
    write_json_atomic(folder / ANSWERS, asdict(judged.answers))


def page(run: RunConfig, step: Step, results: Results) -> Page:
    """The rates, and how long the answers are."""
    options: Options = run.experiment
    file = results.folder(step) / ANNOTATIONS
    annotations = read_annotations(file, alpaca_eval_only=options.only)
    by_judge, name, files, asked = [], ANNOTATIONS, {ANNOTATIONS: file.read_text("utf-8")}, ""
    if options.annotations is not None:
        name, files = options.file("annotations").name, {}
    else:
        answers = Answers(**json.loads((file.parent / ANSWERS).read_text("utf-8")))
        orders = "in both orders" if options.judging.both_orders else "in an order drawn by the seed"
        by_judge = [f"Judged by {_judges(annotations)}, {orders}; {answers.note}."]
        prompts = options.judging.prompts
        asked = f", asked with {prompts}/compare.jinja {Prompts(prompts).digest('compare')}"
    controlled, notes = _length_control(annotations, options)
    rate = win_rate(annotations)
    return Page(
        title=f"AlpacaEval: {annotations[0]['generator_2']}",
        subtitle=f"How often are its answers preferred to those of {annotations[0]['generator_1']}?",
        tables=[_table(run, annotations, rate, asked, controlled, [*by_judge, *notes])],
        facts=_facts(annotations, rate, name),
        files=files,
    )


def _length_control(annotations: Sequence[Annotation], options: Options) -> tuple[dict[str, float], list[str]]:
    """LC of AlpacaEval's own annotator where its calibration is at hand, else the minimal length control; and why."""
    notes = []
    if annotators(annotations) == [ANNOTATOR]:
        try:
            file = hub_calibration() if options.calibration == HUB else options.file("calibration")
            lc = length_controlled(annotations, file)
            used = f"LC was calibrated with {file.name} (SHA-256 {content_digest(file)[:12]})."
            return {"lc": lc.rate, "lc_error": lc.standard_error}, [used]
        except FacError as reason:
            if options.calibration != HUB:
                raise
            notes.append(str(reason))
    else:
        notes.append(
            f"There is no LC: its difficulties and calibration are those of AlpacaEval's own annotator, {ANNOTATOR}, "
            f"and these preferences are by {_judges(annotations)}. For the same reason the paper's LC and WR do not "
            f"stand beside them."
        )
    try:
        minimal = minimal_length_control(annotations)
    except FacError as reason:
        return {}, [*notes, str(reason)]
    notes.append(
        f"{MINIMAL.capitalize()} is a logistic regression on the length difference alone: it is not LC, "
        f"and can be more than ten points away from it."
    )
    return {"minimal_length_control": minimal}, notes


def _judges(annotations: Sequence[Annotation]) -> str:
    return ", ".join(name or "an annotator that the file does not name" for name in annotators(annotations))


def _table(
    run: RunConfig,
    annotations: Sequence[Annotation],
    rate: WinRate,
    asked: str,
    controlled: dict[str, float],
    notes: Sequence[str],
) -> Table:
    """`asked` says what the judge was asked with; "" if the annotations came from a file."""
    # AlpacaEval's instructions are nothing of the lab's
    scale = "paper" if run.experiment.only else run.scale
    own = annotators(annotations) == [ANNOTATOR]
    by = "" if own else f" by {_judges(annotations)}{asked}"
    model = annotations[0]["generator_2"]
    exactly = (
        f"WR is {rate.rate:.3f} and SD, its standard error as AlpacaEval prints it, {rate.standard_error:.3f}; draws "
        f"count half."
    )
    numbers = {**controlled, "wr": rate.rate, "sd": rate.standard_error}
    cells: list[Cell] = [observed(model, column, value) for column, value in numbers.items()]
    cells.append(observed(model, "n", rate.n, unit="count"))
    made = table(
        run,
        "alpaca_eval",
        f"AlpacaEval win rates against {annotations[0]['generator_1']}",
        [model],
        [cell.column for cell in cells],
        cells,
        NAMES | {"wr": f"{NAMES['wr']}{by}"},
        [exactly, *notes, *([_context()] if own else [])],
        ["paper" if scale == "paper" else "own"],
    )
    return replace(made, scale=scale)


def _context() -> str:
    """The paper's numbers, in one line: of other models, so for context only."""
    paper = paper_table("table1")
    parts = []
    for row in (row for row in paper.rows if row != "gap"):
        numbers = [paper.get(row, column) for column in ("lc", "wr", "sd")]
        if all(numbers):
            parts.append(f"{paper.names.get(row, row)} {' / '.join(f'{n.mean:.2f}' for n in numbers if n)}")
    return f"For context, LC / WR / SD of the paper's models ({paper.source}): {'; '.join(parts)}."


def _facts(annotations: Sequence[Annotation], rate: WinRate, name: str) -> list[tuple[str, str]]:
    def length(side: str) -> str:
        return f"{sum(len(a[side]) for a in annotations) / len(annotations):,.0f} characters"

    return [
        ("Annotations", f"{name}: {rate.n} ({rate.wins} won, {rate.losses} lost, {rate.draws} drawn)"),
        ("Win rate", f"{rate.rate:.3f} %, standard error {rate.standard_error:.3f}"),
        (f"Mean length of {annotations[0]['generator_2']}", length("output_2")),
        (f"Mean length of {annotations[0]['generator_1']}", length("output_1")),
    ]


EXPERIMENT = Experiment(
    "alpaca_eval",
    "Table 1's instruction following: win rates of one model's AlpacaEval annotations, or of a judge's",
    plan,
    Options,
    paper="table1",
)
