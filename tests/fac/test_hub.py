"""fac.hub: a name stands for one commit, asked for once; without the hub, the cache says which."""

import pytest
from support.hub_server import hub

from fac.errors import FacError
from fac.hub import resolved_commit, snapshot

HELD = "c" * 40


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache that holds the main branch of the model owner/held, on a machine that is offline."""
    home = tmp_path / "hub" / "models--owner--held"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(HELD)
    (home / "snapshots" / HELD).mkdir(parents=True)
    (home / "snapshots" / HELD / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return home


@pytest.mark.parametrize("revision", [None, "main", HELD])
def test_without_the_hub_it_is_the_commit_in_the_cache(cached, revision):
    assert resolved_commit("owner/held", revision) == HELD
    found = snapshot("owner/held", revision, "model")
    assert found is not None
    assert found.name == HELD


def test_a_whole_commit_is_taken_as_it_is(cached):
    assert resolved_commit("owner/nowhere", "a" * 40) == "a" * 40


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("model", "The model or SAE owner/gone at v2 cannot be loaded from the hub .*give a folder"),
        ("dataset", "The data set owner/gone at v2 cannot be loaded from the hub .*give a file"),
    ],
)
def test_what_neither_has_is_said(cached, kind, said):
    with pytest.raises(FacError, match=said):
        resolved_commit("owner/gone", "v2", kind)


def test_the_hub_is_asked_once(monkeypatch):
    with hub(open_to_all={"owner/asked"}, gated=()) as address:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert resolved_commit("owner/asked", None) == "0" * 40
    assert resolved_commit("owner/asked", None) == "0" * 40  # the hub is gone
