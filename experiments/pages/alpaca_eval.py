"""What `experiments.alpaca_eval` shows: win rates, whose they are, and what of their length control there can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from eval.alpaca import (
    ANNOTATOR,
    Annotation,
    WinRate,
    annotators,
    hub_calibration,
    length_controlled,
    minimal_length_control,
    read_annotations,
    win_rate,
)
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Page
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import table
from experiments.steps.alpaca_eval import ANNOTATIONS, load_answers
from fac.data.files import content_digest
from fac.errors import FacError
from fac.prompts import Prompts
from fac.store import Step

if TYPE_CHECKING:
    from experiments.alpaca_eval import Options

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


def page(run: RunConfig, step: Step, results: Results) -> Page:
    """The rates, and how long the answers are."""
    options: Options = run.experiment
    file = results.folder(step) / ANNOTATIONS
    annotations = read_annotations(file, alpaca_eval_only=options.only)
    by_judge, name, files, asked = [], ANNOTATIONS, {ANNOTATIONS: file.read_text("utf-8")}, ""
    if options.annotations is not None:
        name, files = options.file("annotations").name, {}
    else:
        by_judge = [f"Judged by {_judges(annotations)}, {_order(options)}; {load_answers(file.parent).note}."]
        if options.judging.annotator == "compare":
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


def _order(options: Options) -> str:
    if options.judging.annotator == "weighted":
        return "in an order drawn by alpaca_eval, each preference weighted by the log-probabilities of its answer"
    return "in both orders" if options.judging.both_orders else "in an order drawn by the seed"


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
    )
    return replace(made, scale=scale, label=f"OWN DATA: answers of {model}, as the files hold them")


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
