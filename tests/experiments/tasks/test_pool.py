"""The pool that methods of selection choose from: more of what people wrote in the lab, and nothing of the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from experiments.tasks import TASKS
from experiments.tasks.sources import pool_step, task_steps
from fac.data.example_set import load_examples
from fac.data.held_out import HeldOut
from fac.lab.world.corpora import Sizes
from fac.lab.world.tasks import TaskSizes
from fac.store import Store

SMALL = Sizes(anchor=5, safe=5, seed=5, human=5, labelled=5, validation=300, test=600, known=8)


@dataclass
class Config:
    """A task that draws from the lab's world."""

    sizes: Any
    pool: int | None
    data: dict[str, Any] = field(default_factory=dict)
    sample: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(("task", "sizes"), [("toxicity", SMALL), ("survival", TaskSizes(4, 4, 4, 8, 8, 4))])
def test_it_begins_with_the_human_examples_holds_each_once_and_nothing_of_the_test(task, sizes, tmp_path):
    config, store, schema = Config(sizes, 400), Store(tmp_path), TASKS[task].schema
    data = task_steps(TASKS[task], config, 0)
    pool = load_examples(schema, [store.get(pool_step(TASKS[task], config, 0, data))])
    held, people = HeldOut.load(store.get(data.draw)), load_examples(schema, [store.get(data.human)])
    asked = [schema.asked(example) for example in pool]
    assert not any(text in held for text in asked)
    lines = [schema.line(example) for example in pool]
    assert len(set(lines)) == len(lines) > 60
    free = dict.fromkeys(schema.line(example) for example in people if schema.asked(example) not in held)
    assert lines[: len(free)] == list(free)
    if task == "toxicity":  # a draw that looked at nothing would bring some
        drawn = TASKS[task].drawn_in_lab("human", 0, Sizes(**{**vars(sizes), "human": 400}))
        assert any(schema.asked(example) in held for example, _ in drawn)


def test_where_nothing_more_is_there_it_is_the_human_examples(tmp_path):
    config = Config(SMALL, None)
    data = task_steps(TASKS["toxicity"], config, 0)
    assert pool_step(TASKS["toxicity"], config, 0, data) is data.human
    more = pool_step(TASKS["toxicity"], Config(SMALL, 50), 0, data)
    keys = {more.key, pool_step(TASKS["toxicity"], Config(SMALL, 51), 0, data).key}
    assert len(keys) == 2
    assert data.draw.key == task_steps(TASKS["toxicity"], Config(SMALL, 50), 0).draw.key  # which the pool changes not
