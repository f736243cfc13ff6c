"""Do two models have the same features? Those of their SAEs, matched by how they fire over one data set.

    fac experiment=matching [experiment.models=[llama,mistral]] [data.corpus.path=FILE] out=DIR

Knows: which models are compared on which texts, what is counted, and the control that says what chance would give. Does
not know: how features are matched (`fac.matching`) or measured (`fac.pipeline`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from experiments import config, labels
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Cell, Table, observed, provenance, versions
from experiments.session import Session
from experiments.tasks.data import draw_world
from fac.coverage import overlap
from fac.data.source import Source
from fac.errors import FacError
from fac.lab.world.corpora import Sizes
from fac.matching import Match, carry, correlations, mutual
from fac.pipeline import Measured, Workshop, corpus_of, measure, relevant_to_labels
from fac.store import Artifact, Store

Bools = NDArray[np.bool_]
SHUFFLE_SEED = 0
COLUMNS = {
    "alive": "features that can be matched",
    "matched": "matched",
    "share": "matched",
    "median_r": "median best r",
    "chance_matched": "matched by chance",
    "chance_r": "median best r by chance",
    "relevant": "relevant",
    "relevant_share": "relevant, matched",
    "agreement": "relevant in both (Jaccard)",
}


@dataclass(frozen=True)
class Encoder:
    """One model on the shared texts."""

    name: str
    measured: Measured
    relevant: Bools | None  # None where the texts have no labels of two classes


@dataclass(frozen=True)
class Pair:
    """Two models matched, and the same with the texts of the second shuffled: what chance gives."""

    a: Encoder
    b: Encoder
    match: Match
    chance: Match

    @property
    def key(self) -> str:
        return f"{self.a.name}>{self.b.name}"

    def turned(self) -> Pair:
        return Pair(self.b, self.a, self.match.turned(), self.chance.turned())


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    names: list[str] = config.value(cfg, "experiment.models", list[str])
    if len(names) < 2 or len(set(names)) < len(names):
        raise FacError("experiment.models needs at least two models, and each only once.")
    models = {name: config.model_named(cfg, name) for name in names}
    at_least: float = config.value(cfg, "experiment.at_least", Annotated[float, Field(gt=0, le=1)])
    min_active: int = config.value(cfg, "experiment.min_active", PositiveInt)
    features, layer = config.feature_settings(cfg), config.sae_layer(cfg)
    fdr: float = config.value(cfg, "interpret.fdr", Annotated[float, Field(gt=0, lt=1)])
    texts = shared_texts(cfg)
    torch.set_num_threads(config.value(cfg, "workers", PositiveInt | None) or torch.get_num_threads())
    with Session.open(cfg) as session:
        corpus, described, said = shared_corpus(session.store, texts)
        encoders = []
        for name, (model, sae) in models.items():
            found = measure(
                Workshop(session.store, model, sae, layer, features, corpus, session.sae_curve(f"sae_{name}")), corpus
            )
            if note := found.note("shared"):
                said.append(f"{name}: {note}")
                session.say(said[-1])
            encoders.append(Encoder(name, found, _relevant(found, min_active, fdr)))
        pairs = [matched(session.store, a, b, min_active) for a, b in itertools.combinations(encoders, 2)]
        data = "own" if isinstance(texts, Source) else "lab"
        kind = labels.kind_of(data, {name: ref for name, (ref, _) in models.items()})
        table = _table(session, pairs, at_least, min_active, kind, said)
        page = Page(
            title=table.title,
            subtitle="Which features of one model fire on the same texts as a feature of another?",
            tables=[table],
            facts=[("Texts", described), ("A match", f"each other's best, r ≥ {at_least}")],
            figures=[_figure(pair) for pair in pairs],
        )
        listed = "".join(json.dumps(record) + "\n" for pair in pairs for record in records(pair, at_least))
        metrics = {f"matched/{pair.a.name}/{pair.b.name}": float(len(mutual(pair.match, at_least))) for pair in pairs}
        return session.finish(page, metrics, texts={"matches.jsonl": listed})


def shared_texts(cfg: DictConfig) -> Source | tuple[Sizes, int]:
    """What all models read: the data set named, or the anchor of a world of the lab, by its sizes and seed."""
    if config.plain(cfg, "data.corpus.path") is not None:
        return config.source(cfg, "corpus")
    if cfg.scale.name != "lab":
        raise FacError("data.corpus.path is not set: give a data set, data.corpus.path=FILE.")
    sizes = config.typed(Sizes, {k: v for k, v in config.group(cfg, "lab").items() if k != "seed"}, "lab")
    return sizes, config.value(cfg, "lab.seed", int)


def shared_corpus(store: Store, texts: Source | tuple[Sizes, int]) -> tuple[Artifact, str, list[str]]:
    """The texts as a corpus, what they are, and notes."""
    if isinstance(texts, Source):
        artifact, report = corpus_of(store, texts)
        return artifact, str(report), list(report.notes("shared"))
    sizes, seed = texts
    return draw_world(store, sizes, seed)["anchor"], f"{sizes.anchor} texts, the anchor corpus of world {seed}", []


def _relevant(found: Measured, min_active: int, fdr: float) -> Bools | None:
    """Features that the statistical judge finds relevant; None without labels of two classes."""
    given = found.corpus.labels()
    if given is None or len(set((given > 0).tolist())) < 2:
        return None
    return relevant_to_labels(found, fdr, min_active)


def matched(store: Store, a: Encoder, b: Encoder, min_active: int) -> Pair:
    """Match two models and make the control, each through the store. Raises FacError if no feature can be matched."""

    def stage(shuffle: int | None) -> Match:
        def build(folder: Path) -> None:
            first, second = a.measured.pooled, b.measured.pooled
            if shuffle is not None:
                second = second.take(np.random.default_rng(shuffle).permutation(second.n_texts))
            np.savez(folder / "match.npz", **correlations(first, second, min_active=min_active)._asdict())

        inputs = [a.measured.artifact, b.measured.artifact]
        artifact = store.stage("matching", build, params={"min_active": min_active, "shuffle": shuffle}, inputs=inputs)
        with np.load(artifact.path / "match.npz") as held:
            return Match(**held)

    pair = Pair(a, b, stage(None), stage(SHUFFLE_SEED))
    if np.isnan(pair.match.r_ab).all():
        raise FacError(
            f"{a.name} or {b.name} has no feature that fires in at least {min_active} texts, and differently: "
            f"give more texts, or lower experiment.min_active."
        )
    return pair


def records(pair: Pair, at_least: float) -> list[dict[str, object]]:
    """The matched features, the best first."""
    found = mutual(pair.match, at_least)
    r = pair.match.r_ab[found[:, 0]]
    return [
        {pair.a.name: int(found[i, 0]), pair.b.name: int(found[i, 1]), "r": round(float(r[i]), 6)}
        for i in np.argsort(-r, kind="stable")
    ]


def numbers(pair: Pair, at_least: float) -> Mapping[str, tuple[float, str]]:
    """One row of the table, from the side of `pair.a`: column -> (value, unit)."""
    alive = ~np.isnan(pair.match.r_ab)
    found = mutual(pair.match, at_least)
    row = {
        "alive": (float(alive.sum()), "count"),
        "matched": (float(len(found)), "count"),
        "share": (100 * len(found) / alive.sum(), "percent"),
        "median_r": (float(np.median(pair.match.r_ab[alive])), "correlation"),
        "chance_matched": (float(len(mutual(pair.chance, at_least))), "count"),
        "chance_r": (float(np.median(pair.chance.r_ab[alive])), "correlation"),
    }
    if pair.a.relevant is None or pair.b.relevant is None:
        return row
    relevant = pair.a.relevant & alive
    carried = carry(relevant, pair.match, at_least)
    theirs = carry(pair.b.relevant, pair.match.turned(), at_least)  # as features of a
    row["relevant"] = (float(relevant.sum()), "count")
    if relevant.any():
        row["relevant_share"] = (100 * carried.sum() / relevant.sum(), "percent")
    if carried.any() or theirs.any():
        both = overlap(carry(carried, pair.match.turned(), at_least), theirs)
        row["agreement"] = (100 * both.jaccard, "percent")
    return row


def _table(
    session: Session, pairs: Sequence[Pair], at_least: float, min_active: int, kind: labels.Kind, said: Sequence[str]
) -> Table:
    rows = [side for pair in pairs for side in (pair, pair.turned())]
    cells: list[Cell] = []
    for side in rows:
        cells += [
            observed(side.key, column, value, unit=unit) for column, (value, unit) in numbers(side, at_least).items()
        ]
    notes = [
        f"Row A → B: features of A against those of B. Matched: each other's best match, r ≥ {at_least} (Pearson over "
        f"texts of the pooled activations); only features that fire in at least {min_active} texts can be.",
        "By chance: the same with the texts of one model shuffled.",
    ]
    if any(side.a.relevant is not None for side in rows):
        notes.append(
            "Relevant: fires more on texts labelled 1 than on others of their length (statistical judge). In both: of "
            "the matched features that are relevant in A or B, the share that is so in both."
        )
    else:
        notes.append("The texts have no labels of two classes, so no feature is relevant.")
    used = {cell.column for cell in cells}
    return Table(
        "matching",
        session.cfg.scale.name,
        "Features matched across models",
        tuple(side.key for side in rows),
        tuple(column for column in COLUMNS if column in used),
        tuple(cells),
        session.config_hash,
        versions(),
        (*notes, *said),
        COLUMNS | {side.key: f"{side.a.name} → {side.b.name}" for side in rows},
        provenance(),
        labels.label([kind]),
    )


def _figure(pair: Pair) -> Figure:
    """How many features have a counterpart, by what r counts as one."""
    x = np.linspace(0, 1, 41)
    series = []
    for side in (pair, pair.turned()):
        for match, name in ((side.match, ""), (side.chance, ", by chance")):
            r = match.r_ab[~np.isnan(match.r_ab)]
            share = [100 * float((r >= least).mean()) for least in x]
            series.append(Series(f"{side.a.name} → {side.b.name}{name}", x.tolist(), share, dashed=bool(name)))
    caption = "Share of features whose best match, mutual or not, correlates at least so much."
    return Figure(f"Counterparts: {pair.a.name} and {pair.b.name}", "r", "features (%)", series, caption)
