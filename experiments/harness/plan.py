"""What a run would do: its steps by name, stored or to do, and its trials. Nothing is done.

    fac experiment=main_results scale=paper dry_run=true

Keys of steps are known before anything runs, so what is listed as to do is exactly what the run would build.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.harness.experiment import Trial
from fac.errors import FacError
from fac.store import Step, Store, missing

STORED, TO_DO, UNKNOWN = "stored", "to do", "?"


@dataclass(frozen=True)
class Planned:
    """What is there of the steps that some targets need, and what is not."""

    stored: Mapping[str, int]  # finished steps by name, in the order in which they come
    to_do: Mapping[str, int]
    stops: tuple[str, ...] = ()  # sentences of what cannot be planned, since something is not there
    left: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)  # name and key of those to do


def planned(targets: Iterable[Step], store: Store) -> Planned:
    """Look each target up, and what it needs where it is not finished."""
    stored: dict[tuple[str, str], None] = {}
    left: dict[tuple[str, str], None] = {}
    order: dict[str, None] = {}
    stops: dict[str, None] = {}
    for target in targets:
        try:
            steps = missing([target], store)
        except FacError as error:
            stops[str(error)] = None
            continue
        for step in _ancestry(target):
            order.setdefault(step.name, None)
        left |= dict.fromkeys((step.name, step.key) for step in steps)
        for step in _ancestry(target):
            if store.find(step):
                stored[step.name, step.key] = None
    return Planned(_by_name(stored, order), _by_name(left, order), tuple(stops), frozenset(left))


def _ancestry(step: Step) -> list[Step]:
    """A step behind all that it needs, each object once."""
    found: dict[int, Step] = {}

    def visit(part: Step) -> None:
        if id(part) not in found:
            for before in part.before:
                visit(before)
            found[id(part)] = part

    visit(step)
    return list(found.values())


def _by_name(places: Iterable[tuple[str, str]], order: Iterable[str]) -> dict[str, int]:
    counts = Counter(name for name, _ in places)
    return {name: counts[name] for name in order if counts[name]}


def report(
    title: str,
    trials: Mapping[Trial, Sequence[Step]],
    others: Sequence[Step],
    store: Store,
    stops: Sequence[str] = (),
) -> str:
    """The plan as text: `trials` with their targets, steps that are needed beside them.

    `stops` are sentences of trials that could not even be laid out.
    """
    targets = [*(step for steps in trials.values() for step in steps), *others]
    found = planned(targets, store)
    states = {trial: _state(steps, store) for trial, steps in trials.items()}
    names = list(dict.fromkeys([*found.stored, *found.to_do]))
    rows = [["steps", STORED, TO_DO]]
    rows += [[name, str(found.stored.get(name, 0)), str(found.to_do.get(name, 0))] for name in names]
    lines = [f"Plan of {title}: {len(trials)} trials. Store: {store.root}", "", *aligned(rows)]
    lines += [f"  here it would stop: {stop}" for stop in dict.fromkeys([*stops, *found.stops])]
    lines += _matrix(states)
    count, done = sum(found.to_do.values()), sum(state == STORED for state in states.values())
    if found.stops or stops:
        rest = "the rest cannot be known before that is mended"
    elif count:
        rest = f"{count} steps to do"
    else:
        rest = "everything is stored, the run will only write its table"
    return "\n".join([*lines, "", f"{done} of {len(trials)} trials stored; {rest}. Nothing was run or written."])


def _state(steps: Sequence[Step], store: Store) -> str:
    try:
        return STORED if not missing(steps, store) else TO_DO
    except FacError:
        return UNKNOWN


def _matrix(states: Mapping[Trial, str]) -> list[str]:
    """A line for trials that differ in their training seed only, a block for each task."""
    lines: list[str] = []
    for task in dict.fromkeys(trial.task for trial in states):
        held = {trial: state for trial, state in states.items() if trial.task == task}
        seeds = list(dict.fromkeys(trial.seed for trial in held))
        labels = labelled(held)
        rows = [[task, *("coverage" if seed is None else f"seed {seed}" for seed in seeds)]]
        for label in dict.fromkeys(labels.values()):
            by_seed = {trial.seed: state for trial, state in held.items() if labels[trial] == label}
            rows.append([label, *(by_seed.get(seed, "") for seed in seeds)])
        lines += ["", *aligned(rows)]
    return lines


def labelled(trials: Iterable[Trial]) -> dict[Trial, str]:
    """A trial's method, and whatever else tells it from the others but its training seed."""
    trials = list(trials)
    parts = ("data_seed", "generation", "features_of", "writer", "trained", "round", "test", "settings")
    telling = [part for part in parts if len({getattr(trial, part) for trial in trials}) > 1]

    def label(trial: Trial) -> str:
        said = [trial.method]
        for part in telling:
            value = getattr(trial, part)
            if part == "settings":
                said += [f"{key}={held}" for key, held in value]
            else:
                said.append(f"{part.replace('_', ' ')} {value}")
        return ", ".join(said)

    return {trial: label(trial) for trial in trials}


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{e:{w}}" for e, w in zip(row, widths, strict=True)).rstrip() for row in rows]
