"""experiments.tasks.data and .base: what the lab gives each task, as examples and as the corpora that the SAE reads."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.tasks import TASKS
from experiments.tasks.base import Protocol, examples_artifact, load_examples, trained_on
from experiments.tasks.data import draw_world, lab_data
from fac.chat import as_chat
from fac.data.corpus import Corpus
from fac.data.pairs import Pair
from fac.data.schemas import PAIR, QUERY, Query
from fac.lab.world.corpora import ROLES, Sizes, draw_corpus, known_concepts
from fac.lab.world.tasks import TaskSizes, draw_examples
from fac.store import Artifact, Store

PROTOCOLS: tuple[Protocol, ...] = ("added", "alone")
SIZES = Sizes(anchor=30, safe=20, seed=20, human=20, labelled=20, validation=20, test=20, known=8)
TASK_SIZES = TaskSizes(anchor=12, seed=6, human=5, validation=4, test=7, known=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def each_once(task: str, examples: list) -> list:
    return list({TASKS[task].schema.line(example): example for example in examples}.values())


def texts(artifact: Artifact) -> list[str]:
    return [example.text for example in Corpus.load(artifact.path)]


def test_another_seed_is_another_world(tmp_path: Path):
    worlds = (draw_world(Store(tmp_path / str(place)), SIZES, seed) for place, seed in enumerate((0, 0, 1)))
    first, same, other = worlds
    for role in (*ROLES, "seed data"):
        drawn = [texts(world[role]) for world in (first, same, other)]
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]
        assert first[role].key == same[role].key != other[role].key
    assert set(known_concepts(0, SIZES)) != set(known_concepts(1, SIZES))


@pytest.mark.parametrize("task", [name for name in TASKS if name != "toxicity"])
@pytest.mark.parametrize("test", ["validation", "test"])
def test_examples_and_the_corpora_of_their_chats(store: Store, task: str, test: str):
    data = lab_data(store, TASKS[task], 1, TASK_SIZES, test)
    drawn = {role: draw_examples(task, role, 1, TASK_SIZES) for role in ("anchor", "seed", "human", test)}
    assert (data.seed_examples, data.human_examples) == (drawn["seed"], drawn["human"])
    assert (data.base, data.seed) == ((), data.known)
    assert data.labelled is None
    schema = TASKS[task].schema
    drawn[test] = each_once(task, drawn[test])
    for artifact, role in ((data.anchor, "anchor"), (data.known, "seed"), (data.test, test)):
        assert load_examples(schema, [artifact]) == drawn[role]
        chats = [chat for example in drawn[role] for chat in schema.chats(example)]
        assert [example.messages for example in Corpus.load(artifact.path)] == chats
    assert lab_data(store, TASKS[task], 1, TASK_SIZES, test) == data
    assert lab_data(store, TASKS[task], 2, TASK_SIZES, test).anchor.key != data.anchor.key


@pytest.mark.parametrize("test", ["validation", "test"])
def test_the_toxicity_task_trains_on_safe_and_seed_texts(store: Store, test: str):
    data = lab_data(store, TASKS["toxicity"], 1, SIZES, test)
    drawn = {role: draw_corpus(role, 1, SIZES) for role in ROLES}
    roles = {role: [example.text for example in examples] for role, examples in drawn.items()}
    assert [texts(part) for part in (*data.base, data.seed)] == [roles["safe"], roles["seed"]]
    assert texts(data.known) == roles["safe"] + roles["seed"]
    for held, role in ((data.seed_examples, "seed"), (data.human_examples, "human")):
        assert held == list(map(Query, roles[role]))
    assert data.labelled is not None
    for artifact, role in ((data.anchor, "anchor"), (data.test, test), (data.labelled, "labelled")):
        assert texts(artifact) == roles[role]
        labels = Corpus.load(artifact.path).labels()
        assert labels is not None
        assert labels.tolist() == [example.label for example in drawn[role]]


@pytest.mark.parametrize(
    ("task", "sizes"), [("toxicity", replace(SIZES, test=400)), ("survival", replace(TASK_SIZES, test=60))]
)
def test_what_the_grammar_writes_twice_is_scored_once(store: Store, task: str, sizes: Sizes | TaskSizes):
    """Dropped where it is scored: drawing other rows in their place would move the roles that must not share them."""
    data = lab_data(store, TASKS[task], 1, sizes)
    if isinstance(sizes, Sizes):
        drawn = [example.text for example in draw_corpus("test", 1, sizes)]
        scored, labels = texts(data.test), Corpus.load(data.test.path).labels()
        assert labels is not None
        harmful = {example.text: example.label for example in draw_corpus("test", 1, sizes)}
        assert labels.tolist() == [harmful[text] for text in scored]
    else:
        drawn, scored = draw_examples(task, "test", 1, sizes), load_examples(TASKS[task].schema, [data.test])
    assert len(set(drawn)) < len(drawn)
    assert scored == list(dict.fromkeys(drawn))
    assert data.losses == [
        f"{task}: {len(scored)} different rows are scored of {len(drawn)} that were drawn for the test"
    ]
    assert lab_data(store, TASKS[task], 1, SIZES if task == "toxicity" else TASK_SIZES).losses == []


def test_each_test_of_the_lab_is_its_own_in_one_store(store: Store):
    """Of each set and world the texts are scored that differ: one after the other, each finds its own."""
    for seed in (1, 2):
        for test in ("test", "validation"):
            expected = list(dict.fromkeys(example.text for example in draw_corpus(test, seed, SIZES)))
            assert texts(lab_data(store, TASKS["toxicity"], seed, SIZES, test).test) == expected


@pytest.mark.parametrize("task", ["toxicity", "sycophancy"])
def test_what_a_method_adds_is_added_to_the_seed_s_rows_or_stands_alone(store: Store, task: str):
    """Toxicity's safe texts are trained on either way: without them there would be one class."""
    data = lab_data(store, TASKS[task], 1, SIZES if task == "toxicity" else TASK_SIZES)
    added = examples_artifact(store, TASKS[task].schema, data.human_examples)
    assert len(data.base) == (1 if task == "toxicity" else 0)
    assert trained_on(data, added, "added") == {"base": data.base, "seed_rows": data.seed, "added": added}
    assert trained_on(data, added, "alone") == {"base": data.base, "seed_rows": None, "added": added}
    for protocol in PROTOCOLS:  # the baseline, which adds nothing, has the seed's rows
        assert trained_on(data, None, protocol) == {"base": data.base, "seed_rows": data.seed, "added": None}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("test", ["validation", "test"])
def test_both_held_out_sets_are_known_to_who_checks_what_is_written(store: Store, task: str, test: str):
    sizes = SIZES if task == "toxicity" else TASK_SIZES
    data, schema = lab_data(store, TASKS[task], 1, sizes, test), TASKS[task].schema
    for role in ("test", "validation"):
        examples = (
            [Query(example.text) for example in draw_corpus(role, 1, sizes)]
            if isinstance(sizes, Sizes)
            else draw_examples(task, role, 1, sizes)
        )
        assert all(schema.asked(example) in data.held_out for example in examples)
    assert not all(schema.asked(example) in data.held_out for example in data.human_examples)


def test_examples_are_kept_as_they_are(store: Store):
    """Line breaks, quotes and examples that repeat: what is read back is what was given, part after part."""
    queries = [Query("how do I\nbake bread"), Query('say "hello" to Zoë\u2028now'), Query("how do I\nbake bread")]
    first, second = examples_artifact(store, QUERY, queries), examples_artifact(store, QUERY, queries[:1])
    assert load_examples(QUERY, [first, second]) == [*queries, queries[0]]
    assert texts(first) == [query.text for query in queries]
    labels = Corpus.load(first.path).labels()
    assert labels is not None
    assert labels.tolist() == [1, 1, 1]
    both = examples_artifact(store, PAIR, [Pair(as_chat("how"), "so", "no")])
    assert [m["content"] for e in Corpus.load(both.path) for m in e.messages] == ["how", "so", "how", "no"]


def test_nothing_of_one_schema_and_nothing_of_another_are_two_artifacts(store: Store):
    assert examples_artifact(store, QUERY, []).key != examples_artifact(store, PAIR, []).key


def test_a_task_is_known_by_its_name():
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
    assert set(TASKS) == {"toxicity", "reward", "sycophancy", "survival", "instruction"}
