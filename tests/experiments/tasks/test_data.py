"""experiments.tasks.data and .base: what the lab gives each task, as rows and as the corpora that the SAE reads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.tasks import TASKS
from experiments.tasks.base import Protocol, load_rows, rows_artifact, trained_on
from experiments.tasks.data import draw_world, lab_data
from fac.data.corpus import Corpus
from fac.lab.world.corpora import ROLES, Sizes, draw_corpus, known_concepts
from fac.lab.world.tasks import TaskSizes, draw_rows
from fac.store import Artifact, Store
from fac.synthesis.forms import PAIR, QUERY, asked

PROTOCOLS: tuple[Protocol, ...] = ("added", "alone")
SIZES = Sizes(anchor=30, safe=20, seed=20, human=20, labelled=20, validation=20, test=20, known=8)
TASK_SIZES = TaskSizes(anchor=12, seed=6, human=5, validation=4, test=7, known=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


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
def test_rows_and_the_corpora_of_their_chats(store: Store, task: str, test: str):
    data = lab_data(store, TASKS[task], 1, TASK_SIZES, test)
    rows = {role: draw_rows(task, role, 1, TASK_SIZES) for role in ("anchor", "seed", "human", test)}
    assert (data.seed_rows, data.human_rows) == (rows["seed"], rows["human"])
    assert (data.base, data.seed) == ((), data.known)
    assert data.labelled is None
    form = TASKS[task].form
    rows[test] = list(dict.fromkeys(rows[test]))
    for artifact, role in ((data.anchor, "anchor"), (data.known, "seed"), (data.test, test)):
        assert load_rows([artifact]) == rows[role]
        chats = [chat for row in rows[role] for chat in form.chats(row)]
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
    assert (data.seed_rows, data.human_rows) == (roles["seed"], roles["human"])
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
        drawn, scored = draw_rows(task, "test", 1, sizes), load_rows([data.test])
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
    added = rows_artifact(store, TASKS[task].form, ["a row"] if task == "toxicity" else data.human_rows)
    assert len(data.base) == (1 if task == "toxicity" else 0)
    assert trained_on(data, added, "added") == {"base": data.base, "seed_rows": data.seed, "added": added}
    assert trained_on(data, added, "alone") == {"base": data.base, "seed_rows": None, "added": added}
    for protocol in PROTOCOLS:  # the baseline, which adds nothing, has the seed's rows
        assert trained_on(data, None, protocol) == {"base": data.base, "seed_rows": data.seed, "added": None}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("test", ["validation", "test"])
def test_both_held_out_sets_are_known_to_who_checks_what_is_written(store: Store, task: str, test: str):
    sizes = SIZES if task == "toxicity" else TASK_SIZES
    data, form = lab_data(store, TASKS[task], 1, sizes, test), TASKS[task].form
    for role in ("test", "validation"):
        rows = (
            [example.text for example in draw_corpus(role, 1, sizes)]
            if isinstance(sizes, Sizes)
            else draw_rows(task, role, 1, sizes)
        )
        assert all(asked(form, row) in data.held_out for row in rows)
    assert not all(asked(form, row) in data.held_out for row in data.human_rows)


def test_rows_are_kept_as_they_are(store: Store):
    """Line breaks, quotes and rows that repeat: what is read back is what was given, part after part."""
    rows = ["how do I\nbake bread", 'say "hello" to Zoë\u2028now', "how do I\nbake bread"]
    first, second = rows_artifact(store, QUERY, rows), rows_artifact(store, QUERY, rows[:1])
    assert load_rows([first, second]) == [*rows, rows[0]]
    assert texts(first) == rows
    labels = Corpus.load(first.path).labels()
    assert labels is not None
    assert labels.tolist() == [1, 1, 1]
    pair = json.dumps({"prompt": "how", "chosen": "so", "rejected": "no"})
    both = rows_artifact(store, PAIR, [pair])
    assert [m["content"] for e in Corpus.load(both.path) for m in e.messages] == ["how", "so", "how", "no"]


def test_the_same_rows_in_another_form_are_another_artifact(store: Store):
    row = json.dumps({"prompt": "how do I", "chosen": "so", "rejected": "no"})
    assert rows_artifact(store, QUERY, [row]).key != rows_artifact(store, PAIR, [row]).key


def test_a_task_is_known_by_its_name():
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
    assert set(TASKS) == {"toxicity", "reward", "sycophancy", "survival", "instruction"}
