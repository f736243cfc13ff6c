"""What a task brings: how its examples are drawn, trained on and tested.

A new task is a module that defines a `Task`, its line in `TASKS`, its prompts, and its settings in conf/tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.statistics import Replicates
from fac.data.examples import LoadReport
from fac.data.files import fingerprint
from fac.data.schemas import Schema
from fac.data.source import Source
from fac.errors import FacError
from fac.llm.base import ChatModel
from fac.llm.engines import Judge
from fac.model_ref import MODEL, MadeModel, ModelRef
from fac.prompts import Prompts
from fac.store import Step
from fac.synthesis.settings import Settings

METRICS, REPLICATES = "metrics.json", "replicates.npz"
CHOSEN = "chosen.json"  # of `Task.choose`: the settings, and a "note" for tables
ROLES = ("anchor", "seed", "human", "test")

Protocol = Literal["added", "alone"]
"""Whether what a method writes is added to the seed's examples or stands in their place."""

PLAIN: Mapping[str, str] = {"n": "count", "pairs": "count", "norm": "norm"}
"""Metrics of a test that are no fractions, with their units."""

Labelled = tuple[Any, int | None]  # an example of the task's schema, and the label that its data set gives it


@dataclass(frozen=True)
class Training:
    """What is trained. Folders hold examples (`fac.data.example_set`)."""

    model: ModelRef
    settings: Any  # the task's own dataclass
    seed: int
    fixed: tuple[Path, ...] = ()  # what every method trains on, such as toxicity's safe texts
    seed_examples: Path | None = None  # the seed's own examples; None where they are not trained on
    added: Path | None = None  # what the method adds; None where it adds nothing
    chosen: Path | None = None  # settings that were chosen on held-out examples (`Task.choose`)

    @property
    def parts(self) -> tuple[Path, ...]:
        """All that is trained on, one after the other."""
        return (*self.fixed, *(part for part in (self.seed_examples, self.added) if part is not None))


@dataclass(frozen=True)
class Testing:
    """What is tested, on what."""

    model: ModelRef
    settings: Any  # those of the training
    trained: Path | None  # None: the model as it is
    test: Path
    references: Mapping[str, Path] = field(default_factory=dict)  # what else the test needs
    judge: Judge | None = None  # who is asked about answers, where the test asks

    @property
    def folder(self) -> Path:
        """Of what was trained. Raises ValueError where nothing was."""
        if self.trained is None:
            raise ValueError("nothing was trained")
        return self.trained


@dataclass(frozen=True)
class TaskSteps:
    """The data of one task, as steps that end in sets of examples."""

    draw: Step  # the examples of all roles, what was left out, and what nothing may be trained on
    anchor: Step  # what the relevant features are found on
    seed: Step  # the seed data as the SAE reads them
    fixed: tuple[Step, ...]  # what every method trains on beside the seed's examples or its own
    seed_examples: Step  # the seed's own examples, to train on
    human: Step  # what people wrote about everything
    test: Step
    labelled: Step | None = None  # for the statistical judge
    validation: Step | None = None  # for settings that are chosen on held-out examples


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task."""

    name: str
    title: str  # such as "Toxicity"
    metric: str  # key of what `test` returns that tables show
    metric_title: str  # such as "AUPRC"
    paper: Mapping[str, str] = field(default_factory=dict)  # column of its number in the paper's tables that have it
    added_in_paper: bool = True  # the paper trains on the seed data and what is added; False: on what is added alone
    schema: Schema[Any]
    settings: type  # dataclass of the training settings
    sizes: type  # dataclass of the sizes in the lab's world
    stage: str  # name of the training step
    train: Callable[[Training, Path], None]  # writes what was trained to the folder
    test: Callable[[Testing, Path], dict[str, float]]  # metrics, as fractions but for PLAIN; its log in the folder
    read: Callable[[Source, LoadReport], Iterable[Labelled]]  # a data set as examples
    drawn_in_lab: Callable[[str, int, Any], list[Labelled]]  # (role, world, sizes): examples of the lab's world
    unit: str = "percent"
    fingerprint: Callable[[Source], Mapping[str, Any]] = fingerprint  # all of a data set that decides what `read` gives
    note: str = ""  # printed below a table
    warning: str = ""  # printed above samples: that they say what is harmful
    also: Mapping[str, str] = field(default_factory=dict)  # further metrics that tables show, with their titles
    in_lab: Mapping[str, Any] = field(default_factory=dict)  # fields that are otherwise on the lab's examples
    from_base: bool = False  # trains the base model, not the instruct model
    passes: int = 1  # forward passes that the test makes of each example, for estimates
    untrained: tuple[str, ...] = ()  # settings that its test of an untrained model reads (method "base"); none: no such
    fixed: tuple[str, ...] = ()  # roles that every method trains on
    seed_role: str = "seed"  # role of the seed's own examples
    roles: tuple[str, ...] = ROLES  # the data sets that it needs
    may_have: tuple[str, ...] = ("validation",)  # those that it can do without
    # Written examples as they are trained on, where they need more than was written: a step like that of synthesis.
    complete: Callable[[Step, ChatModel, Prompts, Settings], Step] | None = None
    # Settings that are to be chosen on held-out examples, as a step; None where all are given.
    choose: Callable[[TaskSteps, ModelRef, Any], Step | None] | None = None
    # Writes what was trained (a folder, of this model) to a folder as a model that writes and is read; None: it cannot.
    as_model: Callable[[Path, ModelRef, Path], None] | None = None
    # What a frozen model says of examples, as a step that stands in their place where only a head is trained on it
    # (settings.kept_states); None: no such.
    states: Callable[[ModelRef, Any, Step], Step] | None = None
    # What the test needs beside its examples, from (data, evaluation); with a "reference" a judge is asked, too.
    references: Callable[[TaskSteps, Any], dict[str, Step]] | None = None
    evaluation: type | None = None  # dataclass of how it is tested on data sets, where there is a choice


def as_read(task: Task, model: ModelRef, settings: Any, examples: Step) -> Step:
    """The examples as training and test read them: with what the frozen model says of them, where that is kept."""
    if task.states is None or not getattr(settings, "kept_states", False):
        return examples
    return task.states(model, settings, examples)


def train_step(
    task: Task,
    model: ModelRef,
    settings: Any,
    seed: int,
    fixed: Sequence[Step],
    seed_examples: Step | None,
    added: Step | None,
    chosen: Step | None = None,
) -> Step:
    """Train a task's model on examples; `chosen` is what `Task.choose` gave."""
    parts = {"seed_examples": seed_examples, "added": added}
    named = {name: step for name, step in parts.items() if step is not None}
    decided = settings.identity() if hasattr(settings, "identity") else asdict(settings)
    params = {"task": task.name, "model": model, "seed": seed, "trained_on": list(named), **decided}
    named |= {} if chosen is None else {"chosen": chosen}
    build = partial(_train, task.name, Training(model, settings, seed), len(fixed), tuple(named))
    return Step(task.stage, build, params, (*fixed, *named.values()), resumable=True, parallel=True)


def _train(task: str, training: Training, fixed: int, names: Sequence[str], folder: Path, *parts: Path) -> None:
    from experiments.tasks import TASKS

    named = dict(zip(names, parts[fixed:], strict=True))
    TASKS[task].train(replace(training, fixed=parts[:fixed], **named), folder)


def trained_model(task: Task, model: ModelRef, trained: Step, store: Path, name: str) -> MadeModel:
    """What was trained from `model`, as a model called `name` that is measured, writes and is trained as any other.

    Raises FacError if the task makes no such model, or if nothing but a head was trained.
    """
    mode = trained.params.get("mode")
    if task.as_model is None or mode == "head":
        why = "trains a head alone" if mode == "head" else "trains no model that writes"
        raise FacError(
            f"The {task.name} task {why}, so there is no improved model: train toxicity by LoRA "
            f"(tasks.toxicity.train.mode=lora)."
        )
    step = Step("trained_model", partial(_as_model, task.name, model), {"task": task.name, "model": model}, (trained,))
    return MadeModel(name, chat_template=model.chat_template, dtype=model.dtype, step=step, store=store, origin=model)


def _as_model(task: str, model: ModelRef, folder: Path, trained: Path) -> None:
    from experiments.tasks import TASKS

    write = TASKS[task].as_model
    assert write is not None
    write(trained, model, folder / MODEL)


def scores_step(
    task: Task,
    model: ModelRef,
    settings: Any,
    trained: Step | None,
    test: Step,
    references: Mapping[str, Step],
    judge: Judge | None,
) -> Step:
    """Test what was trained, or the model as it is (`load_metrics`)."""
    names = sorted(references)
    params = {
        "task": task.name,
        "judge": judge if references else None,
        # what was trained holds them; a model that is tested as it is does not
        "untrained": None
        if trained is not None
        else {"model": model, **{key: getattr(settings, key) for key in task.untrained}},
    }
    tested = () if trained is None else (trained,)
    build = partial(_test, task.name, model, settings, judge, trained is not None, tuple(names))
    inputs = (*tested, test, *(references[name] for name in names))
    return Step("scores", build, params, inputs, resumable=True, parallel=True)


def _test(
    task: str,
    model: ModelRef,
    settings: Any,
    judge: Judge | None,
    is_trained: bool,
    names: Sequence[str],
    folder: Path,
    *parts: Path,
) -> None:
    from experiments.tasks import TASKS

    trained, (test, *others) = (parts[0], parts[1:]) if is_trained else (None, parts)
    testing = Testing(model, settings, trained, test, dict(zip(names, others, strict=True)), judge)
    metrics = TASKS[task].test(testing, folder)
    (folder / METRICS).write_text(json.dumps(metrics), encoding="utf-8")


def load_metrics(folder: Path) -> dict[str, float]:
    """What a test found."""
    return json.loads((folder / METRICS).read_text(encoding="utf-8"))


def keep_replicates(folder: Path, replicates: Replicates) -> None:
    """Bootstrap replicates of the metrics over the test's items, [draws] each; every trial has the same draws."""
    np.savez(folder / REPLICATES, **replicates)  # type: ignore[arg-type]


def load_replicates(folder: Path) -> Replicates:
    """What `keep_replicates` wrote; nothing where a test keeps none."""
    if not (folder / REPLICATES).is_file():
        return {}
    with np.load(folder / REPLICATES) as held:
        return dict(held)
