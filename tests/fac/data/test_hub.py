"""A folder in the hub's form is read by `datasets` as the hub itself is; no test asks the hub."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fac.data.examples import read_examples
from fac.data.files import fingerprint
from fac.data.hub import HubName, hub_commit, hub_name
from fac.data.pairs import read_pairs
from fac.data.source import Source
from fac.errors import FacError

ROWS = [{"id": n, "prompt": f"hello {n}", "chosen": "good", "rejected": "bad", "subset": "hep-go"} for n in (3, 5)]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "bench"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "data" / "filtered-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), folder / "data" / "raw-00000-of-00001.parquet")
    return folder


def source(folder: Path, **options) -> Source:
    return Source(Path(f"hub:{folder}"), name="test", **options)


def test_pairs_of_the_split_that_is_named(bench):
    pairs = list(read_pairs(source(bench, split="filtered")))
    assert [(p.prompt[0]["content"], p.subset, p.id) for p in pairs] == [
        ("hello 3", "hep-go", "3"),
        ("hello 5", "hep-go", "5"),
    ]
    assert len(list(read_pairs(source(bench, split="raw")))) == 1


def test_every_loader_reads_the_hub(bench):
    (bench / "data" / "raw-00000-of-00001.parquet").unlink()
    assert [e.text for e in read_examples(source(bench, text="prompt"))] == ["hello 3", "hello 5"]


@pytest.mark.parametrize(
    ("split", "said"), [(None, "set split to one of .*filtered"), ("filterd", "no split filterd.*filtered")]
)
def test_a_split_that_is_missing_or_unclear(bench, split, said):
    with pytest.raises(FacError, match=said):
        list(read_pairs(source(bench, split=split)))


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(FacError, match=r"/gone cannot be loaded from the hub.*give a file"):
        list(read_pairs(source(tmp_path / "gone")))
    with pytest.raises(FacError, match=r"/gone cannot be loaded from the hub"):
        fingerprint(source(tmp_path / "gone"))


def test_the_fingerprint_follows_the_contents_and_what_is_read(bench):
    first = fingerprint(source(bench, split="raw"))
    assert fingerprint(source(bench, split="raw")) == first
    assert fingerprint(source(bench, split="filtered")) != first
    pq.write_table(pa.Table.from_pylist(ROWS), bench / "data" / "raw-00000-of-00001.parquet")
    assert fingerprint(source(bench, split="raw")) != first


def test_a_whole_commit_is_taken_without_asking_the_hub():
    assert hub_commit(Path("hub:allenai/reward-bench"), "a" * 40) == "a" * 40


def test_options_of_the_hub_are_refused_for_a_file(tmp_path):
    with pytest.raises(FacError, match=r"data\.test\.split is only for hub:ID"):
        Source(tmp_path / "rows.jsonl", name="test", split="train")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("hub:owner/data", HubName("owner/data", None)),
        ("hub:data", HubName("data", None)),
        ("hub:owner/data/train.jsonl.gz", HubName("owner/data", "train.jsonl.gz")),
        ("hub:owner/data/part/one/train.json", HubName("owner/data", "part/one/train.json")),
        ("hub:/a/folder/of/mine", HubName("/a/folder/of/mine", None)),
        ("hub:./gone/b/c", HubName("./gone/b/c", None)),
        ("hub:a/b/c", HubName("a/b/c", None)),  # a folder that is there
    ],
)
def test_what_a_path_names(path, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert hub_name(Path(path)) == name


def test_one_file_of_a_data_set(tmp_path, monkeypatch):
    """The network's edge alone is replaced: which file of which repository is asked for, at which commit."""
    asked = []

    def download(repository, file, **options):
        asked.append((repository, file, options))
        path = tmp_path / "train.jsonl"
        path.write_text('{"text": "hello"}\n')
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    commit = "0123456789" * 4
    named = Source(Path("hub:owner/data/part/train.jsonl"), name="test", revision=commit)
    assert [example.text for example in read_examples(named)] == ["hello"]
    assert asked == [("owner/data", "part/train.jsonl", {"repo_type": "dataset", "revision": commit})]
    other = Source(Path("hub:owner/data/part/test.jsonl"), name="test", revision=commit)
    assert fingerprint(named) != fingerprint(other)
    with pytest.raises(FacError, match="data.test: .*is one file, so leave out subset and split"):
        Source(Path("hub:owner/data/part/train.jsonl"), name="test", split="train")


def test_a_file_that_is_not_there(monkeypatch):
    def download(*_, **__):
        raise FileNotFoundError("no such entry")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(FacError, match=r"owner/data/x.json cannot be loaded from the hub .no such entry"):
        list(read_examples(Source(Path("hub:owner/data/x.json"), revision="0" * 40)))


@pytest.fixture
def fetched(bench, tmp_path, monkeypatch):
    """The commit of a data set `owner/fetched` that lies in the hub's cache, as `hf download` leaves it there."""
    commit = "c" * 40
    home = tmp_path / "hub" / "datasets--owner--fetched"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(bench, home / "snapshots" / commit)
    (home / "snapshots" / commit / "data" / "raw-00000-of-00001.parquet").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return commit


@pytest.mark.parametrize("revision", [None, "main", "c" * 40])
def test_without_the_hub_what_was_fetched_before_is_read(fetched, revision):
    held = Source(Path("hub:owner/fetched"), name="test", text="prompt", revision=revision)
    assert fingerprint(held)["hub"][1] == fetched
    assert [example.text for example in read_examples(held)] == ["hello 3", "hello 5"]


def test_without_the_hub_what_was_not_fetched_is_said(fetched):
    for other in (Source(Path("hub:owner/fetched"), revision="v2"), Source(Path("hub:owner/other"))):
        with pytest.raises(FacError, match=r"cannot be loaded from the hub .*give a file"):
            fingerprint(other)
    with pytest.raises(FacError, match=r"cannot be loaded from the hub"):
        list(read_examples(Source(Path("hub:owner/fetched"), revision="d" * 40)))
