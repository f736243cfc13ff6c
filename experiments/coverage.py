"""Coverage of any two data sets: which features of the anchor do the seed data miss?

    fac experiment=coverage model=llama data.anchor.path=A data.seed.path=B out=DIR

No LLM and no labels: every feature that the anchor activates counts as relevant, so FAC is that of the whole feature
space. Knows: which numbers and what page. Does not know: how texts are measured (`fac.pipeline`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from pydantic import PositiveInt

from experiments import config, labels, parity
from experiments.harness.report import Feature, Figure, Page, Series, Span
from experiments.harness.results import Cell, Table, observed, provenance, versions
from experiments.session import Session
from fac.coverage import bootstrap, counts, fac_ratio, rarefaction
from fac.data.examples import LoadReport, left_out
from fac.diversity import diversity
from fac.features import content_means
from fac.pipeline import Gap, Measured, Workshop, corpus_of, find_gap, measure, spans_of


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    sources = {role: config.source(cfg, role) for role in ("anchor", "seed")}
    model, sae, thresholds = config.model_ref(cfg), config.sae_of(cfg), config.thresholds(cfg)
    features, layer = config.feature_settings(cfg), config.sae_layer(cfg)
    replicates, listed, spans, n_texts = (
        config.value(cfg, f"experiment.{key}", PositiveInt)
        for key in ("bootstrap", "listed", "spans", "diversity_texts")
    )
    torch.set_num_threads(config.value(cfg, "workers", PositiveInt | None) or torch.get_num_threads())
    with Session.open(cfg) as session:
        corpora, reports = {}, {}
        for role, source in sources.items():
            corpora[role], reports[role] = corpus_of(session.store, source)
            session.say(f"{role}: {reports[role]}")
        shop = Workshop(session.store, model, sae, layer, features, corpora["anchor"], session.sae_curve())
        anchor, seed = measure(shop, corpora["anchor"]), measure(shop, corpora["seed"])
        everything = np.ones(anchor.pooled.n_features, np.bool_)
        gap = find_gap(anchor, seed, everything, thresholds)
        said = [*left_out(reports), *gap.notes()]
        for note in gap.notes():
            session.say(note)
        if labels.is_shipped(model):
            said.append("Measured with a model of the lab, which knows the lab's words only: for a first look.")
        table = _table(session, gap, replicates, said)
        variety = _diversity(session, shop, gap, n_texts).noting(left_out(reports))
        page = Page(
            title=f"Feature coverage: {sources['seed'].title} against {sources['anchor'].title}",
            subtitle=f"Which features of the anchor, measured with {cfg.model.name}, do the seed data activate?",
            tables=[table, *([variety] if variety.cells else [])],
            facts=_facts(gap, reports),
            figures=_figures(gap),
            features=_missing(shop, gap, listed, spans, features.max_tokens),
        )
        at = str(gap.grid.thresholds[gap.at])
        metrics = {"missing": float(gap.missing().sum())}
        if (cell := table.cell(at, "ratio")) is not None:
            metrics["fac"] = cell.mean / 100
        return session.finish(page, metrics)


def _table(session: Session, gap: Gap, replicates: int, said: Sequence[str]) -> Table:
    """FAC by threshold. Thresholds that no feature of the anchor passes have no FAC, and say so."""
    cells: list[Cell] = []
    empty = []
    for index, threshold in enumerate(gap.grid.thresholds):
        row = str(threshold)
        active, missing = gap.active(index), gap.missing(index)
        numbers = {"active": (float(active.sum()), "count"), "missing": (float(missing.sum()), "count")}
        if not active.any():
            empty.append(row)
        else:
            fac = fac_ratio(gap.anchor_counts[index], gap.seed_counts[index], gap.relevant & active, gap.anchor_mean)
            values = (fac.binary, fac.frequency, fac.magnitude)
            numbers |= {
                key: (100 * v, "percent") for key, v in zip(("ratio", "frequency", "magnitude"), values, strict=True)
            }
            interval = bootstrap(
                gap.seed.pooled,
                gap.grid.cuts[index],
                anchor=active,
                missing=missing if missing.any() else active,
                relevant=active,
                replicates=replicates,
            ).ratio
            numbers |= {"low": (100 * interval.low, "percent"), "high": (100 * interval.high, "percent")}
        cells += [observed(row, key, value, unit=unit) for key, (value, unit) in numbers.items()]
    notes = [
        "FAC = |F(Q)| / |F(P)|: P the anchor, Q the seed data, F all features that the anchor activates above δ.",
        "Frequency and magnitude weigh features by the share of anchor texts that activate them and by their mean "
        "activation; low and high bound the binary FAC (95 % bootstrap over seed texts).",
    ]
    if empty:
        notes.append(f"No feature of the anchor passes {', '.join(empty)}: lower these thresholds.")
    small = [name for name, corpus in (("anchor", gap.anchor), ("seed", gap.seed)) if corpus.pooled.n_texts < 2]
    if small:
        notes.append(f"One text has no diversity: that of the {' and '.join(small)} is left out.")
    names = {
        "active": "active on the anchor",
        "missing": "missing from the seed data",
        "ratio": "FAC",
        "frequency": "FAC, frequency",
        "magnitude": "FAC, magnitude",
    }
    return Table(
        "coverage",
        session.cfg.scale.name,
        "Feature activation coverage by threshold δ",
        tuple(str(t) for t in gap.grid.thresholds),
        ("active", "missing", "ratio", "low", "high", "frequency", "magnitude"),
        tuple(cells),
        session.config_hash,
        versions(),
        (*notes, *said, *parity.notes(session.cfg, ("features",))),
        names,
        provenance(),
        labels.OWN_LABEL,
    )


def _diversity(session: Session, shop: Workshop, gap: Gap, n_texts: int) -> Table:
    """Text and embedding diversity of both corpora (paper Fig. 9), of those that are more than one text."""
    cells: list[Cell] = []
    rows: list[str] = []
    for role, corpus in (("anchor", gap.anchor), ("seed", gap.seed)):
        if min(corpus.pooled.n_texts, n_texts) < 2:
            continue
        for name, value in _diversity_of(session, shop, corpus, n_texts).items():
            if name not in rows:
                rows.append(name)
            if math.isfinite(value):
                cells.append(observed(name, role, value, unit=""))
    note = f"Of the first {n_texts} texts; embeddings are mean content residuals of layer {shop.layer}."
    return Table(
        "diversity", session.cfg.scale.name, "Diversity of both data sets", tuple(rows), ("anchor", "seed"),
        tuple(cells), session.config_hash, versions(), (note,), {}, provenance(), labels.OWN_LABEL,
    )  # fmt: skip


def _diversity_of(session: Session, shop: Workshop, corpus: Measured, n_texts: int) -> dict[str, float]:
    """Through the store, since embeddings need the model."""

    def build(folder: Path) -> None:
        examples = [corpus.corpus[i] for i in range(min(len(corpus.corpus), n_texts))]
        embeddings = content_means(shop.backbone, [e.messages for e in examples], shop.features)
        (folder / "diversity.json").write_text(json.dumps(diversity([e.text for e in examples], embeddings)))

    params = {**shop.encoder, "texts": n_texts}
    artifact = session.store.stage("diversity", build, params=params, inputs=[corpus.artifact])
    return json.loads((artifact.path / "diversity.json").read_text())


def _facts(gap: Gap, reports: dict[str, LoadReport]) -> list[tuple[str, str]]:
    fac = fac_ratio(gap.anchor_counts[gap.at], gap.seed_counts[gap.at], gap.active(), gap.anchor_mean)
    return [
        ("Anchor", str(reports["anchor"])),
        ("Seed data", str(reports["seed"])),
        ("Threshold used", str(gap.grid.thresholds[gap.at])),
        ("FAC", f"{fac.covered} of {fac.total} features, {100 * fac.binary:.1f} %"),
        ("Missing features", str(int(gap.missing().sum()))),
    ]


def _figures(gap: Gap) -> list[Figure]:
    figures = []
    for relative, label in ((False, "δ, absolute"), (True, "δ as a share of the feature's anchor maximum")):
        rows = [i for i, t in enumerate(gap.grid.thresholds) if t.relative == relative and gap.active(i).any()]
        if rows:
            share = [100 * float((gap.active(i) & (gap.seed_counts[i] > 0)).sum() / gap.active(i).sum()) for i in rows]
            x = [gap.grid.thresholds[i].value for i in rows]
            figures.append(Figure("Coverage by threshold", label, "FAC (%)", [Series("seed data", x, share)]))
    curves = []
    for name, corpus in (("anchor", gap.anchor), ("seed data", gap.seed)):
        tally = counts(corpus.pooled, gap.grid.cuts[gap.at : gap.at + 1])[0][gap.active()]
        sizes = np.unique(np.linspace(0, corpus.pooled.n_texts, 25).astype(int))
        curves.append(Series(name, sizes.tolist(), rarefaction(tally, corpus.pooled.n_texts, sizes).tolist()))
    caption = "Expected number of the anchor's features that a random part of each data set activates."
    figures.append(Figure("Features by number of texts (rarefaction)", "texts", "features", curves, caption))
    return figures


def _missing(shop: Workshop, gap: Gap, listed: int, spans: int, longest: int) -> Sequence[Feature]:
    """The missing features that most anchor texts activate, with their spans."""
    missing = np.flatnonzero(gap.missing())
    tally: NDArray[np.int64] = gap.anchor_counts[gap.at]
    ranked = missing[np.argsort(-tally[missing], kind="stable")][:listed]
    shown = spans_of(shop, gap.anchor, ranked.tolist(), spans, min(longest, 32))
    return [
        Feature(
            id=int(f),
            explanation="",
            verdict="",
            relevance="",
            spans=[Span(place.text, place.start, len(place.text), place.value) for place in shown[int(f)]],
            anchor_count=int(tally[f]),
            seed_count=int(gap.seed_counts[gap.at][f]),
        )
        for f in ranked
    ]
