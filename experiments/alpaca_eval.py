"""Win rates from AlpacaEval annotations: the instruction-following columns of Table 1, for any annotated model.

    fac experiment=alpaca_eval annotations=FILE out=DIR [calibration=FILE]
    fac experiment=alpaca_eval outputs=FILE reference=FILE annotator=openai annotator.model=gpt-4-1106-preview

With annotations no model runs; with outputs the annotator of the role `compare` judges them, by a prompt of this
project. LC is fitted to AlpacaEval's own annotator, so it is given for that one's preferences only, and only they stand
beside the paper's numbers; other columns carry their judge's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

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
from eval.judging import Answers, annotate, paired_outputs
from experiments import config, labels
from experiments.engines import COMPARE
from experiments.harness.report import Page
from experiments.harness.results import Cell, Scale, Table, observed, paper_table, provenance, versions
from experiments.session import Session
from fac.data.files import content_digest
from fac.errors import FacError
from fac.jsonl import write_json_atomic
from fac.llm.base import Sampling
from fac.prompts import Prompts

ANNOTATIONS, ANSWERS = "annotations.json", "answers.json"
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
    paths = {key: config.value(cfg, key, str | None) for key in ("annotations", "outputs", "reference")}
    given = {key: Path(path).expanduser() for key, path in paths.items() if path is not None}
    calibration = config.value(cfg, "calibration", str)
    only = config.value(cfg, "experiment.instructions", Literal["alpaca_eval", "any"]) == "alpaca_eval"
    if given.keys() not in ({"annotations"}, {"outputs", "reference"}):
        raise FacError(
            "Set annotations=FILE to what a judge said, or outputs=FILE and reference=FILE to have one judge."
        )
    scale = "paper" if only else cfg.scale.name  # AlpacaEval's instructions are nothing of the lab's
    if "annotations" in given:
        annotations = read_annotations(given["annotations"], alpaca_eval_only=only)
        controlled, notes = _length_control(annotations, calibration)
        with Session.open(cfg) as session:
            return _finish(session, scale, annotations, given["annotations"].name, "", controlled, notes)
    judging = _Judging(cfg)
    pairs = paired_outputs(given["outputs"], given["reference"], alpaca_eval_only=only)
    with Session.open(cfg) as session:
        path, notes = judging.judge(session, pairs)
        annotations = read_annotations(path, alpaca_eval_only=only)
        controlled, more = _length_control(annotations, calibration)
        return _finish(session, scale, annotations, path.name, judging.asked, controlled, [*notes, *more], [path])


class _Judging:
    """Who judges, and how; checked before anything is asked."""

    def __init__(self, cfg: DictConfig) -> None:
        values = config.group(cfg, "judging")
        self.prompts = Prompts(config.value(cfg, "judging.prompts", str))
        self.asked = f"{config.value(cfg, 'judging.prompts', str)}/compare.jinja {self.prompts.digest('compare')}"
        self.both_orders = config.value(cfg, "judging.both_orders", bool)
        self.seed = config.value(cfg, "judging.seed", int)
        sampling = {key: values[key] for key in ("temperature", "max_new_tokens")}
        self.sampling = config.typed(Sampling, sampling, "judging", ("max_new_tokens",))
        self.model, self.engines = config.model_ref(cfg), config.engines(cfg)
        self.engines.check([COMPARE])

    def judge(self, session: Session, pairs: Sequence[Mapping[str, str]]) -> tuple[Path, list[str]]:
        """Annotations in alpaca_eval's format; and who wrote them."""
        with self.engines.open(self.model, session.say) as crew:
            judge = crew.annotators[COMPARE]

            def build(folder: Path) -> None:
                judged = annotate(
                    judge, pairs, self.prompts, seed=self.seed, log=folder / "replies.jsonl", sampling=self.sampling,
                    both_orders=self.both_orders,
                )  # fmt: skip
                write_json_atomic(folder / ANNOTATIONS, judged.annotations)
                write_json_atomic(folder / ANSWERS, asdict(judged.answers))

            params = {
                "pairs": hashlib.sha256(json.dumps(pairs).encode()).hexdigest(),
                "judge": judge.identity,
                "prompt": self.prompts.digest("compare"),
                "sampling": self.sampling,
                "both_orders": self.both_orders,
                "seed": self.seed,
            }
            artifact = session.store.stage("judged", build, params=params, resumable=True)
        answers = Answers(**json.loads((artifact.path / ANSWERS).read_text()))
        orders = "in both orders" if self.both_orders else "in an order drawn by the seed"
        who = f"Judged by {judge.identity}, {orders}; {answers.note}."
        return artifact.path / ANNOTATIONS, [who]


def _finish(
    session: Session,
    scale: Scale,
    annotations: Sequence[Annotation],
    name: str,
    prompt: str,
    controlled: dict[str, float],
    notes: Sequence[str],
    files: Sequence[Path] = (),
) -> Path:
    """`prompt` is what the judge was asked with; "" if the annotations came from a file."""
    for note in notes:
        session.say(note)
    rate = win_rate(annotations)
    table = _table(session, scale, annotations, rate, prompt, controlled, notes)
    page = Page(
        title=f"AlpacaEval: {annotations[0]['generator_2']}",
        subtitle=f"How often are its answers preferred to those of {annotations[0]['generator_1']}?",
        tables=[table],
        facts=_facts(annotations, rate, name),
    )
    kept = {file.name: file.read_text() for file in files}
    return session.finish(page, {cell.column: cell.mean for cell in table.cells}, texts=kept)


def _length_control(annotations: Sequence[Annotation], calibration: str) -> tuple[dict[str, float], list[str]]:
    """LC of AlpacaEval's own annotator where its calibration is at hand, else the minimal length control; and why."""
    notes = []
    if annotators(annotations) == [ANNOTATOR]:
        try:
            file = hub_calibration() if calibration == "hub" else Path(calibration).expanduser()
            lc = length_controlled(annotations, file)
            used = f"LC was calibrated with {file.name} (SHA-256 {content_digest(file)[:12]})."
            return {"lc": lc.rate, "lc_error": lc.standard_error}, [used]
        except FacError as reason:
            if calibration != "hub":
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
    session: Session,
    scale: Scale,
    annotations: Sequence[Annotation],
    rate: WinRate,
    prompt: str,
    controlled: dict[str, float],
    notes: Sequence[str],
) -> Table:
    own = annotators(annotations) == [ANNOTATOR]
    by = "" if own else f" by {_judges(annotations)}{f', asked with {prompt}' if prompt else ''}"
    model = annotations[0]["generator_2"]
    exactly = (
        f"WR is {rate.rate:.3f} and SD, its standard error as AlpacaEval prints it, {rate.standard_error:.3f}; draws "
        f"count half."
    )
    numbers = {**controlled, "wr": rate.rate, "sd": rate.standard_error}
    cells: list[Cell] = [observed(model, column, value) for column, value in numbers.items()]
    cells.append(observed(model, "n", rate.n, unit="count"))
    return Table(
        "alpaca_eval",
        scale,
        f"AlpacaEval win rates against {annotations[0]['generator_1']}",
        (model,),
        tuple(cell.column for cell in cells),
        tuple(cells),
        session.config_hash,
        versions(),
        (exactly, *notes, *([_context()] if own else [])),
        NAMES | {"wr": f"{NAMES['wr']}{by}"},
        provenance(),
        "" if scale == "paper" else labels.OWN_LABEL,
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


def _facts(annotations: Sequence[Annotation], rate: WinRate, name: str) -> list[tuple[str, str]]:
    def length(side: str) -> str:
        return f"{sum(len(a[side]) for a in annotations) / len(annotations):,.0f} characters"

    return [
        ("Annotations", f"{name}: {rate.n} ({rate.wins} won, {rate.losses} lost, {rate.draws} drawn)"),
        ("Win rate", f"{rate.rate:.3f} %, standard error {rate.standard_error:.3f}"),
        (f"Mean length of {annotations[0]['generator_2']}", length("output_2")),
        (f"Mean length of {annotations[0]['generator_1']}", length("output_1")),
    ]
