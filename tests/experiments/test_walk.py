"""experiments.walk: within a walk a store finds and never builds."""

from pathlib import Path

import pytest

from experiments.walk import NotStored, current_walk, walking
from fac.store import Store


def test_a_walk_finds_what_is_stored_and_stops_at_what_is_not(tmp_path: Path):
    made = Store(tmp_path).stage("corpus", lambda folder: (folder / "x").write_text("1"), params={"n": 1})
    before = sorted(tmp_path.rglob("*"))
    with walking() as walk:
        store = walk.store(tmp_path)
        assert current_walk() is walk
        assert store.stage("corpus", lambda _: pytest.fail("built"), params={"n": 1}) == made
        with pytest.raises(NotStored) as stop:
            store.stage("features", lambda _: pytest.fail("built"), inputs=[made])
    assert stop.value.name == "features"
    assert [event.key for event in walk.found] == [made.key]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_walk_ends_with_its_block(tmp_path: Path):
    with pytest.raises(NotStored), walking() as walk:
        walk.store(tmp_path / "nowhere").stage("corpus", lambda _: pytest.fail("built"))
    assert current_walk() is None
    assert not (tmp_path / "nowhere").exists()
