"""A reward model on preference pairs of one's own: trained on one set, tested on another, by section.

fac experiment=reward data.train.path=FILE data.test.path=FILE model=llama
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from pydantic import PositiveInt

from experiments import config, labels
from experiments.cells import Cells, Scored, default_workers, percent_cell, track
from experiments.job import Job
from experiments.report import Page
from experiments.results import Table, paper_table, provenance, versions
from experiments.session import Session
from experiments.tasks import TASKS
from experiments.tasks.base import examples_artifact, load_examples, save_examples
from fac.data.examples import LoadReport, left_out
from fac.data.held_out import HeldOut
from fac.data.pairs import pairs_fingerprint, read_pairs
from fac.data.schemas import PAIR
from fac.data.source import Source
from fac.errors import FacError
from fac.store import Artifact, Store
from fac.train.reward import RewardSettings

TASK = TASKS["reward"]
BEST = ("chat", "chat_hard", "safety", "reasoning", "average")


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    sources = {role: config.source(cfg, role) for role in ("train", "test")}
    model, settings = (
        config.model_ref(cfg),
        config.typed(RewardSettings, config.group(cfg, "tasks.reward.train"), "train"),
    )
    seeds: list[int] = config.value(cfg, "tasks.reward.seeds", list[int])
    if not seeds or len(set(seeds)) < len(seeds):
        raise FacError("tasks.reward.seeds needs at least one seed, and each only once.")
    workers: int = config.value(cfg, "workers", PositiveInt | None) or default_workers()
    with Session.open(cfg) as session, Cells(workers) as cells:
        found = {role: pairs_artifact(session.store, source) for role, source in sources.items()}
        for role, (_, report) in found.items():
            session.say(f"{role}: {report}")
        test = found["test"][0]
        train, dropped = trained_pairs(session.store, found["train"][0], test)
        cells.submit(
            [Job("reward", "trained", s, session.store.root, model, settings, test, base=(train,)) for s in seeds]
        )
        scored = [track(session, cell) for cell in cells.results()]
        left = left_out({role: report for role, (_, report) in found.items()})
        asked = [f"{dropped} pairs of train were left out: the test asks what they ask."] if dropped else []
        table = _table(session, scored, sources).noting([*left, *asked])
        page = Page(
            title=table.title,
            subtitle="Share of pairs whose chosen reply scores higher, by section.",
            tables=[table],
            facts=[(role, f"{sources[role]}: {report}") for role, (_, report) in found.items()],
        )
        return session.finish(page, {c.column: c.mean for c in table.cells})


def trained_pairs(store: Store, train: Artifact, test: Artifact) -> tuple[Artifact, int]:
    """The pairs whose prompt does not stand in the test, and how many do. Raises FacError if all do."""
    pairs = load_examples(PAIR, [train])
    tested = HeldOut.of(PAIR.asked(pair) for pair in load_examples(PAIR, [test]))
    kept = [pair for pair in pairs if PAIR.asked(pair) not in tested]
    if not kept:
        raise FacError(
            "Every prompt of data.train stands in data.test, which is not trained on: name another data set."
        )
    return (train if len(kept) == len(pairs) else examples_artifact(store, PAIR, kept)), len(pairs) - len(kept)


def pairs_artifact(store: Store, source: Source) -> tuple[Artifact, LoadReport]:
    """A data set of pairs; keyed by the bytes of its files and how they are read."""

    def build(folder: Path) -> None:
        report = LoadReport()
        save_examples(PAIR, list(read_pairs(source, report=report)), folder)
        (folder / "report.json").write_text(json.dumps(vars(report)))

    artifact = store.stage("pairs", build, params=pairs_fingerprint(source))
    return artifact, LoadReport(**json.loads((artifact.path / "report.json").read_text()))


def _table(session: Session, scored: Sequence[tuple[Scored, str]], sources: Mapping[str, Source]) -> Table:
    metrics = [name for name in scored[0][0].metrics if name != "n"]
    cells = [percent_cell(scored, name, "trained", name) for name in metrics]
    name = session.cfg.model.name
    published = labels.is_published(TASK, [sources["test"]])
    kind = labels.kind_of("paper" if published else "own", {name: config.model_ref(session.cfg)})
    return Table(
        experiment="reward",
        scale=session.cfg.scale.name,
        title=f"Reward model, {session.cfg.model.name}: {sources['train'].title} to {sources['test'].title}",
        rows=("trained",),
        columns=tuple(metrics),
        cells=tuple(cells),
        config_hash=session.config_hash,
        versions=versions(),
        provenance=provenance(),
        names={"trained": "Trained on these pairs"},
        label=labels.label([kind]),
        notes=tuple([_printed(scored[0][0].job.settings.mode)] if labels.stands_beside(kind, name) else []),
    )


def _printed(mode: str) -> str:
    """What the paper's model of all its human data has on RewardBench, trained as this one was."""
    table = paper_table("table13" if mode == "head" else "table14")
    full = [(name, table.get("full", name)) for name in BEST]
    told = ", ".join(f"{name} {number.mean}" for name, number in full if number)
    return f"The paper's full-data model on RewardBench ({table.source}): {told}."
