"""A folder in the hub's form is read by `datasets` as the hub itself is; no test asks the hub."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fac.data.examples import read_examples
from fac.data.files import Source, fingerprint
from fac.data.hub import hub_commit
from fac.data.pairs import read_pairs
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
