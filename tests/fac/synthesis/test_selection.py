"""fac.synthesis.selection: so many of each feature, and what covers the missing features best; one writing for all."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fac.data.example_set import load_examples
from fac.data.schemas import QUERY, Query
from fac.errors import FacError
from fac.store import Step
from fac.synthesis import selection as module
from fac.synthesis.generate import Generated, save_outcome
from fac.synthesis.method import Outcome
from fac.synthesis.samples import Counts, Sample
from fac.synthesis.selection import covering, selection
from fac.synthesis.settings import Settings


def sample(feature: int | None, text: str, strength: float, kept: bool = True) -> Sample:
    return Sample(
        feature, 2, 0, Query(text), text, "", "", 0, activation=strength, relative_activation=strength, text=text,
        kept=kept,
    )  # fmt: skip


WRITTEN = [
    sample(1, "one weak", 0.2),
    sample(1, "one strong", 0.9),
    sample(1, "one lost", 1.0, kept=False),
    sample(2, "two", 0.5),
    sample(3, "three lost", 0.5, kept=False),
    sample(1, "one middling", 0.4),
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    save_outcome(
        QUERY,
        Outcome([Query("one strong")], WRITTEN, [WRITTEN[1]], counts=Counts(requested=6, kept=4, added=1, budget=1)),
        folder,
    )
    return folder


@pytest.mark.parametrize(("count", "texts"), [(1, ["one strong", "two"]), (2, ["one strong", "two", "one middling"])])
def test_so_many_of_each_feature_whatever_the_budget(count: int, texts: list[str], written: Path, tmp_path: Path):
    step = selection(Step("synthesis", lambda folder: None), None, QUERY, Settings(per_feature=count), 1)  # type: ignore[arg-type]
    step.build(tmp_path, written)
    assert [example.text for example in load_examples(QUERY, [tmp_path])] == texts
    found = Generated.load(QUERY, tmp_path)
    assert [chosen.text for chosen in found.chosen] == texts
    assert found.samples == WRITTEN
    assert (found.counts.added, found.counts.budget, found.counts.kept) == (len(texts), 3 * count, 4)


def test_without_settings_nothing_is_selected_and_with_them_writing_keeps_its_key():
    writing: Any = Step("synthesis", lambda folder: None)
    mining: Any = SimpleNamespace(
        encoder=SimpleNamespace(features=lambda corpus: Step("features", print, {}, (corpus,))),
        wanted=Step("missing", print),
    )
    assert selection(writing, mining, QUERY, Settings(), 5) is writing
    made_of: list[dict[str, Any]] = [
        {"per_feature": 1},
        {"per_feature": 2},
        {"choose": "binary"},
        {"choose": "frequency"},
    ]
    made = [selection(writing, mining, QUERY, Settings(**settings), 5).key for settings in made_of]
    assert len(set(made)) == len(made)
    assert selection(writing, mining, QUERY, Settings(choose="binary"), 6).key not in made  # the budget counts
    assert selection(writing, mining, QUERY, Settings(per_feature=1), 6).key in made  # ... and here it does not


def test_samples_for_no_feature_cannot_be_selected(tmp_path: Path):
    save_outcome(QUERY, Outcome([], [sample(None, "any", 0.1)]), tmp_path)
    with pytest.raises(FacError, match="this method writes for none: leave them out, or the method"):
        module._first_of_each(QUERY, 1, tmp_path / "x", tmp_path)


def test_covering_takes_what_adds_most_weight_and_starts_anew_when_all_is_covered():
    active = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    assert covering(active, np.ones(4), 10) == [
        0,
        2,
        1,
        3,
        4,
    ]  # two cover all; then 1 and 3 anew; what covers nothing last
    assert covering(active, np.ones(4), 2) == [0, 2]
    assert (
        covering(active, np.array([0.1, 1.0, 5.0, 0.1]), 2) == [1, 3]
        or covering(active, np.array([0.1, 1.0, 5.0, 0.1]), 2)[0] == 1
    )
    assert covering(active, np.array([9.0, 0.0, 0.0, 1.0]), 2) == [0, 2]
    assert covering(np.zeros((0, 3), bool), np.ones(3), 4) == []


def test_covering_is_never_far_from_the_best_choice():
    """Greedy coverage has at least 1 - 1/e of the weight of the best choice: against brute force."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        active, weights = rng.random((7, 9)) < 0.3, rng.random(9)
        worth = [float(weights[active[list(rows)].any(axis=0)].sum()) for rows in itertools.combinations(range(7), 3)]
        mine = float(weights[active[covering(active, weights, 3)].any(axis=0)].sum())
        assert mine >= (1 - 1 / np.e) * max(worth)


def test_a_sample_activates_what_any_of_its_chats_does():
    class Pooled:
        def chunks(self):
            values = np.array([5.0, 1.0, 3.0, 2.0], np.float32)
            yield SimpleNamespace(
                indices=np.array([0, 2, 3, 0]), values=values, row_of_entry=lambda: np.array([0, 0, 1, 2])
            )

    measured: Any = SimpleNamespace(pooled=Pooled())
    two = [replace(sample(0, "pair", 1.0), chats=2), sample(0, "query", 1.0)]
    cuts, wanted = np.array([2.0, 0.0, 1.5, 0.0], np.float32), np.array([True, False, True, True])
    found = module.activated(measured, two, cuts, wanted)
    assert found.tolist() == [[True, False, True], [False, False, False]]  # 1.0 and 2.0 do not exceed their cuts


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"per_feature": 0}, "per_feature=0 will not do"), ({"per_feature": 1, "choose": "binary"}, "leave out it")],
)
def test_settings_that_cannot_be_are_said(settings: dict[str, Any], said: str):
    with pytest.raises(FacError, match=said):
        Settings(**settings)
