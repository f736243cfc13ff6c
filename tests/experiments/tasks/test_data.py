"""experiments.tasks.data and .base: what the lab gives each task, as rows and as the corpora that the SAE reads."""

import json
from pathlib import Path

import pytest

from experiments.tasks import TASKS
from experiments.tasks.base import load_rows, rows_artifact
from experiments.tasks.data import draw_world, lab_data
from fac.data.corpus import Corpus
from fac.lab.world.corpora import ROLES, Sizes, draw_corpus, known_concepts
from fac.lab.world.tasks import TaskSizes, draw_rows
from fac.store import Artifact, Store
from fac.synthesis.forms import PAIR, QUERY

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
