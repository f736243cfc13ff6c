"""Where a task's data come from: the lab's world or data sets, drawn in one step, each role a step behind it.

A draw's folder holds ROLE.jsonl (an example's JSON value and its label a line), notes, and what nothing may be trained
on. No example stands in a role that asks what the test, the validation set or AlpacaEval asks.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from eval.alpaca import alpaca_eval_digests
from experiments.tasks.base import Labelled, Task, TaskSteps
from fac.data.example_set import save_examples
from fac.data.examples import LoadReport
from fac.data.held_out import HeldOut
from fac.data.schemas import Schema
from fac.data.source import Source
from fac.errors import FacError
from fac.lab.world.corpora import world_digest
from fac.store import Step

HELD_OUT = ("test", "validation")
NOTES = "notes.json"


class DataConfig(Protocol):
    """What of a task's configuration says where its data come from."""

    @property
    def sizes(self) -> Any: ...  # of the lab's world; None: data sets
    @property
    def pool(self) -> int | None: ...  # human examples to choose from, in the lab; None: those of the role
    @property
    def data(self) -> Mapping[str, Source]: ...  # by ROLE or ROLE_NAME, in order
    @property
    def sample(self) -> Mapping[str, int]: ...  # by role; a role that is not named gives all its examples


def task_steps(task: Task, config: DataConfig, data_seed: int, test: str = "test") -> TaskSteps:
    """The data of a task: `data_seed` is the lab's world, or draws examples of data sets; `test` may be "validation".

    Raises FacError where the configuration has no such test set.
    """
    roles = [role for role in (*task.roles, *task.may_have) if config.sizes is not None or sets_of(config, role)]
    if test not in roles:
        raise FacError(f"There is no {test} set: set tasks.{task.name}.data.{test}.path, or experiment.test=test.")
    if config.sizes is not None:
        params: dict[str, Any] = {"task": task.name, "test": test, "world": world_digest, "seed": data_seed}
        draw = Step("draw", partial(_from_lab, task, config.sizes, data_seed, test), {**params, "sizes": config.sizes})
    else:
        read = {name: source for role in roles for name, source in sets_of(config, role).items()}
        sample = {role: config.sample[role] for role in roles if role in config.sample}
        params = {
            "task": task.name,
            "test": test,
            "sources": [[name, partial(_fingerprint, task, name, source)] for name, source in read.items()],
            "sample": sample,
            "seed": data_seed if sample else None,
        }
        draw = Step("draw", partial(_from_files, task, read, sample, data_seed, test, tuple(roles)), params)

    def of(role: str) -> Step:
        return Step(
            "examples", partial(_of_role, task.schema, role), {"role": role, "schema": task.schema.name}, (draw,)
        )

    anchor = of("anchor")
    told = [source.label is not None for source in sets_of(config, "anchor").values()]
    labels = anchor if told and all(told) else None  # the anchor's own, which are not measured twice
    return TaskSteps(
        draw,
        anchor=anchor,
        seed=of("seed"),
        fixed=tuple(map(of, task.fixed)),
        seed_examples=of(task.seed_role),
        human=of("human"),
        test=of(test),
        labelled=of("labelled") if "labelled" in roles else labels,
        validation=of("validation") if "validation" in roles else None,
    )


def sets_of(config: DataConfig, role: str) -> dict[str, Source]:
    """The data sets of one role, in order: `anchor`, `anchor_more`, ..."""
    return {name: source for name, source in config.data.items() if name == role or name.startswith(f"{role}_")}


def load_notes(draw: Path) -> dict[str, bool]:
    """What a draw has to say, and whether it tells of a loss: a table carries those."""
    return json.loads((draw / NOTES).read_text(encoding="utf-8"))


def _of_role(schema: Schema[Any], role: str, folder: Path, draw: Path) -> None:
    lines = (draw / f"{role}.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    save_examples(schema, [schema.load(value) for value, _ in values], folder, [label for _, label in values])


def _save(task: Task, drawn: Mapping[str, Sequence[Labelled]], notes: Mapping[str, bool], folder: Path) -> None:
    for role, examples in drawn.items():
        lines = (json.dumps([task.schema.dump(example), label]) + "\n" for example, label in examples)
        (folder / f"{role}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / NOTES).write_text(json.dumps(notes), encoding="utf-8")


# The lab's world


def _from_lab(task: Task, sizes: Any, world: int, test: str, folder: Path) -> None:
    drawn = {role: task.drawn_in_lab(role, world, sizes) for role in (*task.roles, *task.may_have)}
    different = list({task.schema.line(example): (example, label) for example, label in drawn[test]}.values())
    notes = {}
    if len(different) < len(drawn[test]):  # the grammar writes some of them twice
        told = f"{len(different):,} different examples are scored of {len(drawn[test]):,} that were drawn for the test"
        notes[f"{task.name}: {told}"] = True
    held_out(task, *(drawn[role] for role in HELD_OUT)).save(folder)
    _save(task, {**drawn, test: different}, notes, folder)


def pool_step(task: Task, config: DataConfig, world: int, data: TaskSteps) -> Step:
    """The human examples that methods of selection choose from, as a set: those of the role `human`.

    In the lab there are more of them (`tasks.NAME.pool`), drawn like that role, less what is held out.
    """
    if config.sizes is None or config.pool is None:
        return data.human
    sizes = replace(config.sizes, human=config.pool)
    params = {"task": task.name, "world": world_digest, "seed": world, "sizes": sizes, "schema": task.schema.name}
    return Step("pool", partial(_draw_pool, task, sizes, world), params, (data.draw,))


def _draw_pool(task: Task, sizes: Any, world: int, folder: Path, draw: Path) -> None:
    held, schema = HeldOut.load(draw), task.schema
    drawn = [example for example, _ in task.drawn_in_lab("human", world, sizes) if schema.asked(example) not in held]
    different = {schema.line(example): example for example in drawn}
    save_examples(schema, list(different.values()), folder)


# Data sets


def _fingerprint(task: Task, name: str, source: Source) -> object:
    with named(f"tasks.{task.name}.data.{name}"):
        return task.fingerprint(source)


def _from_files(
    task: Task,
    read: Mapping[str, Source],
    sample: Mapping[str, int],
    seed: int,
    test: str,
    roles: Sequence[str],
    folder: Path,
) -> None:
    """Draw the examples of every role.

    Whichever held-out set is scored, both are left out of what is trained on, so that choices made on the validation
    set are made with the training set that is tested. The labelled texts, which nothing is trained on, may be the
    validation's where the test is scored.
    """
    notes: dict[str, bool] = {}
    drawn: dict[str, list[Labelled]] = {}
    whole: dict[str, HeldOut] = {}  # the held-out sets, before examples are drawn from them
    for role in sorted(roles, key=lambda role: [*HELD_OUT, role].index(role)):  # the test, validation, all others
        examples = _read(task, role, read, notes)
        if role != "test":
            others = [held for name, held in whole.items() if role != "labelled" or name in ("test", test)]
            examples = _not_held_out(task, role, examples, others, notes)
        if role in HELD_OUT:
            whole[role] = held_out(task, examples)
        drawn[role] = _sampled(task, role, examples, sample.get(role), seed)
    known = {task.schema.line(example) for example, _ in drawn[task.seed_role]}
    drawn["human"] = [(e, label) for e, label in drawn["human"] if task.schema.line(e) not in known]
    if task.fixed:  # a classifier's: every example has a label
        drawn |= {role: [(e, 0) for e, _ in drawn[role]] for role in task.fixed}
        drawn[task.seed_role] = [(example, 1) for example, _ in drawn[task.seed_role]]
        for role in (test, "labelled"):
            if any(label is None for _, label in drawn.get(role, ())):
                raise FacError(f"The {role} set of {task.name} has no labels: set tasks.{task.name}.data.{role}.label.")
    digests = frozenset[bytes]().union(*(held.normal for held in whole.values()))
    HeldOut(digests, alpaca_eval_digests()).save(folder)
    _save(task, drawn, notes, folder)


def _read(task: Task, role: str, read: Mapping[str, Source], notes: dict[str, bool]) -> list[Labelled]:
    examples: list[Labelled] = []
    for name, source in read.items():
        if name == role or name.startswith(f"{role}_"):
            report = LoadReport()
            with named(f"tasks.{task.name}.data.{name}"):
                examples += task.read(source, report)
            notes[f"{task.name}, {name}: {report}"] = bool(report.notes(name))
    return examples


def _not_held_out(
    task: Task, role: str, examples: list[Labelled], others: Sequence[HeldOut], notes: dict[str, bool]
) -> list[Labelled]:
    """Examples that ask nothing that a held-out set asks, nor what AlpacaEval asks (RM-Bench's chat prompts do)."""
    kept = [(e, label) for e, label in examples if not any(task.schema.asked(e) in held for held in others)]
    if len(kept) < len(examples):
        left = len(examples) - len(kept)
        notes[f"{task.name}, {role}: {left} rows of held-out sets or of AlpacaEval left out"] = True
    if not kept:
        raise FacError(
            f"Every row of tasks.{task.name}.data.{role} stands in the test, the validation set or AlpacaEval, which "
            f"nothing is trained on: name another data set."
        )
    return kept


def held_out(task: Task, *parts: Sequence[Labelled]) -> HeldOut:
    """What these examples ask, and AlpacaEval."""
    return HeldOut.of((task.schema.asked(example) for part in parts for example, _ in part), alpaca_eval_digests())


def _sampled(task: Task, role: str, examples: list[Labelled], count: int | None, seed: int) -> list[Labelled]:
    if count is None:
        return examples
    if count > len(examples):
        raise FacError(
            f"tasks.{task.name}.sample.{role}={count} will not do: its data sets have {len(examples)} rows; lower it."
        )
    return random.Random(f"{seed}/{task.name}/{role}").sample(examples, count)


@contextmanager
def named(key: str) -> Iterator[None]:
    """Failures of the source at `key` name that place, of which `fac.data` knows the last two parts only."""
    name = key.rpartition(".")[2]
    try:
        yield
    except FacError as error:
        way_out = f" Or do without it: {key}=null." if name.startswith("validation") else ""
        raise FacError(re.sub(rf"(?<![\w.])data\.{name}\b", key, str(error)) + way_out) from None
