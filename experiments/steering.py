"""How far do the steering vectors of CAA behaviours move a model's answers? (paper Table 1, Fig. 13 and 14)

    fac experiment=steering behavior=ROOT/generate/sycophancy model=llama out=DIR

Knows: which pairs each seed takes, what is asked at which multiplier, and what page. Does not know: how a vector is
made (`fac.train.steering`) or what is counted (`eval.steering`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig
from pydantic import PositiveInt
from transformers import PreTrainedTokenizerBase

from eval.steering import Answers, evaluate, replicates, score, scr
from experiments import config, labels
from experiments.report import Figure, Page, Series
from experiments.results import Cell, PaperNumber, Table, measured, paper_table, provenance, versions
from experiments.session import Session
from fac.backbone import (
    Backbone,
    ModelRef,
    load_causal_lm,
    load_config,
    load_tokenizer,
    model_depth,
    positions_of,
)
from fac.chat import Message, as_chat, encode
from fac.data.choices import POLARITY, Choice, read_choices
from fac.data.examples import LoadReport, left_out
from fac.data.held_out import HeldOut
from fac.data.schemas import CHOICE
from fac.data.source import Source
from fac.errors import FacError, closest
from fac.store import Artifact, Store
from fac.train.steering import Positions, SteeringVector, caa_vector, equalise, fits, prompt_vector

CAA = "https://github.com/nrimsky/CAA"
FILES = {"generate": "generate_dataset.json", "test": "test_dataset_ab.json"}
PAPER_COLUMNS = {"sycophancy": "sycophancy", "survival-instinct": "survival"}  # of Table 1
PAPER_DEPTH = 13 / 32  # layers[12] of LLaMA-3.1-8B (released script)
REPLICATED = {"robust": "scr", "p_matching": "matching_range"}  # columns whose differences are resampled
COLUMNS = {
    "robust": "robust accuracy",
    "standard": "standard accuracy",
    "p_matching": "P(matching)",
    "mass": "P(any letter)",
}


@dataclass(frozen=True)
class Settings:
    """The group `experiment`, checked."""

    method: str | None
    contrast: Literal["answer", "prompt"]
    cues: tuple[str, str] | None
    layer: int | None
    positions: Positions
    multipliers: tuple[float, ...]
    n_train: PositiveInt | None
    seeds: tuple[int, ...]
    batch_size: PositiveInt

    def __post_init__(self) -> None:
        if not {-1.0, 1.0} <= set(self.multipliers) or len(set(self.multipliers)) < len(self.multipliers):
            raise FacError("experiment.multipliers must hold -1 and 1, which SCR compares, and each only once.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise FacError("experiment.seeds needs at least one seed, and each only once.")
        rows = paper_table("table1").rows
        if self.method is not None and self.method not in rows:
            raise FacError(f"Table 1 has no row experiment.method={self.method}{closest(self.method, rows)}.")


@dataclass(frozen=True)
class Behavior:
    """A behaviour, the pairs it is read from, and the questions it is tested with."""

    name: str
    sources: Mapping[str, Source]  # "generate" and "test"
    reports: Mapping[str, LoadReport]
    pairs: Sequence[Choice]
    test: Sequence[Choice]
    asked: int  # pairs left out, since the test asks their question
    long: Mapping[str, int] = field(default_factory=dict)  # by role: left out, since the model reads no such length

    def drawn(self, settings: Settings) -> bool:
        """Whether each seed draws pairs of its own, and does not take all."""
        return settings.n_train not in (None, len(self.pairs))


Curve = Mapping[float, Answers]  # by multiplier


def run(cfg: DictConfig) -> Path:
    """Run the experiment; returns the folder of its results."""
    settings = config.settings(Settings, cfg, "experiment", leave=("name", "module"))
    model = config.model_ref(cfg)
    behaviors = [_readable(behavior, model, settings) for behavior in _behaviors(cfg, settings)]
    seeds = settings.seeds if any(b.drawn(settings) for b in behaviors) else settings.seeds[:1]
    layer = _layer(model, settings.layer)
    torch.set_num_threads(config.value(cfg, "workers", PositiveInt | None) or torch.get_num_threads())
    with Session.open(cfg) as session:
        backbone, loaded = cache(lambda: Backbone(model, layer)), cache(lambda: load_causal_lm(model))
        encoder = {"model": model.identity(), "layer": layer}
        curves: dict[str, dict[int, Curve]] = {behavior.name: {} for behavior in behaviors}
        found: dict[tuple[str, int], SteeringVector] = {}
        for note in _left_out(behaviors):
            session.say(note)
        for seed in seeds:
            made = [_vector(session.store, backbone, encoder, b, seed, settings) for b in behaviors]
            vectors = equalise([SteeringVector.load(artifact.path) for artifact in made])
            for behavior, artifact, vector in zip(behaviors, made, vectors, strict=True):
                found[behavior.name, seed] = vector
                curves[behavior.name][seed] = {
                    m: _answers(session.store, loaded, model, behavior, artifact, vector, m, settings)
                    for m in settings.multipliers
                }
        left = {f"{b.name}, {role}": report for b in behaviors for role, report in b.reports.items()}
        table = _table(session, behaviors, layer, curves, found, settings).noting(left_out(left))
        page = Page(
            title=table.title,
            subtitle=f"{cfg.model.name}, layer {layer}: what it answers while a multiple of the vector is added.",
            tables=[table],
            facts=_facts(behaviors, found, settings),
            figures=[_figure(name, by_seed) for name, by_seed in curves.items()],
        )
        out = session.finish(page, {f"scr/{name}": _mean_scr(c) for name, c in curves.items()})
        for (name, seed), vector in found.items():
            vector.save(out / "vectors" / name / str(seed))
        return out


def _behaviors(cfg: DictConfig, settings: Settings) -> list[Behavior]:
    """What the configuration names, read. Raises FacError for what is missing, doubled or too little."""
    named = config.value(cfg, "behavior", str | list[str])
    folders = [Path(name).expanduser().absolute() for name in ([named] if isinstance(named, str) else named)]
    if not folders or len({folder.name for folder in folders}) < len(folders):
        raise FacError("behavior must name at least one behaviour, and each only once.")
    found = []
    for folder in folders:
        sources = {role: _source(cfg, role, folder, alone=len(folders) == 1) for role in FILES}
        reports = {role: LoadReport() for role in FILES}
        read, test = (read_choices(sources[role], reports[role]) for role in FILES)
        tested = HeldOut.of(item.text for item in test)
        pairs = [item for item in read if item.text not in tested and item.swapped().text not in tested]
        if not pairs:
            raise FacError(f"Every question of {sources['generate']} stands in its test: name other files.")
        _cues(folder.name, settings)
        found.append(Behavior(folder.name, sources, reports, pairs, test, asked=len(read) - len(pairs)))
    return found


def _readable(behavior: Behavior, model: ModelRef, settings: Settings) -> Behavior:
    """Without the questions that are longer than the model reads. Raises FacError if too few are left."""
    tokenizer, positions = load_tokenizer(model), positions_of(load_config(model))
    cues = _cues(behavior.name, settings)
    pairs = [item for item in behavior.pairs if _is_read(tokenizer, item, cues, positions)]
    test = [item for item in behavior.test if fits(tokenizer, item, positions)]
    for role, left in (("generate", pairs), ("test", test)):
        if not left:
            raise FacError(
                f"All questions of {behavior.sources[role]} are longer than the {positions} tokens that {model.path} "
                "reads: use another model."
            )
    if settings.n_train is not None and settings.n_train > len(pairs):
        raise FacError(
            f"experiment.n_train={settings.n_train} will not do: {behavior.sources['generate']} has {len(pairs)} pairs "
            "that its test does not ask and that the model can read."
        )
    long = {"generate": len(behavior.pairs) - len(pairs), "test": len(behavior.test) - len(test)}
    return replace(behavior, pairs=pairs, test=test, long=long)


def _is_read(
    tokenizer: PreTrainedTokenizerBase, item: Choice, cues: tuple[str, str] | None, positions: int | None
) -> bool:
    """Whether a vector can be read from a question: with its answer, or behind the cues."""
    if cues is None or positions is None:
        return fits(tokenizer, item, positions)
    lengths = [len(encode(tokenizer, chat, add_generation_prompt=True).ids) for chat in _cued(item, cues)]
    return max(lengths) <= positions


def _cued(item: Choice, cues: tuple[str, str]) -> tuple[list[Message], list[Message]]:
    """A question behind the cue for and the cue against the behaviour."""
    toward, away = (as_chat(f"{cue}\n\n{item.text}") for cue in cues)
    return toward, away


def files_of(folder: str | Path) -> dict[str, Path]:
    """The files of a behaviour by their roles, where CAA keeps them."""
    folder = Path(folder).expanduser().absolute()
    homes = {"generate": folder, "test": folder.parent.parent / "test" / folder.name}
    return {role: homes[role] / name for role, name in FILES.items()}


def _source(cfg: DictConfig, role: str, folder: Path, alone: bool) -> Source:
    """The file of one role: the one that is named, or the one that lies where CAA keeps it."""
    values = config.group(cfg, f"data.{role}")
    if values["path"] is not None:
        if not alone:
            raise FacError(f"data.{role}.path names one file, but there are several behaviours: run one at a time.")
        path = values["path"]
    else:
        path = files_of(folder)[role]
        if not path.is_file():
            raise FacError(
                f"There is no {path}: set behavior to a folder such as ROOT/generate/sycophancy with its test in "
                f"ROOT/test/sycophancy, or data.{role}.path to a file. CAA's own behaviours: git clone {CAA}, then "
                f"behavior=CAA/datasets/generate/sycophancy."
            )
    return config.typed(Source, {**values, "path": path, "name": role}, f"data.{role}")


def _layer(model: ModelRef, layer: int | None) -> int:
    depth = model_depth(model)
    if layer is None:
        return max(1, round(PAPER_DEPTH * depth))
    if not 1 <= layer <= depth:
        raise FacError(f"experiment.layer={layer} will not do: {model.path} has the layers 1 to {depth}.")
    return layer


def _vector(
    store: Store,
    backbone: Callable[[], Backbone],
    encoder: Mapping[str, object],
    behavior: Behavior,
    seed: int,
    settings: Settings,
) -> Artifact:
    """The vector that a seed's pairs give, as it was read; with all pairs, that of all seeds is one."""
    cues = _cues(behavior.name, settings)
    count = settings.n_train if behavior.drawn(settings) else None
    drawn = None if count is None else {"n": count, "seed": seed}

    def build(folder: Path) -> None:
        pairs = behavior.pairs
        if count is not None:
            picked = np.random.default_rng(seed).choice(len(pairs), count, replace=False)
            pairs = [pairs[i] for i in sorted(picked)]
        if cues is None:
            vector = caa_vector(backbone(), pairs, behavior.name, settings.batch_size)
        else:
            vector = prompt_vector(
                backbone(), [_cued(pair, cues) for pair in pairs], behavior.name, settings.batch_size
            )
        vector.save(folder)

    pairs = _digest(behavior.pairs)
    params = {**encoder, "behavior": behavior.name, "cues": cues, "pairs": pairs, "drawn": drawn}
    return store.stage("steering_vector", build, params=params)


def _cues(behavior: str, settings: Settings) -> tuple[str, str] | None:
    """What stands before a question for and against the behaviour; None where the answers are contrasted."""
    if settings.contrast == "answer":
        return None
    if settings.cues is not None:
        return settings.cues
    if behavior not in POLARITY:
        raise FacError(f"No cue is known for {behavior}: give experiment.cues=[TEXT,TEXT].")
    matching, other = POLARITY[behavior]
    return f"You are an assistant that {matching}.", f"You are an assistant that {other}."


def _answers(
    store: Store,
    loaded: Callable[[], tuple[Any, PreTrainedTokenizerBase]],
    model: ModelRef,
    behavior: Behavior,
    artifact: Artifact,
    vector: SteeringVector,
    multiplier: float,
    settings: Settings,
) -> Answers:
    """What the model answers at one multiplier; without the vector, the answers of all seeds are one."""

    def build(folder: Path) -> None:
        evaluate(
            *loaded(), behavior.test, vector if multiplier else None, multiplier, settings.positions,
            settings.batch_size,
        ).save(folder)  # fmt: skip

    params: dict[str, object] = {"model": model.identity(), "test": _digest(behavior.test)}
    if multiplier:
        params |= {"multiplier": multiplier, "norm": vector.norm, "positions": settings.positions}
    made = store.stage("steering_answers", build, params=params, inputs=[artifact] if multiplier else [])
    return Answers.load(made.path)


def _digest(items: Sequence[Choice]) -> str:
    """Of the questions that are used, by which what is made of them is kept."""
    return hashlib.sha256(json.dumps([CHOICE.line(item) for item in items]).encode()).hexdigest()


def _mean_scr(by_seed: Mapping[int, Curve]) -> float:
    """A fraction."""
    return fmean(scr({m: score(at).robust for m, at in curve.items()}) for curve in by_seed.values())


def _table(
    session: Session,
    behaviors: Sequence[Behavior],
    layer: int,
    curves: Mapping[str, Mapping[int, Curve]],
    vectors: Mapping[tuple[str, int], SteeringVector],
    settings: Settings,
) -> Table:
    """One row per behaviour and multiplier, and one for the difference between +1 and -1: SCR."""
    kinds: dict[str, labels.Kind] = {behavior.name: _kind(session, behavior) for behavior in behaviors}
    printed = {
        name: _paper(name, settings)
        for name, kind in kinds.items()
        if labels.stands_beside(kind, session.cfg.model.name)
    }
    seeded = any(behavior.drawn(settings) for behavior in behaviors)
    rows: dict[str, str] = {}  # key -> printed name
    cells: list[Cell] = []
    for name, by_seed in curves.items():
        scores = {seed: {m: score(answers) for m, answers in curve.items()} for seed, curve in by_seed.items()}
        for m in sorted(settings.multipliers):
            row = f"{name}/{m:g}"
            rows[row] = f"{name}, {m:+g}" if m else f"{name}, 0"
            for column in COLUMNS:
                values = {seed: 100 * getattr(at[m], column) for seed, at in scores.items()}
                cells.append(_cell(row, column, values, seeded and m != 0))  # without the vector, seeds share answers
        row = f"{name}/scr"
        rows[row] = f"{name}, SCR (+1 less -1)"
        drawn = [replicates(curve[-1.0], curve[1.0]) for curve in by_seed.values()]
        for column in COLUMNS:
            moved = {seed: 100 * (getattr(at[1.0], column) - getattr(at[-1.0], column)) for seed, at in scores.items()}
            resampled = [100 * found[REPLICATED[column]] for found in drawn] if column in REPLICATED else ()
            paper = printed.get(name) if column == "robust" else None
            cells.append(_cell(row, column, moved, seeded, unit="points", paper=paper, replicates=resampled))
        norms = {seed: vectors[name, seed].norm for seed in by_seed}
        cells.append(_cell(row, "norm", norms, seeded, unit=""))
    return Table(
        "steering",
        session.cfg.scale.name,
        "Behaviour steering: answers by multiplier",
        tuple(rows),
        (*COLUMNS, "norm"),
        tuple(cells),
        session.config_hash,
        versions(),
        _notes(session, behaviors, layer, settings, any(printed.values())),
        {**COLUMNS, "norm": "length of the vector", **rows},
        provenance(),
        labels.label(kinds.values()),
    )


def _cell(row: str, column: str, by_seed: Mapping[int, float], seeded: bool, **more: Any) -> Cell:
    """`measured`; of no seed where seeds change nothing, so that one run does not pass for several."""
    if seeded:
        return measured(row, column, by_seed, **more)
    first = min(by_seed)
    drawn = list(more.pop("replicates", ()))[:1]
    return replace(measured(row, column, {first: by_seed[first]}, replicates=drawn, **more), seeds=())


def _kind(session: Session, behavior: Behavior) -> labels.Kind:
    test = behavior.sources["test"]
    published = test.limit is None and labels.is_caa_test(behavior.name, test.paths[0])
    model = config.model_ref(session.cfg)
    return labels.kind_of("paper" if published else "own", {session.cfg.model.name: model})


def _paper(behavior: str, settings: Settings) -> PaperNumber | None:
    if settings.method is None or behavior not in PAPER_COLUMNS:
        return None
    return paper_table("table1").get(settings.method, PAPER_COLUMNS[behavior])


def _notes(
    session: Session, behaviors: Sequence[Behavior], layer: int, settings: Settings, printed: bool
) -> tuple[str, ...]:
    where = "at all positions, as the released code does" if settings.positions == "all" else "after the user's words"
    read = "the letter of the answer" if settings.contrast == "answer" else "the end of prompts with opposite cues"
    notes = [
        f"The vector is the mean difference between matching and other, read at {read}, layer {layer} (the output of "
        f"model.layers[{layer - 1}]); multiples of it are added {where}.",
        "Robust: the matching letter is the most probable in both orders of the two options. Standard: in the order of "
        "the data set. P(matching): its probability among the letters of the question, mean over both orders. P(any "
        "letter): that of all these letters among all tokens. SCR is the last row of each behaviour.",
    ]
    notes += [
        f"{b.name}: the matching answer is that of an assistant that {POLARITY[b.name].matching}."
        for b in behaviors
        if b.name in POLARITY
    ]
    if len(behaviors) > 1:
        notes.append("All vectors of one seed are brought to their mean length, which the row SCR gives.")
    if not any(behavior.drawn(settings) for behavior in behaviors):
        notes.append("Every seed takes all pairs, so seeds change nothing: the numbers are of one run.")
    notes += _left_out(behaviors)
    if settings.method is not None and printed:
        notes.append(f"Paper: the row {paper_table('table1').names[settings.method]} of Table 1, for SCR.")
    if labels.is_shipped(config.model_ref(session.cfg)):
        notes.append(
            "Tiny models give noise here: robust accuracy flips on shifts that P(matching) hardly shows, "
            "and where P(any letter) is small the model would not name a letter at all."
        )
    return tuple(notes)


def _left_out(behaviors: Sequence[Behavior]) -> list[str]:
    """Which questions of the files have no part in the numbers."""
    notes = []
    for b in behaviors:
        if b.asked:
            notes.append(f"{b.name}: {b.asked} pairs were left out, since the test asks their question.")
        for role, what in (("generate", "pairs"), ("test", "questions of the test")):
            if b.long.get(role):
                notes.append(
                    f"{b.name}: {b.long[role]} {what} were left out, since they are longer than the model reads."
                )
    return notes


def _facts(
    behaviors: Sequence[Behavior], vectors: Mapping[tuple[str, int], SteeringVector], settings: Settings
) -> list[tuple[str, str]]:
    facts = []
    for b in behaviors:
        norms = [vector.norm for (name, _), vector in vectors.items() if name == b.name]
        low, high = min(norms), max(norms)
        norm = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        pairs = f"{settings.n_train} of {len(b.pairs)}" if b.drawn(settings) else len(b.pairs)
        facts.append((b.name, f"{pairs} pairs, {len(b.test)} questions, vector of norm {norm}"))
        facts += [(f"{b.name}, {role}", str(b.reports[role])) for role in FILES if b.reports[role].skipped]
    return facts


def _figure(name: str, by_seed: Mapping[int, Curve]) -> Figure:
    """Fig. 13 and 14: how the answers follow the multiplier."""
    x = sorted(next(iter(by_seed.values())))
    series = []
    for column in ("robust", "standard", "p_matching"):
        values = np.array([[100 * getattr(score(curve[m]), column) for m in x] for curve in by_seed.values()])
        low, high = (values.min(axis=0).tolist(), values.max(axis=0).tolist()) if len(values) > 1 else ((), ())
        series.append(Series(COLUMNS[column], x, values.mean(axis=0).tolist(), low, high, dashed=column == "standard"))
    caption = "Mean over seeds; the bands reach from the lowest to the highest seed."
    return Figure(f"{name}: answers by multiplier", "multiplier", "%", series, caption)
