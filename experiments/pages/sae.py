"""What `experiments.sae` shows: how well an SAE reconstructs, beside the paper's, and how its training went."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Table, measured, observed
from experiments.harness.tables import table
from fac.data.examples import left_out
from fac.data.mixture import Mixture, Part, load_reports
from fac.encoder import FeatureEncoder, load_quality, sae_in
from fac.sae.ref import SaeRef
from fac.sae.settings import CURVE
from fac.store import Step

COLUMNS = {
    "l0": "L0",
    "l2": "reconstruction L2",
    "explained_variance": "explained variance",
    "active": "features that fire",
}
CURVES = {"l2": "reconstruction L2", "explained_variance": "explained variance", "dead_features": "dead features"}
TOKENS = {"all": "All tokens of a text count, those of its chat template too", "content": "Content tokens count"}


def page(
    run: RunConfig,
    parts: Mapping[str, Part],
    say: Callable[[str], None],
    encoder: FeatureEncoder,
    texts: Mixture,
    quality: Step,
    results: Results,
) -> Page:
    """The SAE's numbers beside the paper's, and how its training went."""
    reports, sae_folder = load_reports(results.folder(texts.whole)), results.folder(encoder.sae_step)
    for name, report in reports.items():
        say(f"{name}: {report}")
    found = load_quality(results.folder(quality))
    corpus = labels.is_papers_corpus({name: part.source for name, part in parts.items()})
    kind = labels.kind("paper" if corpus else "own", {run.model.name: run.model.ref})
    main = sae_table(run, found, None if isinstance(encoder.sae, SaeRef) else encoder.sae.seed, kind, left_out(reports))
    curve = sae_folder / CURVE  # what every step of a training by the paper's recipe measured
    steps = json.loads(curve.read_text()) if curve.is_file() else []
    return Page(
        title=main.title,
        subtitle=f"Layer {encoder.layer} of {run.model.name}, on texts held out of the training.",
        tables=[main],
        facts=[
            *((f"Texts of {name}", str(report)) for name, report in reports.items()),
            ("Held out", f"{found['texts']} texts, {found['tokens']:,} tokens"),
            ("The SAE", str(sae_in(sae_folder))),
        ],
        figures=[figure(steps, name) for name in CURVES] if steps else [],
        files={CURVE: curve.read_text()} if steps else {},
    )


def sae_table(
    run: RunConfig, found: Mapping[str, Any], seed: int | None, kind: labels.Kind, more: Sequence[str]
) -> Table:
    """`seed` is that of the training; None for an SAE that was there."""
    row = str(found["width"]) if found["k"] is None else f"{found['width']}_k{found['k']}"
    paper = paper_table("table7").get if labels.stands_beside(kind, run.model.name) else lambda row, name: None
    values = {
        "l0": (found["l0"], "features"),
        "l2": (found["l2"], "loss"),
        "explained_variance": (100 * found["explained_variance"], "percent"),
        "active": (found["active"], "count"),
    }
    cells = [
        observed(row, name, value, unit=unit, paper=paper(row, name))
        if seed is None
        else measured(row, name, {seed: value}, unit=unit, paper=paper(row, name))
        for name, (value, unit) in values.items()
    ]
    notes = [
        "Reconstruction L2: mean over texts of the mean over tokens of |x' - x|² / |x|², the released code's loss.",
        f"{TOKENS[found['of']]}, among its first {found['first']}. Over which tokens and texts the paper's numbers "
        "are is not known.",
    ]
    width, _, k = row.partition("_k")
    names = COLUMNS | {row: f"width {int(width):,}" + (f", K {k}" if k else "")}
    title = "Reconstruction by the SAE"
    return table(run, "sae", title, [row], list(COLUMNS), cells, names, [*notes, *more], [kind])


def figure(curve: Sequence[Mapping[str, float]], name: str) -> Figure:
    """One number over the steps of a training."""
    steps, values = list(range(1, len(curve) + 1)), [step[name] for step in curve]
    return Figure(f"Training: {CURVES[name]}", "optimizer step", CURVES[name], [Series("training", steps, values)])
