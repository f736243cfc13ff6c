"""How well does an SAE reconstruct texts that it was not trained on? (paper Table 7, columns L0 and reconstruction L2)

    fac experiment=sae sae=train data.corpus.path=FILE out=DIR
    fac experiment=sae sae=train_paper model=llama scale=paper +corpus@data.parts=paper

Trains the SAE that `sae` describes, or takes the one it names, and measures it on held-out texts. Knows: which texts,
what is tracked while it trains, and what page. Does not know: how an SAE is trained or measured (`fac.sae`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from experiments import config, labels
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Cell, Table, measured, observed, paper_table, provenance, versions
from experiments.session import Session
from experiments.tasks.data import source_of
from fac.data.corpus import Corpus
from fac.data.examples import left_out
from fac.data.mixture import Part, mix
from fac.errors import FacError
from fac.pipeline import Workshop
from fac.sae import SaeRef, load
from fac.sae.quality import quality
from fac.sae.recipe import CURVE
from fac.sae.ref import CONFIG, read_record
from fac.store import Artifact

COLUMNS = {
    "l0": "L0",
    "l2": "reconstruction L2",
    "explained_variance": "explained variance",
    "active": "features that fire",
}
CURVES = {"l2": "reconstruction L2", "explained_variance": "explained variance", "dead_features": "dead features"}


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    model, sae, features = config.model_ref(cfg), config.sae_of(cfg), config.feature_settings(cfg)
    layer, parts = config.sae_layer(cfg), _parts(cfg)
    share: float = config.value(cfg, "data.held_out", Annotated[float, Field(gt=0, lt=1)])
    split_seed: int = config.value(cfg, "data.seed", int)
    torch.set_num_threads(config.value(cfg, "workers", PositiveInt | None) or torch.get_num_threads())
    with Session.open(cfg) as session:
        texts = mix(session.store, parts, held_out=share, seed=split_seed)
        for name, report in texts.reports.items():
            session.say(f"{name}: {report}")
        shop = Workshop(session.store, model, sae, layer, features, texts.train, session.sae_curve())
        found = measure_quality(shop, texts.held_out)
        corpus = labels.is_papers_corpus({name: part.source for name, part in parts.items()})
        kind = labels.kind_of("paper" if corpus else "own", {cfg.model.name: model})
        left = left_out(texts.reports)
        table = _table(session, found, None if isinstance(sae, SaeRef) else sae.seed, kind, left)
        curve = _curve(shop)
        page = Page(
            title=table.title,
            subtitle=f"Layer {shop.layer} of {cfg.model.name}, on texts held out of the training.",
            tables=[table],
            facts=[
                *((f"Texts of {name}", str(report)) for name, report in texts.reports.items()),
                ("Held out", f"{found['texts']} texts, {found['tokens']:,} tokens"),
                ("The SAE", str(shop.sae)),
            ],
            figures=[_figure(curve, name) for name in CURVES] if curve else [],
        )
        files = [Path(str(shop.sae.path)) / CURVE] if curve else []
        return session.finish(page, {f"held_out/{name}": float(found[name]) for name in COLUMNS}, files)


def _parts(cfg: DictConfig) -> dict[str, Part]:
    """The data sets of data.parts, each with how many texts are drawn, or the one of data.corpus."""
    parts = {}
    for name in config.plain(cfg, "data.parts") or ():
        values = config.group(cfg, f"data.parts.{name}")
        sample = values.pop("sample", None)
        if source := source_of(values, f"data.parts.{name}"):
            parts[name] = Part(source, sample)
    if not parts and config.plain(cfg, "data.corpus.path") is not None:
        parts["corpus"] = Part(config.source(cfg, "corpus"))
    if not parts:
        raise FacError(
            "No texts are named: give a data set, data.corpus.path=FILE, or the paper's corpus, "
            "+corpus@data.parts=paper."
        )
    return parts


def measure_quality(shop: Workshop, corpus: Artifact) -> dict[str, Any]:
    """The quality of the shop's SAE on a corpus, with its width, K (null: no Top-K SAE) and the number of texts."""
    settings, record = shop.features, read_record(shop.sae.fetched(CONFIG))
    which = {  # as it was trained
        "max_tokens": record.get("settings", {}).get("max_tokens", settings.max_tokens),
        "tokens": record.get("tokens", "content"),
    }

    def build(folder: Path) -> None:
        texts = Corpus.load(corpus.path)
        sae = load(shop.sae, shop.backbone, settings.rule)
        found = quality(
            sae,
            shop.backbone,
            (example.messages for example in texts),
            len(texts),
            **which,
            batch_tokens=settings.batch_tokens,
            encode_elements=settings.encode_elements,
        )
        about = {
            "width": sae.width,
            "k": sae.k,
            "texts": len(texts),
            "of": which["tokens"],
            "first": which["max_tokens"],
        }
        (folder / "quality.json").write_text(json.dumps({**asdict(found), **about}))

    artifact = shop.store.stage("sae_quality", build, params={**shop.encoder, **which}, inputs=[corpus])
    return json.loads((artifact.path / "quality.json").read_text())


def _table(
    session: Session, found: Mapping[str, Any], seed: int | None, kind: labels.Kind, said: Sequence[str]
) -> Table:
    """`seed` is that of the training; None for an SAE that was there."""
    row = str(found["width"]) if found["k"] is None else f"{found['width']}_k{found['k']}"
    paper = paper_table("table7").get if labels.stands_beside(kind, session.cfg.model.name) else lambda row, name: None
    values = {
        "l0": (found["l0"], "features"),
        "l2": (found["l2"], "loss"),
        "explained_variance": (100 * found["explained_variance"], "percent"),
        "active": (found["active"], "count"),
    }
    cells: list[Cell] = [
        observed(row, name, value, unit=unit, paper=paper(row, name))
        if seed is None
        else measured(row, name, {seed: value}, unit=unit, paper=paper(row, name))
        for name, (value, unit) in values.items()
    ]
    which = {"all": "All tokens of a text count, those of its chat template too", "content": "Content tokens count"}
    notes = [
        "Reconstruction L2: mean over texts of the mean over tokens of |x' - x|² / |x|², the released code's loss.",
        f"{which[found['of']]}, among its first {found['first']}. Over which tokens and texts the paper's numbers are "
        "is not known.",
    ]
    width, _, k = row.partition("_k")
    return Table(
        "sae",
        session.cfg.scale.name,
        "Reconstruction by the SAE",
        (row,),
        tuple(COLUMNS),
        tuple(cells),
        session.config_hash,
        versions(),
        (*notes, *said),
        COLUMNS | {row: f"width {int(width):,}" + (f", K {k}" if k else "")},
        provenance(),
        labels.label([kind]),
    )


def _curve(shop: Workshop) -> Sequence[Mapping[str, float]]:
    """What was measured at every step of a training by the paper's recipe; empty for other SAEs."""
    file = Path(str(shop.sae.path)) / CURVE
    return json.loads(file.read_text()) if file.is_file() else []


def _figure(curve: Sequence[Mapping[str, float]], name: str) -> Figure:
    steps = list(range(1, len(curve) + 1))
    values = [step[name] for step in curve]
    return Figure(f"Training: {CURVES[name]}", "optimizer step", CURVES[name], [Series("training", steps, values)])
