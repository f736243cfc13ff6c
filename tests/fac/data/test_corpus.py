import json
import logging
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fac.data import Corpus, Example, Source, overlap, write_corpus, write_examples
from fac.errors import FacError

text = st.text(st.characters(exclude_categories=["Cs"]))
example = st.builds(
    Example,
    messages=st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": text}), min_size=1, max_size=3
    ),
    label=st.none() | st.integers(0, 1),
    id=text,
)


def corpus_of(folder, texts, labels=None):
    labels = labels or [None] * len(texts)
    chats = ([{"role": "user", "content": t}] for t in texts)
    write_examples((Example(c, y) for c, y in zip(chats, labels, strict=True)), folder)
    return Corpus.load(folder)


@given(st.lists(example))
def test_a_corpus_is_the_list_it_was_written_from(tmp_path_factory, examples):
    folder = tmp_path_factory.mktemp("corpus")
    write_examples(iter(examples), folder)
    corpus = Corpus.load(folder)
    assert len(corpus) == len(examples)
    assert list(corpus) == examples
    assert [corpus[i] for i in range(-len(examples), len(examples))] == examples + examples


def test_indexing(tmp_path):
    corpus = corpus_of(tmp_path, ["a", "b", "c"])
    assert corpus[np.int64(1)].text == "b"
    assert pickle.loads(pickle.dumps(corpus))[2].text == "c"
    for index in (3, -4):
        with pytest.raises(IndexError):
            corpus[index]


def test_labels(tmp_path):
    labels = corpus_of(tmp_path / "all", ["a", "b"], [1, 0]).labels()
    assert labels is not None
    assert labels.tolist() == [1, 0]
    assert labels.dtype == np.int64
    assert corpus_of(tmp_path / "none", ["a", "b"]).labels() is None
    with pytest.raises(FacError, match=r"1 of 2 texts in .* have no label"):
        corpus_of(tmp_path / "some", ["a", "b"], [1, None]).labels()


def test_write_corpus_reports_and_warns(tmp_path, caplog):
    path = tmp_path / "data.txt"
    path.write_text("one\ntwo\none\n")
    with caplog.at_level(logging.WARNING):
        report = write_corpus(Source(path, dedup=True), tmp_path / "corpus")
    assert (report.rows, report.duplicates, report.skipped) == (2, 1, 0)
    assert [e.text for e in Corpus.load(tmp_path / "corpus")] == ["one", "two"]
    assert json.loads((tmp_path / "corpus" / "report.json").read_text())["duplicates"] == 1
    assert "2 texts, 1 exact repeats left out" in caplog.text


def test_a_cut_corpus_does_not_load(tmp_path):
    corpus_of(tmp_path, ["a", "b"])
    texts = tmp_path / "corpus.jsonl"
    texts.write_bytes(texts.read_bytes()[:-1])
    with pytest.raises(FacError, match="write the corpus again"):
        Corpus.load(tmp_path)

    def broken():
        yield Example([{"role": "user", "content": "a"}])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_examples(broken(), tmp_path)
    with pytest.raises(FacError, match="holds no whole corpus"):
        Corpus.load(tmp_path)


def test_memory_does_not_grow_with_the_texts(tmp_path):
    def examples(count):
        for n in range(count):
            yield Example([{"role": "user", "content": f"{n} " + "x" * 5000}], 0, str(n))

    write_examples(examples(10), tmp_path)  # imports
    tracemalloc.start()
    write_examples(examples(4000), tmp_path)
    corpus = Corpus.load(tmp_path)
    assert corpus[3999].id == "3999"
    assert sum(1 for _ in corpus) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6  # the corpus has 20 MB


def test_overlap(tmp_path):
    first = corpus_of(tmp_path / "first", ["Kill a\n process", "new", "ﬁne  Text", "new two"])
    second = corpus_of(tmp_path / "second", ["kill A process ", "fine text", "other"])
    assert overlap(first, second) == [0, 2]
    assert overlap(second, first) == [0, 1]


def test_toxicchat_train_and_test_share_99_texts(real_data, tmp_path):
    for part in ("train", "test"):
        write_corpus(Source(real_data("toxicchat") / f"toxic_chat_{part}.json"), tmp_path / part)
    train, test = Corpus.load(tmp_path / "train"), Corpus.load(tmp_path / "test")
    shared = overlap(train, test)
    assert len(shared) == 107
    assert len({" ".join(train[i].text.casefold().split()) for i in shared}) == 99
