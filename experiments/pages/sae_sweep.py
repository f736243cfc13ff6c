"""What `experiments.sae_sweep` shows: how each SAE reconstructs, and what FAC by it comes to, beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record, Results, Trial
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Figure, Page, Series
from experiments.harness.tables import BASELINE, TITLES
from experiments.harness.views import Column, Value
from experiments.pages import rows
from experiments.pages.sae import TOKENS
from fac.encoder import load_quality
from fac.store import Step

if TYPE_CHECKING:
    from experiments.sae_sweep import Options

IN_LAB = "In the lab the SAEs are smaller: each stands beside the paper's of its place."
TASK = "toxicity"  # the paper's, and one whose test is a corpus that an SAE can reconstruct
MEASURED = {"l0": ("L0", "features"), "l2": ("reconstruction L2", "loss"), "active": ("features that fire", "count")}


def row_name(run: RunConfig) -> str:
    """Of the SAE that this configuration trains: WIDTH_kK, with its layer where that is named."""
    width, k = run.value("sae.train.width"), run.value("sae.train.k")
    layer = "" if run.sae_layer is None else f"_layer{run.sae_layer}"
    return f"{width}_k{k}{layer}"


def _title(row: str) -> str:
    width, k, *layer = row.split("_")
    told = f"width {int(width):,}, K {k.removeprefix('k')}"
    return told + (f", layer {layer[0].removeprefix('layer')}" if layer else "")


def page(run: RunConfig, of: Callable[[Trial], str], quality: Mapping[str, Step], results: Results) -> Page:
    """A row for each SAE; the first, which is the run's own, is compared with every other."""
    o: Options = run.experiment
    found = {row: load_quality(results.folder(step)) for row, step in quality.items()}
    kind = rows.kind_of(run, TASK, results.records)
    beside = rows.is_beside(run, TASK, kind, "lora", o.test)

    def printed(column: str, row: str) -> PaperNumber | None:
        """The rows of the lab are other sizes: each stands beside the paper's row of its place."""
        places = dict(zip(_default_order(o, quality), PAPERS, strict=True)) if kind == "lab" else {}
        return paper_table("table7").get(places.get(row, row), column)

    def measured(name: str) -> Value:
        def value(record: Record) -> float | None:
            row = of(record.trial)
            return found[row][name] if row in found else None

        return Value(value, MEASURED[name][1], seed=lambda trial: None)

    def columns(task: str) -> list[Column]:
        return [
            Column(
                f"{task}_{name}",
                title,
                measured(name),
                paper=(lambda row, name=name: printed(name, row) if beside else None),
            )
            for name, (title, _) in MEASURED.items()
        ]

    own, *others = quality
    told = next(iter(found.values()))
    shown = rows.Shown(
        "SAE sensitivity",
        "Table 7 and Fig. 8 of the paper: another width, K or layer, and all that follows from it.",
        columns=columns,
        notes=[
            "Every SAE is trained on the anchor texts of the task and reconstructs its test; the paper's are trained "
            "on a corpus of their own. The layer is half the model's depth where none is named.",
            f"Reconstruction L2: mean over texts of the mean over tokens of |x' - x|² / |x|². {TOKENS[told['of']]}.",
            *(
                ["In the lab the SAEs are smaller: each stands beside the paper's of its place."]
                if kind == "lab"
                else []
            ),
            "Of layers the paper prints one number: 16 is 3.46 points of AUPRC above 24.",
        ],
        figures=lambda _: [figure(found, _layers(run, quality))],
    )
    names = {BASELINE: TITLES[BASELINE], **{row: _title(row) for row in quality}}
    made = rows.Rows(
        names=names, of=of, pairs=[(own, other) for other in others],
        paper=lambda task, row: printed("auprc", row), mode="lora",
    )  # fmt: skip
    return rows.page(run, results, "sae_sweep", (TASK,), made, shown, budgets=False)


PAPERS = ("65536_k20", "16384_k20", "131072_k20", "65536_k10", "65536_k40")  # Table 7: own, widths, ks


def _default_order(o: Options, quality: Mapping[str, Step]) -> list[str]:
    """The rows that stand in the places of PAPERS; "" where other values than the scale's were named."""
    sizes = [row for row in quality if "layer" not in row]
    usual = {"widths", "ks"} <= {*o.swept} and not o.widths and not o.ks
    return sizes if usual else [""] * len(PAPERS)


def _layers(run: RunConfig, quality: Mapping[str, Step]) -> dict[int, str]:
    """The rows that differ in nothing but the layer."""
    own = next(iter(quality))
    layered = {int(row.partition("_layer")[2]): row for row in quality if row.startswith(f"{own}_layer")}
    from fac.backbone import model_depth

    return dict(sorted({max(model_depth(run.model.ref) // 2, 1): own, **layered}.items()))


def figure(found: Mapping[str, Mapping[str, Any]], layers: Mapping[int, str]) -> Figure:
    """Reconstruction by layer (Fig. 8 has the loss of training, whose values are not known)."""
    y = [found[row]["l2"] for row in layers.values()]
    series = [Series("held-out texts", list(layers), y)]
    return Figure("Reconstruction by layer (Fig. 8)", "layer", "reconstruction L2", series)
