"""Win rates from AlpacaEval annotations: the instruction-following columns of Table 1, for any annotated model.

    fac experiment=alpaca_eval annotations=FILE out=DIR [calibration=FILE]

No model runs. Knows: which numbers and what page. Does not know: how preferences become win rates (`eval.alpaca`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from eval.alpaca import (
    Annotation,
    WinRate,
    hub_calibration,
    length_controlled,
    minimal_length_control,
    read_annotations,
    win_rate,
)
from experiments import config
from experiments.report import Page, render
from experiments.results import Cell, Scale, Table, measured, paper_table, provenance, versions
from experiments.session import Session
from fac.errors import FacError

MINIMAL = "minimal length control"
NAMES = {
    "lc": "LC",
    "lc_error": "standard error of LC",
    "minimal_length_control": MINIMAL,
    "wr": "WR",
    "sd": "SD",
    "n": "annotations",
}


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    path = Path(config.value(cfg, "annotations", str)).expanduser()
    calibration = config.value(cfg, "calibration", str)
    only = config.value(cfg, "experiment.instructions", Literal["alpaca_eval", "any"]) == "alpaca_eval"
    annotations = read_annotations(path, alpaca_eval_only=only)
    rate = win_rate(annotations)
    controlled, notes = _length_control(annotations, calibration)
    scale = "paper" if only else cfg.scale.name  # AlpacaEval's instructions are nothing of the lab's
    with Session.open(cfg) as session:
        for note in notes:
            session.say(note)
        table = _table(session, scale, annotations, rate, controlled, notes)
        page = Page(
            title=f"AlpacaEval: {annotations[0]['generator_2']}",
            subtitle=f"How often are its answers preferred to those of {annotations[0]['generator_1']}?",
            tables=[table],
            facts=_facts(annotations, rate, path),
        )
        metrics = {cell.column: cell.mean for cell in table.cells}
        return session.finish(table, render(page), metrics)


def _length_control(annotations: Sequence[Annotation], calibration: str) -> tuple[dict[str, float], list[str]]:
    """LC where its calibration is at hand, otherwise the minimal length control; and why."""
    if calibration != "hub":
        lc = length_controlled(annotations, Path(calibration).expanduser())
        return {"lc": lc.rate, "lc_error": lc.standard_error}, []
    notes = []
    try:
        lc = length_controlled(annotations, hub_calibration())
        return {"lc": lc.rate, "lc_error": lc.standard_error}, []
    except FacError as reason:
        notes.append(str(reason))
    try:
        minimal = minimal_length_control(annotations)
    except FacError as reason:
        return {}, [*notes, str(reason)]
    notes.append(
        f"{MINIMAL.capitalize()} is a logistic regression on the length difference alone: it is not LC, "
        f"and can be more than ten points away from it."
    )
    return {"minimal_length_control": minimal}, notes


def _table(
    session: Session,
    scale: Scale,
    annotations: Sequence[Annotation],
    rate: WinRate,
    controlled: dict[str, float],
    notes: Sequence[str],
) -> Table:
    model = annotations[0]["generator_2"]
    exactly = (
        f"WR is {rate.rate:.3f} and SD, its standard error as AlpacaEval prints it, {rate.standard_error:.3f}; draws "
        f"count half."
    )
    numbers = {**controlled, "wr": rate.rate, "sd": rate.standard_error}
    cells: list[Cell] = [measured(model, column, {0: value}) for column, value in numbers.items()]
    cells.append(measured(model, "n", {0: rate.n}, unit="count"))
    return Table(
        "alpaca_eval",
        scale,
        f"AlpacaEval win rates against {annotations[0]['generator_1']}",
        (model,),
        tuple(cell.column for cell in cells),
        tuple(cells),
        session.config_hash,
        versions(),
        (exactly, *notes, _context()),
        NAMES,
        provenance(),
    )


def _context() -> str:
    """The paper's numbers, in one line: of other models, so for context only."""
    paper = paper_table("table1")
    parts = []
    for row in (row for row in paper.rows if row != "gap"):
        numbers = [paper.get(row, column) for column in ("lc", "wr", "sd")]
        if all(numbers):
            parts.append(f"{paper.names.get(row, row)} {' / '.join(f'{n.mean:.2f}' for n in numbers if n)}")
    return f"For context, LC / WR / SD of the paper's models ({paper.source}): {'; '.join(parts)}."


def _facts(annotations: Sequence[Annotation], rate: WinRate, path: Path) -> list[tuple[str, str]]:
    def length(side: str) -> str:
        return f"{sum(len(a[side]) for a in annotations) / len(annotations):,.0f} characters"

    return [
        ("Annotations", f"{path.name}: {rate.n} ({rate.wins} won, {rate.losses} lost, {rate.draws} drawn)"),
        ("Win rate", f"{rate.rate:.3f} %, standard error {rate.standard_error:.3f}"),
        (f"Mean length of {annotations[0]['generator_2']}", length("output_2")),
        (f"Mean length of {annotations[0]['generator_1']}", length("output_1")),
    ]
