"""experiments.tasks.sources in the lab: what its world gives each task, as examples and as what the SAE reads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.example_sets import examples_folder

from experiments.harness.config import read_config
from experiments.harness.experiment import grid, sweep
from experiments.harness.graph import Graph
from experiments.tasks import TASKS
from experiments.tasks.base import TaskSteps
from experiments.tasks.sources import load_notes, task_steps
from fac.chat import as_chat
from fac.data.corpus import Corpus
from fac.data.example_set import load_examples
from fac.data.held_out import HeldOut
from fac.data.pairs import Pair
from fac.data.schemas import PAIR, QUERY, Query
from fac.lab.world.corpora import ROLES, Sizes, draw_corpus, known_concepts
from fac.lab.world.tasks import TaskSizes, draw_examples
from fac.store import Step, Store

SIZES = Sizes(anchor=30, safe=20, seed=20, human=20, labelled=20, validation=20, test=20, known=8)
TASK_SIZES = TaskSizes(anchor=12, seed=6, human=5, validation=4, test=7, known=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def lab_data(task: str, world: int, sizes: Sizes | TaskSizes, test: str = "test") -> TaskSteps:
    config: Any = SimpleNamespace(sizes=sizes, data={}, sample={})
    return task_steps(TASKS[task], config, world, test)


def drawn_of(task: str, role: str, world: int, sizes: Any) -> list[Any]:
    """What the world gives a role, asked for by itself."""
    if task == "toxicity":
        return [Query(example.text) for example in draw_corpus(role, world, sizes)]
    return draw_examples(task, role, world, sizes)


def each_once(task: str, examples: Sequence[Any]) -> list[Any]:
    return list({TASKS[task].schema.line(example): example for example in examples}.values())


def corpus(store: Store, step: Step) -> Corpus:
    return Corpus.load(store.get(step))


def texts(store: Store, step: Step) -> list[str]:
    return [example.text for example in corpus(store, step)]


def held(store: Store, task: str, step: Step) -> list[Any]:
    return load_examples(TASKS[task].schema, [store.get(step)])


def losses(store: Store, data: TaskSteps) -> list[str]:
    return [note for note, is_loss in load_notes(store.get(data.draw)).items() if is_loss]


def test_another_seed_is_another_world(store: Store):
    first, same, other = (lab_data("toxicity", seed, SIZES) for seed in (0, 0, 1))
    for role in ("anchor", "seed", "seed_examples", "human", "test", "labelled"):
        steps = [getattr(world, role) for world in (first, same, other)]
        drawn = [texts(store, step) for step in steps]
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]
        assert steps[0].key == steps[1].key != steps[2].key
    assert set(known_concepts(0, SIZES)) != set(known_concepts(1, SIZES))


@pytest.mark.parametrize("task", [name for name in TASKS if name != "toxicity"])
@pytest.mark.parametrize("test", ["validation", "test"])
def test_examples_and_the_corpora_of_their_chats(store: Store, task: str, test: str):
    data, schema = lab_data(task, 1, TASK_SIZES, test), TASKS[task].schema
    assert (data.fixed, data.labelled) == ((), None)
    assert data.seed_examples.key == data.seed.key
    for step, role in ((data.anchor, "anchor"), (data.seed, "seed"), (data.human, "human"), (data.test, test)):
        drawn = draw_examples(task, role, 1, TASK_SIZES)
        drawn = each_once(task, drawn) if role == test else drawn
        assert held(store, task, step) == drawn
        chats = [chat for example in drawn for chat in schema.chats(example)]
        assert [example.messages for example in corpus(store, step)] == chats
    assert lab_data(task, 1, TASK_SIZES, test).draw.key == data.draw.key
    assert lab_data(task, 2, TASK_SIZES, test).anchor.key != data.anchor.key


@pytest.mark.parametrize("test", ["validation", "test"])
def test_the_toxicity_task_trains_on_safe_and_seed_texts(store: Store, test: str):
    data = lab_data("toxicity", 1, SIZES, test)
    drawn = {role: draw_corpus(role, 1, SIZES) for role in ROLES}
    roles = {role: [example.text for example in examples] for role, examples in drawn.items()}
    assert [texts(store, part) for part in (*data.fixed, data.seed_examples)] == [roles["safe"], roles["seed"]]
    assert texts(store, data.seed) == roles["safe"] + roles["seed"]
    assert texts(store, data.human) == roles["human"]
    assert data.labelled is not None
    for step, role in ((data.anchor, "anchor"), (data.test, test), (data.labelled, "labelled")):
        assert texts(store, step) == roles[role]
        labels = corpus(store, step).labels()
        assert labels is not None
        assert labels.tolist() == [example.label for example in drawn[role]]


@pytest.mark.parametrize(
    ("task", "sizes"), [("toxicity", replace(SIZES, test=400)), ("survival", replace(TASK_SIZES, test=60))]
)
def test_what_the_grammar_writes_twice_is_scored_once(store: Store, task: str, sizes: Sizes | TaskSizes):
    """Dropped where it is scored: drawing other rows in their place would move the roles that must not share them."""
    data, drawn = lab_data(task, 1, sizes), drawn_of(task, "test", 1, sizes)
    scored = held(store, task, data.test)
    if isinstance(sizes, Sizes):
        labels = corpus(store, data.test).labels()
        assert labels is not None
        harmful = {example.text: example.label for example in draw_corpus("test", 1, sizes)}
        assert labels.tolist() == [harmful[query.text] for query in scored]
    assert len(set(drawn)) < len(drawn)
    assert scored == list(dict.fromkeys(drawn))
    assert losses(store, data) == [
        f"{task}: {len(scored):,} different examples are scored of {len(drawn):,} that were drawn for the test"
    ]
    assert losses(store, lab_data(task, 1, SIZES if task == "toxicity" else TASK_SIZES)) == []


def test_each_test_of_the_lab_is_its_own_in_one_store(store: Store):
    """Of each set and world the texts are scored that differ: one after the other, each finds its own."""
    for seed in (1, 2):
        for test in ("test", "validation"):
            expected = list(dict.fromkeys(example.text for example in draw_corpus(test, seed, SIZES)))
            assert texts(store, lab_data("toxicity", seed, SIZES, test).test) == expected


@pytest.mark.parametrize("task", ["toxicity", "sycophancy"])
def test_what_a_method_adds_is_added_to_the_seed_s_examples_or_stands_alone(task: str):
    """Toxicity's safe texts are trained on either way: without them there would be one class."""
    run = read_config([f"experiment.tasks=[{task}]", "experiment=main_results"])
    axes = sweep(f"tasks.{task}.protocol", ("added", "alone"))
    with Graph(run, print) as graph:
        found = {}
        for trial in grid(run, task=task, method=("baseline", "full"), seed=42, settings=axes):
            steps = graph.steps(trial)
            assert steps.trained is not None
            inputs = [step.key for step in steps.trained.inputs if step is not steps.chosen]
            found[trial.method, trial.settings[0][1]] = inputs
            fixed, seed = [step.key for step in steps.data.fixed], steps.data.seed_examples.key
            added = None if steps.added is None else steps.added.key
            assert len(fixed) == (1 if task == "toxicity" else 0)
            parts = {"added": [seed, added], "alone": [added]}[trial.settings[0][1]]
            assert inputs == [*fixed, *(parts if added else [seed])]
        assert found["baseline", "added"] == found["baseline", "alone"]  # which adds nothing, has the seed's


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("test", ["validation", "test"])
def test_both_held_out_sets_are_known_to_who_checks_what_is_written(store: Store, task: str, test: str):
    sizes = SIZES if task == "toxicity" else TASK_SIZES
    data, schema = lab_data(task, 1, sizes, test), TASKS[task].schema
    held_out = HeldOut.load(store.get(data.draw))
    for role in ("test", "validation"):
        assert all(schema.asked(example) in held_out for example in drawn_of(task, role, 1, sizes))
    assert not all(schema.asked(example) in held_out for example in held(store, task, data.human))


def test_examples_are_kept_as_they_are(tmp_path: Path):
    """Line breaks, quotes and examples that repeat: what is read back is what was given, part after part."""
    queries = [Query("how do I\nbake bread"), Query('say "hello" to Zoë\u2028now'), Query("how do I\nbake bread")]
    first = examples_folder(tmp_path / "first", QUERY, queries)
    second = examples_folder(tmp_path / "second", QUERY, queries[:1])
    assert load_examples(QUERY, [first, second]) == [*queries, queries[0]]
    assert [example.text for example in Corpus.load(first)] == [query.text for query in queries]
    labels = Corpus.load(first).labels()
    assert labels is not None
    assert labels.tolist() == [1, 1, 1]
    both = examples_folder(tmp_path / "both", PAIR, [Pair(as_chat("how"), "so", "no")])
    assert [m["content"] for e in Corpus.load(both) for m in e.messages] == ["how", "so", "how", "no"]


def test_a_task_is_known_by_its_name():
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
    assert set(TASKS) == {"toxicity", "reward", "sycophancy", "survival", "instruction"}
