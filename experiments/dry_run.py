"""The plan of an experiment: its stages and cells, and which of them the store holds already. Nothing is done.

    fac experiment=main_results scale=paper dry_run=true

The experiment's own code is walked, branch by branch (`experiments.walk`), so what is shown as stored was found under
the very key that the real run will ask for. A branch ends at its first stage that is not stored: what comes behind it
is printed from the layout below, since its keys are not known before that stage is done. An experiment without a layout
is walked once, and its stages are printed in their order. Knows: how the cells of each experiment are laid out, and
which stage comes after which. Does not know: what a stage does, or what decides its key.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments import config
from experiments.cells import stages_of
from experiments.job import Job
from experiments.main_results import task_plans
from experiments.tasks import TASKS
from experiments.walk import NotStored, Walk, walking
from fac.errors import FacError

STORED, TRAINED, OPEN = "stored", "trained", "to do"
Line = tuple[str, str]  # section and name of one line of cells; its columns are the seeds
BASELINE = "baseline"


@dataclass(frozen=True)
class Node:
    """One stage of the graph, or several that go together."""

    name: str
    needs: str
    what: str


WRITTEN = "table.json, table.md, report.html"
GRAPH = (
    Node("data", "", "the corpora and rows of the task"),
    Node("sae", "data", "trained on the anchor (sae=train), otherwise given"),
    Node("features", "data, sae", "g_i of the anchor and the seed data, top spans"),
    Node("interpret", "features", "explain and judge every feature that the anchor activates"),
    Node("reference", "data", "answers to compare with, where the task compares"),
    Node("write", "interpret", "step 1, step 2: candidates, each measured"),
    Node("rows", "write", "what the method adds, answered where the task asks for answers"),
    Node("coverage", "rows, sae", "g_i of the added rows"),
    Node("train", "data, rows", "one classifier, reward model, vector or adapter per cell"),
    Node("test", "train, data", "one set of metrics per cell"),
    Node("table", "test, coverage", WRITTEN),
)
GIVEN = "trained on these texts (sae=train) or imported, otherwise given"
MEASURING: Mapping[str, Mapping[str, str]] = {  # experiments without a layout: their stages before the table, in order
    "alpaca_eval": {"judged": "preferences of the judge, where no annotations are given"},
    "coverage": {
        "corpus": "the anchor and the seed texts",
        "sae": GIVEN,
        "features": "g_i of both, top spans",
        "diversity": "the other measures of variety",
    },
    "matching": {
        "world": "the shared texts, drawn",
        "corpus": "the shared texts, from a data set",
        "sae": GIVEN,
        "features": "g_i of every model",
        "matching": "every pair of models, and its control",
    },
    "reward": {
        "pairs": "the pairs to train on and to test on",
        "reward": "one reward model per seed",
        "scores": "its accuracy by section",
    },
    "sae": {
        "mixture": "the texts of all parts, each once",
        "mixture_split": "nine tenths to train on, one held out",
        "sae": GIVEN,
        "sae_quality": "reconstruction of the held-out texts",
    },
    "steering": {
        "steering_vector": "one vector per behaviour and seed",
        "steering_answers": "its answers at every multiplier",
    },
}
ORDER = {node.name: place for place, node in enumerate(GRAPH)}


@dataclass(frozen=True)
class Branch:
    """A part of an experiment that can be walked alone: its settings, and the cells that it will come to."""

    section: str
    settings: Mapping[str, Any]
    seeds: Sequence[int]
    lines: Sequence[Line]


@dataclass(frozen=True)
class Layout:
    """How the cells of an experiment lie: its branches, and the line that a job stands in."""

    branches: Callable[[DictConfig], list[Branch]]
    line: Callable[[Job], Line]


@dataclass
class Section:
    """What the walks of one section came to."""

    stops: list[int] = field(default_factory=list)  # place in GRAPH, one per branch
    reasons: dict[str, None] = field(default_factory=dict)  # sentences, each once
    keys: dict[str, set[str]] = field(default_factory=dict)  # node -> what is stored of it


def report(cfg: DictConfig) -> str:
    """The plan as text. Raises FacError for a value that is not set."""
    name = cfg.experiment.name
    if name not in LAYOUTS:
        return "\n".join(_measuring(cfg))
    layout = LAYOUTS[name]
    branches = layout.branches(cfg)
    cells = {(*line, seed): OPEN for branch in branches for line in branch.lines for seed in branch.seeds}
    sections: dict[str, Section] = {}
    for branch in branches:
        section = sections.setdefault(branch.section, Section())
        if section.stops and section.stops[0] < ORDER["write"]:
            continue  # up to writing, the branches of a section share their stages
        walk, stop, reason = _walked(cfg, branch.settings)
        _note(section, walk, stop, reason)
        for job, left in walk.cells:
            cells[*layout.line(job), job.seed] = _state(left)
    return "\n".join([*_head(cfg, cells), *_graph(), *_body(cfg, sections, cells), *_foot(sections, cells)])


def _walked(cfg: DictConfig, settings: Mapping[str, Any]) -> tuple[Walk, str | None, str | None]:
    """(the walk, the stage that it ended at, or the sentence that it ended with)."""
    cfg = cfg.copy()
    for key, held in settings.items():
        OmegaConf.update(cfg, key, held)
    with walking() as walk:
        try:
            importlib.import_module(cfg.experiment.module).run(cfg)
        except NotStored as stop:
            return walk, stop.name, None
        except FacError as error:  # such as a file that is not there yet
            return walk, None, str(error)
    raise AssertionError(f"{cfg.experiment.module} asked for no cells")


def _measuring(cfg: DictConfig) -> list[str]:
    """The stages of an experiment without a layout, with what is stored before the first that is not."""
    walk, stop, reason = _walked(cfg, {})
    found, lacking = [event.name for event in walk.found], {stop}
    for job, left in walk.cells:
        lacking.update(left)
        found += [stage for stage in stages_of(job) if stage not in left]
    stages = {**MEASURING[cfg.experiment.name], "table": WRITTEN}
    reached = max((place for place, stage in enumerate(stages) if stage in (*found, *lacking)), default=-1)
    rows = []
    for place, (stage, what) in enumerate(stages.items()):
        count = found.count(stage)
        state = OPEN if stage in lacking or place > reached else STORED if count else "-"  # -: done without
        rows.append([state, stage, f"{what} ({count} stored)" if count else what])
    refused = [] if reason is None else [f"  here it would stop: {reason}"]
    head = f"Plan of {_told(cfg)}. Store: {config.plain(cfg, 'paths.store')}"
    return [head, "", "stages", *_aligned(rows), *refused, "", "Nothing was run or written."]


def _note(section: Section, walk: Walk, stop: str | None, reason: str | None) -> None:
    place = 0
    for event in walk.found:
        place = _place(event.name, place)
        section.keys.setdefault(GRAPH[place].name, set()).add(event.key)
    if reason is not None:
        section.reasons[reason] = None
    section.stops.append(place if stop is None else _place(stop, place))


def _place(stage: str, reached: int) -> int:
    """Where in GRAPH a stage of this name stands, in a walk that has reached `reached`. Some names come twice."""
    if stage in ("sae", "interpret", "write", "table"):
        return ORDER[stage]
    if stage == "features":
        return ORDER["features"] if reached < ORDER["interpret"] else ORDER["coverage"]
    if stage == "answers" and reached == ORDER["interpret"]:
        return ORDER["reference"]
    return ORDER["data"] if reached < ORDER["features"] else ORDER["rows"]


def _state(left: Sequence[str]) -> str:
    return (STORED, TRAINED, OPEN)[len(left)]


# ----------------------------------------------------------------------------------------------------------- layouts


def _lab(cfg: DictConfig) -> list[Branch]:
    rows, protocols, seeds = _lists(cfg, "experiment.rows", "experiment.protocols", "train.seeds")
    shorter = {BASELINE: protocols[:1], "seed_twice": [p for p in protocols if p != "alone"]}  # as experiments.lab has
    return [
        Branch("toxicity", {"experiment.rows": [row]}, seeds, [("toxicity", f"{row}, {p}") for p in used])
        for row in rows
        for used in [shorter.get(row, protocols)]
    ]


def _main_results(cfg: DictConfig) -> list[Branch]:
    (rows,) = _lists(cfg, "experiment.rows")
    return [
        Branch(name, {"experiment.tasks": [name], "experiment.rows": [row]}, seeds, [(name, row)])
        for plan in task_plans(cfg)
        for name in [plan.task.name]
        for row in rows
        if (seeds := plan.cells_of(row))
    ]


def _worlds(cfg: DictConfig) -> list[Branch]:
    rows, worlds, generations = _lists(cfg, *(f"experiment.{key}" for key in ("rows", "worlds", "generations")))
    return [
        Branch(
            plan.task.name,
            {"experiment.tasks": [plan.task.name], "experiment.worlds": [world], "experiment.generations": [drawn]},
            plan.seeds,
            [(plan.task.name, f"{row}, world {world}, generation {drawn}") for row in rows],
        )
        for plan in task_plans(cfg)
        for world in worlds
        for drawn in generations
    ]


def _of_world(job: Job) -> Line:
    world, _, generation = job.group.partition("/")
    return job.task, f"{job.row}, world {world}, generation {generation}"


def _cross_model(cfg: DictConfig) -> list[Branch]:
    sources, writers, trained, tasks = _lists(
        cfg, *(f"experiment.{k}" for k in ("sources", "writers", "trained", "tasks"))
    )
    (seeds,) = _lists(cfg, f"tasks.{tasks[0]}.seeds")
    start = [(BASELINE, f"{target} trained") for target in trained]
    return [
        Branch(
            f"features of {source}",
            {"experiment.sources": [source], "experiment.writers": [writer]},
            seeds,
            [*start, *(_transferred(f"{source}+{writer}", target) for target in trained)],
        )
        for source in sources
        for writer in writers
    ]


def _transferred(row: str, target: str) -> Line:
    source, _, writer = row.partition("+")
    return f"features of {source}", f"{writer} writes, {target} trained"


def _lists(cfg: DictConfig, *keys: str) -> list[list[Any]]:
    return [config.value(cfg, key, list) for key in keys]


LAYOUTS = {
    "lab": Layout(_lab, lambda job: (job.task, f"{job.row}, {job.group}")),
    "main_results": Layout(_main_results, lambda job: (job.task, job.row)),
    "worlds": Layout(_worlds, _of_world),
    "cross_model": Layout(
        _cross_model,
        lambda job: (BASELINE, f"{job.group} trained") if job.row == BASELINE else _transferred(job.row, job.group),
    ),
}


# ---------------------------------------------------------------------------------------------------------- printing


def _head(cfg: DictConfig, cells: Mapping[tuple[str, str, int], str]) -> list[str]:
    return [f"Plan of {_told(cfg)}: {len(cells)} cells. Store: {config.plain(cfg, 'paths.store')}", ""]


def _told(cfg: DictConfig) -> str:
    return f"experiment={cfg.experiment.name} model={cfg.model.name} scale={cfg.scale.name}"


def _graph() -> list[str]:
    return [
        "stages",
        *_aligned([[node.name, f"needs {node.needs}" if node.needs else "", node.what] for node in GRAPH]),
    ]


def _body(cfg: DictConfig, sections: Mapping[str, Section], cells: Mapping[tuple[str, str, int], str]) -> list[str]:
    lines = []
    for name in dict.fromkeys([*(section for section, _, _ in cells), *sections]):
        lines += ["", name]
        if name in sections:
            lines += _stages(sections[name], _unused(cfg, name))
        lines += _matrix({(line, seed): state for (at, line, seed), state in cells.items() if at == name})
    return lines


def _unused(cfg: DictConfig, section: str) -> set[str]:
    """Nodes that a section does without."""
    compares = section in TASKS and TASKS[section].others is not None
    return {name for name, used in (("sae", cfg.sae.train is not None), ("reference", compares)) if not used}


def _stages(section: Section, unused: set[str]) -> list[str]:
    """The stages before the cells: stored for all branches of the section, or not, with how many outputs there are."""
    rows: dict[str, list[str]] = {STORED: [], OPEN: []}
    for place, node in enumerate(GRAPH[: ORDER["train"]]):
        count = len(section.keys.get(node.name, ()))
        if all(stop > place for stop in section.stops):
            rows[STORED] += [f"{node.name} ({count})"] if count else []
        elif node.name not in unused:
            rows[OPEN].append(f"{node.name} ({count} stored)" if count else node.name)
    return [
        *(f"  {state:6}  {', '.join(names)}" for state, names in rows.items() if names),
        *(f"  here it would stop: {reason}" for reason in section.reasons),
    ]


def _matrix(cells: Mapping[tuple[str, int], str]) -> list[str]:
    if not cells:
        return []
    lines, seeds = (list(dict.fromkeys(key)) for key in zip(*cells, strict=True))
    rows = [["cells", *(f"seed {seed}" for seed in seeds)]]
    rows += [[line, *(cells.get((line, seed), "") for seed in seeds)] for line in lines]
    return _aligned(rows)


def _foot(sections: Mapping[str, Section], cells: Mapping[tuple[str, str, int], str]) -> list[str]:
    stored = sum(state == STORED for state in cells.values())
    whole = stored == len(cells) and all(stop == ORDER["table"] for s in sections.values() for stop in s.stops)
    rest = "everything is stored, the run will only write its table" if whole else f"{len(cells) - stored} to do"
    return ["", f"{stored} of {len(cells)} cells stored: {rest}. Nothing was run or written."]


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{e:{w}}" for e, w in zip(row, widths, strict=True)).rstrip() for row in rows]
