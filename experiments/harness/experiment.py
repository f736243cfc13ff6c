"""What an experiment is: the trials that it makes, and how their records are viewed.

An experiment is one file in `experiments/` that ends in EXPERIMENT = Experiment(...). Everything else (its plan, what
the doctor looks at, how it runs and resumes, its records, tables and page) follows from its trials and steps.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fac.errors import FacError, closest
from fac.store import Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from experiments.harness.config import RunConfig
    from experiments.harness.graph import Graph, TrialSteps
    from experiments.harness.report import Page
    from fac.store import Store

BASE = "base"  # the method of a model that is tested as it is, untrained
Settings = tuple[tuple[str, Any], ...]  # dotted keys of the configuration, and their values


@dataclass(frozen=True)
class Trial:
    """One number to be: what a method adds for a task, what is trained on it, and how that is tested."""

    task: str
    method: str
    seed: int | None  # of training; None: nothing is trained, only coverage is measured
    data_seed: int  # the lab's world; of data sets, how rows are drawn
    generation: int  # seed of writing
    features_of: str  # names of conf/model: whose features are missing,
    writer: str  # ... who writes for them (or a name of conf/llm),
    trained: str  # ... and who is trained on what was written
    test: str = "test"  # test | validation
    round: int = 1  # of self-improvement: in the next, all parts are the model that FAC's rows of this one trained
    settings: Settings = ()  # what the trial changes of the run's configuration

    def setting(self, key: str) -> Any:
        """The value that the trial gives a key; None if it gives it none."""
        return dict(self.settings).get(key)


@dataclass(frozen=True)
class Record:
    """What a trial came to."""

    trial: Trial
    metrics: Mapping[
        str, float
    ]  # of its test, as fractions but for those that a task names; none if nothing is trained
    coverage: Mapping[str, Mapping[str, float]]  # by threshold: what of `fac.synthesis.coverage` was measured
    counts: Mapping[str, int]  # features relevant and missing; samples requested, refused, ..., added
    steps: Mapping[str, str]  # keys of its steps, by what they are to it
    run_id: str = ""  # of the tracked run
    notes: tuple[str, ...] = ()  # what a table must say of it: texts that were cut, rows that were left out
    # Bootstrap replicates of metrics over the test's items, [draws] each; not in the record's file.
    replicates: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for record.json."""
        told = asdict(replace(self, replicates={}))
        del told["replicates"]
        return json.loads(json.dumps(told))

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Record:
        """What `to_json` gave."""
        trial = dict(told["trial"])
        settings = tuple((key, _frozen(value)) for key, value in trial.pop("settings"))
        return cls(**{**told, "trial": Trial(**trial, settings=settings), "notes": tuple(told["notes"])})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Results:
    """What a plan came to, once all is built."""

    records: Sequence[Record]  # in the order of the trials
    trials: Mapping[Trial, TrialSteps]
    store: Store

    def folder(self, step: Step) -> Path:
        """Where a finished step lies."""
        return self.store.root / step.name / step.key

    def first(self, **fields_: Any) -> TrialSteps:
        """The steps of the first trial with these values."""
        return self.trials[next(matching(self.records, **fields_)).trial]


@dataclass(frozen=True)
class Plan:
    """What an experiment needs, and what it makes of it."""

    trials: Sequence[Trial]
    page: Callable[[Results], Page]
    steps: Sequence[Step] = ()  # that the page reads beside those of the trials


@dataclass(frozen=True)
class Experiment:
    """One entry of `fac experiments`."""

    name: str
    title: str
    plan: Callable[[RunConfig, Graph], Plan]
    options: type | None = None  # dataclass of what can be set as experiment.KEY, with its defaults
    # What it makes of the paper, by names such as "table9" and "figure4", which choose it as its own name does.
    paper: str | Sequence[str] = ()
    data: Sequence[str] | Mapping[str, Mapping[str, Any]] = ()  # roles of data sets of one's own that it reads
    short: Sequence[str] = ()  # options that may be given without "experiment.", such as budget=500
    settings: Mapping[str, Any] = field(default_factory=dict)  # other keys that it sets, over its scale's
    defaults: Sequence[Mapping[str, str]] = ()  # entries for its defaults list in Hydra


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Options of every table of trials: what it is scored on, and over what it is repeated (none: as the run says)."""

    test: Literal["test", "validation"] = "test"  # choices are made on validation, with another seeds.data
    worlds: tuple[int, ...] = ()  # the lab's worlds; of data sets: draws
    generations: tuple[int, ...] = ()  # seeds of writing

    @property
    def axes(self) -> dict[str, Any]:
        """For `grid`."""
        named = {"data_seed": self.worlds, "generation": self.generations}
        return {"test": self.test, **{axis: values for axis, values in named.items() if values}}


def grid(run: RunConfig, **axes: Any) -> list[Trial]:
    """All combinations of the axes, which are fields of Trial: a value or a sequence of values each.

    What is not named is the run's: its model in all three parts, its seeds (training: all of them), its test. Settings
    are mappings of dotted keys. A model that writes or is trained as "features_of" says is named by "features_of".
    """
    known = {f.name for f in fields(Trial)}
    if strays := axes.keys() - known:
        raise ValueError(f"a trial has no {', '.join(sorted(strays))}")
    # Asked only where no axis takes their place, so that a setting which changes nothing is found out.
    defaults: dict[str, Callable[[], Any]] = {
        "seed": lambda: run.seeds.training,
        "data_seed": lambda: run.seeds.data,
        "generation": lambda: run.seeds.generation,
        "features_of": lambda: run.model.name,
        "writer": lambda: "features_of",
        "trained": lambda: "features_of",
        "test": lambda: "test",
        "settings": dict,
    }
    given = {**{name: default() for name, default in defaults.items() if name not in axes}, **axes}
    names = [name for name in known_order() if name in given]
    trials: dict[Trial, None] = {}
    for values in itertools.product(*(_several(given[name]) for name in names)):
        held = dict(zip(names, values, strict=True))
        for part in ("writer", "trained"):
            if held[part] == "features_of":
                held[part] = held["features_of"]
        held["settings"] = tuple(sorted(held["settings"].items()))
        trials[Trial(**held)] = None
    return list(trials)


def possible(run: RunConfig, trials: Iterable[Trial]) -> list[Trial]:
    """The trials that can be: a model is tested untrained by tasks that can, once, since nothing of it is drawn.

    A method that needs the seed's own examples beside it is left out where it would stand in their place (protocol
    "alone"): the seed's examples in place of themselves are the baseline.
    Raises FacError for a task or method that there is not, and where nothing is left.
    """
    from experiments.tasks import TASKS
    from fac.synthesis.methods import METHODS

    methods = (BASE, *METHODS)
    first: dict[tuple[object, ...], Trial] = {}
    trials = list(trials)
    for trial in trials:
        if trial.task not in TASKS:
            raise FacError(f"experiment.tasks cannot be {trial.task}{closest(trial.task, TASKS)}.")
        if trial.method not in methods:
            raise FacError(f"experiment.methods cannot be {trial.method}{closest(trial.method, methods)}.")
        protocol = trial.setting(f"tasks.{trial.task}.protocol") or run.tasks[trial.task].protocol
        if protocol == "alone" and trial.method != BASE and METHODS[trial.method].beside_seed:
            continue
        if trial.method != BASE:
            first[trial,] = trial
        elif TASKS[trial.task].untrained and trial.seed is not None:
            first.setdefault((trial.task, BASE, trial.trained, trial.data_seed, trial.test), trial)
    if not first:
        methods, tasks = (",".join(dict.fromkeys(getattr(trial, of) for trial in trials)) for of in ("method", "task"))
        raise FacError(f"experiment.methods=[{methods}] leaves nothing to do for {tasks}: name baseline or another.")
    return list(first.values())


def known_order() -> list[str]:
    """Fields of Trial with the seeds last, so that trials which share most stand beside each other."""
    last = ("seed",)
    return [*(f.name for f in fields(Trial) if f.name not in last), *last]


def _several(value: Any) -> Sequence[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def sweep(key: str, values: Iterable[Any]) -> list[dict[str, Any]]:
    """Settings that give one key several values, for the axis "settings" of `grid`."""
    return [{key: value} for value in values]


def matching(records: Iterable[Record], **fields_: Any) -> Iterator[Record]:
    """The records whose trials have these values."""
    return (r for r in records if all(getattr(r.trial, name) == value for name, value in fields_.items()))
