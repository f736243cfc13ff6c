"""Where a task's data come from: what every experiment is given, drawn from the lab's world or from data sets.

Settings hold `sizes`, of the lab's world, or `data`, data sets by role. A role may have several, one after the other:
`anchor`, `anchor_more`, ... No text of the test stands in another role.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.alpaca import alpaca_eval_digests
from experiments import config
from experiments.tasks.base import Labelled, Task, TaskData, examples_artifact
from fac.chat import as_chat
from fac.data.corpus import Corpus
from fac.data.examples import Example, LoadReport, text_digest
from fac.data.files import fingerprint
from fac.data.held_out import HeldOut
from fac.data.hub import is_hub
from fac.data.pairs import pairs_fingerprint
from fac.data.schemas import PAIR, Query, Schema
from fac.data.source import HUB_ONLY, Source
from fac.errors import FacError, closest
from fac.lab.world.corpora import ROLES as WORLD_ROLES
from fac.lab.world.corpora import Sizes, draw_corpus, world_digest
from fac.lab.world.tasks import TaskSizes, draw_examples, known_themes
from fac.pipeline import computed_corpus
from fac.store import Artifact, Store

HELD_OUT = ("test", "validation")
NOTES, DIGESTS = "notes.json", "held_out.json"


@dataclass(frozen=True)
class Sources:
    """Data sets of one task, and how many rows of a role are drawn from them."""

    sets: Mapping[str, Source]  # by ROLE or ROLE_NAME
    sample: Mapping[str, int] = field(default_factory=dict)  # by role; a role that is not named gives all its rows
    evaluation: Any = None

    def of(self, role: str) -> dict[str, Source]:
        """The data sets of one role, in order."""
        return {name: source for name, source in self.sets.items() if name == role or name.startswith(f"{role}_")}


Origin = Sizes | TaskSizes | Sources


def task_data(store: Store, task: Task, seed: int, origin: Origin, test: str = "test") -> TaskData:
    """The data of a task: `seed` is the world of the lab, or draws rows from data sets; `test` may be "validation"."""
    if isinstance(origin, Sources):
        return source_data(store, task, seed, origin, test)
    return lab_data(store, task, seed, origin, test)


def origin_of(task: Task, values: Mapping[str, Any]) -> Origin:
    """Where the settings of a task (tasks.NAME) say that its data come from. Raises FacError for what cannot be."""
    key = f"tasks.{task.name}"
    if ("data" in values) == ("sizes" in values):
        raise FacError(f"{key} needs either data, the data sets by role, or sizes, those of the lab's world.")
    if "data" in values:
        return _sources(task, values)
    sizes = config.typed(Sizes if task.name == "toxicity" else TaskSizes, values["sizes"], f"{key}.sizes")
    if isinstance(sizes, TaskSizes):
        known_themes(task.name, 0, sizes.known)  # refuses more than there are
    return sizes


# Data sets


def source_of(values: Mapping[str, Any], key: str) -> Source | None:
    """The data set that the settings at `key`, such as tasks.reward.data.test, name; None if they name none.

    `subset`, `split` and `revision` belong to a hub data set: where `path` was set to a file, they are dropped.
    """
    if values.get("path") is None:
        return None
    on_hub = not isinstance(values["path"], list) and is_hub(Path(str(values["path"])))
    kept = {option: value for option, value in values.items() if on_hub or option not in HUB_ONLY}
    with _named(key):
        return config.typed(Source, {**kept, "name": key.rpartition(".")[2]}, key)


def _sources(task: Task, values: Mapping[str, Any]) -> Sources:
    key = f"tasks.{task.name}"
    roles = (*task.roles, *task.may_have)
    sets: dict[str, Source] = {}
    for name, told in values["data"].items():
        if not any(name == role or name.startswith(f"{role}_") for role in roles):
            raise FacError(f"{key}.data.{name} is no role of the task{closest(name, roles)}.")
        if source := source_of(told or {}, f"{key}.data.{name}"):
            sets[name] = source
    sample = {role: count for role, count in (values.get("sample") or {}).items() if count is not None}
    for role, count in sample.items():
        if role not in roles:
            raise FacError(f"{key}.sample.{role} is no role of the task{closest(role, roles)}.")
        if not isinstance(count, int) or count < 1:
            raise FacError(f"{key}.sample.{role}={count} will not do: set it to 1 or more, or to null for all rows.")
    made = task.evaluation and config.typed(task.evaluation, values.get("evaluation") or {}, f"{key}.evaluation")
    sources = Sources(sets, sample, made)
    for role in task.roles:
        if not sources.of(role):
            raise FacError(f"{key}.data.{role} names no data set: set {key}.data.{role}.path to a file or to hub:ID.")
    return sources


@dataclass(frozen=True)
class _Drawn:
    """What was drawn from the data sets of a task."""

    examples: Mapping[str, list[Labelled]]  # by role
    held_out: HeldOut
    notes: list[str]
    losses: list[str]  # of the notes


def source_data(store: Store, task: Task, seed: int, sources: Sources, test: str = "test") -> TaskData:
    """The data of a task from data sets, drawn by `seed`, through the store.

    Raises FacError for sources that cannot be read or hold too few rows, and where the test needs labels and has none.
    """
    drawn = _drawn(store, task, seed, sources, test)
    about = {"evaluation": sources.evaluation, "notes": drawn.notes, "losses": drawn.losses}
    examples = {role: [example for example, _ in found] for role, found in drawn.examples.items()}
    if "safe" not in task.roles:
        anchor, known, tested = (
            examples_artifact(store, task.schema, examples[role]) for role in ("anchor", "seed", test)
        )
        human = _without(task.schema, examples["human"], examples["seed"])
        return TaskData(anchor, known, (), known, examples["seed"], human, tested, drawn.held_out, **about)
    for role in (test, "labelled"):
        if any(label is None for _, label in drawn.examples.get(role, ())):
            raise FacError(f"The {role} set of {task.name} has no labels: set tasks.{task.name}.data.{role}.label.")
    safe = _corpus(store, [(query, 0) for query in examples["safe"]])
    anchor, known = (_corpus(store, [(query, None) for query in examples[role]]) for role in ("anchor", "seed"))
    toxic = _corpus(store, [(query, 1) for query in examples["toxic"]])
    labelled = _corpus(store, drawn.examples["labelled"]) if "labelled" in drawn.examples else None
    human = _without(task.schema, examples["human"], examples["toxic"])
    tested = _corpus(store, drawn.examples[test])
    return TaskData(anchor, known, (safe,), toxic, examples["toxic"], human, tested, drawn.held_out, labelled, **about)


def _drawn(store: Store, task: Task, seed: int, sources: Sources, test: str) -> _Drawn:
    """The examples of every role.

    Whichever held-out set is scored, both are left out of what is trained on, so that choices made on the validation
    set are made with the training set that is tested. The labelled texts, which nothing is trained on, may be the
    validation's where the test is scored.
    """
    roles = [r for r in (*task.roles, *task.may_have) if sources.of(r)]
    if test not in roles:
        raise FacError(f"There is no {test} set: set tasks.{task.name}.data.{test}.path, or experiment.test=test.")
    read = {}
    for name, source in ((name, source) for role in roles for name, source in sources.of(role).items()):
        with _named(f"tasks.{task.name}.data.{name}"):
            read[name] = (pairs_fingerprint if task.schema is PAIR else fingerprint)(source)

    def build(folder: Path) -> None:
        notes: dict[str, bool] = {}  # note -> whether it tells of a loss
        found: dict[str, list[Labelled]] = {}
        whole: dict[str, HeldOut] = {}  # the held-out sets, before rows are drawn from them
        for role in sorted(roles, key=lambda role: [*HELD_OUT, role].index(role)):  # the test, validation, all others
            rows = _read(task, role, sources, notes)
            if role != "test":
                others = [held for name, held in whole.items() if role != "labelled" or name in ("test", test)]
                rows = _not_held_out(task, role, rows, others, notes)
            if role in HELD_OUT:
                whole[role] = _held_out(task.schema, [example for example, _ in rows])
            found[role] = _sampled(task, role, rows, sources.sample.get(role), seed)
        for role, rows in found.items():
            lines = (json.dumps([task.schema.dump(example), label]) for example, label in rows)
            (folder / f"{role}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        (folder / NOTES).write_text(json.dumps(notes))
        digests = frozenset[bytes]().union(*(held.normal for held in whole.values()))
        (folder / DIGESTS).write_text(json.dumps(sorted(digest.hex() for digest in digests)))

    sample = {role: sources.sample[role] for role in roles if role in sources.sample}
    params = {  # of the data sets of a role, the first come first
        "task": task.name,
        "test": test,
        "sources": list(read.items()),
        "sample": sample,
        "seed": seed if sample else None,
    }
    folder = store.stage("draw", build, params=params).path
    found = {
        role: [
            (task.schema.load(value), label)
            for value, label in map(json.loads, (folder / f"{role}.jsonl").read_text().splitlines())
        ]
        for role in roles
    }
    notes = json.loads((folder / NOTES).read_text())
    digests = frozenset(map(bytes.fromhex, json.loads((folder / DIGESTS).read_text())))
    held_out = HeldOut(digests, alpaca_eval_digests())
    return _Drawn(found, held_out, list(notes), [note for note, lost in notes.items() if lost])


def _read(task: Task, role: str, sources: Sources, notes: dict[str, bool]) -> list[Labelled]:
    rows: list[Labelled] = []
    for name, source in sources.of(role).items():
        report = LoadReport()
        with _named(f"tasks.{task.name}.data.{name}"):
            rows += task.read(source, report)
        notes[f"{task.name}, {name}: {report}"] = bool(report.notes(name))
    return rows


def _not_held_out(
    task: Task, role: str, rows: list[Labelled], held_out: Sequence[HeldOut], notes: dict[str, bool]
) -> list[Labelled]:
    """Rows that ask nothing that a held-out set asks, nor what AlpacaEval asks (RM-Bench's chat prompts do)."""
    texts = [task.schema.asked(example) for example, _ in rows]
    kept = [row for row, text in zip(rows, texts, strict=True) if not any(text in held for held in held_out)]
    if len(kept) < len(rows):
        notes[f"{task.name}, {role}: {len(rows) - len(kept)} rows of held-out sets or of AlpacaEval left out"] = True
    if not kept:
        raise FacError(
            f"Every row of tasks.{task.name}.data.{role} stands in the test, the validation set or AlpacaEval, which "
            f"nothing is trained on: name another data set."
        )
    return kept


def _held_out(schema: Schema[Any], *parts: Sequence[Any]) -> HeldOut:
    """What these examples ask, and AlpacaEval."""
    return HeldOut.of((schema.asked(example) for part in parts for example in part), alpaca_eval_digests())


def _sampled(task: Task, role: str, rows: list[Labelled], count: int | None, seed: int) -> list[Labelled]:
    if count is None:
        return rows
    if count > len(rows):
        raise FacError(
            f"tasks.{task.name}.sample.{role}={count} will not do: its data sets have {len(rows)} rows; lower it."
        )
    return random.Random(f"{seed}/{task.name}/{role}").sample(rows, count)


def _without(schema: Schema[Any], examples: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    taken = set(map(schema.line, others))
    return [example for example in examples if schema.line(example) not in taken]


def _corpus(store: Store, queries: Sequence[Labelled]) -> Artifact:
    """Queries with their labels as a corpus, keyed by them."""
    examples = [Example(as_chat(query.text), label, str(i)) for i, (query, label) in enumerate(queries, start=1)]
    digest = text_digest(json.dumps([[query.text, label] for query, label in queries]))
    return computed_corpus(store, "texts", lambda: examples, {"digest": digest.hex()})


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Failures of the source at `key` name that place, of which `fac.data` knows the last two parts only."""
    name = key.rpartition(".")[2]
    try:
        yield
    except FacError as error:
        way_out = f" Or do without it: {key}=null." if name.startswith("validation") else ""
        raise FacError(re.sub(rf"(?<![\w.])data\.{name}\b", key, str(error)) + way_out) from None


# The lab's world


def lab_data(store: Store, task: Task, seed: int, sizes: Sizes | TaskSizes, test: str = "test") -> TaskData:
    """The data of a task in one world of the lab; `test` may name the validation set instead."""
    if isinstance(sizes, Sizes):
        world = draw_world(store, sizes, seed)

        def queries(role: str) -> list[Query]:
            return [Query(example.text) for example in Corpus.load(world[role].path)]

        anchor, known, safe, seed_texts = (world[name] for name in ("anchor", "seed data", "safe", "seed"))
        held_out = _held_out(task.schema, *map(queries, HELD_OUT))
        tested, notes = _different(store, task, world[test])
        return TaskData(
            anchor, known, (safe,), seed_texts, queries("seed"), queries("human"), tested, held_out, world["labelled"],
            notes=notes, losses=notes,
        )  # fmt: skip
    drawn = {role: draw_examples(task.name, role, seed, sizes) for role in ("anchor", "seed", "human", *HELD_OUT)}
    different = list({task.schema.line(example): example for example in drawn[test]}.values())
    anchor, known, tested = (
        examples_artifact(store, task.schema, part) for part in (drawn["anchor"], drawn["seed"], different)
    )
    held_out = _held_out(task.schema, *(drawn[role] for role in HELD_OUT))
    notes = _repeats(task, drawn[test], different)
    return TaskData(
        anchor, known, (), known, drawn["seed"], drawn["human"], tested, held_out, notes=notes, losses=notes
    )


def _different(store: Store, task: Task, test: Artifact) -> tuple[Artifact, list[str]]:
    """The texts of a test, each once: the grammar writes some of them twice. With a note if it did."""
    drawn = list(Corpus.load(test.path))
    different = list({example.text: example for example in drawn}.values())
    corpus = computed_corpus(store, "world", lambda: different, {"different texts of": test.key})
    return corpus, _repeats(task, drawn, different)


def _repeats(task: Task, drawn: Sequence[object], different: Sequence[object]) -> list[str]:
    if len(drawn) == len(different):
        return []
    return [f"{task.name}: {len(different):,} different rows are scored of {len(drawn):,} that were drawn for the test"]


def draw_world(store: Store, sizes: Sizes, seed: int) -> dict[str, Artifact]:
    """The toxicity corpora of one world seed by role, and "seed data": all that the seed-only row trains on."""
    params = {"world": world_digest(), "seed": seed, "sizes": sizes}
    world = {
        role: computed_corpus(
            store, "world", lambda role=role: draw_corpus(role, seed, sizes), {**params, "role": role}
        )
        for role in WORLD_ROLES
    }

    def both() -> list[Example]:
        return [e for role in ("safe", "seed") for e in Corpus.load(world[role].path)]

    world["seed data"] = computed_corpus(store, "world", both, {**params, "role": "seed data"})
    return world
