"""fac.pooled against dense arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fac.pooled import DiskArray, Pooled, PooledWriter

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 12), st.integers(1, 7)),
    elements=st.sampled_from([0.0, 0.0, 0.0, -1.0, 0.25, 1.0, 3.5]),
)


def dense(pooled):
    rows = [pooled.row(text) for text in range(pooled.n_texts)]
    return np.array(rows, np.float32).reshape(-1, pooled.n_features)


def written(folder, matrix, cuts):
    writer = PooledWriter(folder, matrix.shape[1], {"rule": "paper"})
    for part in np.split(matrix, sorted(cuts)):
        writer.append(part)
    writer.close()
    return Pooled.load(folder)


@settings(deadline=None)
@given(matrix=matrices, data=st.data())
def test_what_is_written_in_parts_is_read_whole(tmp_path_factory, matrix, data):
    cuts = data.draw(st.lists(st.integers(0, len(matrix)), max_size=3))
    on_disk = written(tmp_path_factory.mktemp("pooled"), matrix, cuts)
    in_memory = Pooled.from_dense(matrix)
    expected = matrix.clip(min=0)
    for pooled in (on_disk, in_memory):
        assert (pooled.n_texts, pooled.n_features) == matrix.shape
        np.testing.assert_array_equal(dense(pooled), expected)
        np.testing.assert_array_equal(pooled.maxima(), expected.max(axis=0, initial=0))
    assert on_disk.meta == {"n_features": matrix.shape[1], "n_texts": len(matrix), "rule": "paper"}


@settings(deadline=None)
@given(matrix=matrices, data=st.data())
def test_rows_that_come_in_any_order_are_read_in_that_of_the_corpus(tmp_path_factory, matrix, data):
    """Texts that never come have no entries."""
    folder, whole = tmp_path_factory.mktemp("pooled"), Pooled.from_dense(matrix)
    order = data.draw(st.permutations(range(len(matrix))))
    came = np.array(order[: data.draw(st.integers(0, len(matrix)))], np.int64)
    writer = PooledWriter(folder, matrix.shape[1])
    for texts in np.split(came, sorted(data.draw(st.lists(st.integers(0, len(came)), max_size=3)))):
        part = whole.take(texts)
        writer.put(texts, np.diff(part.indptr), np.asarray(part.indices), np.asarray(part.values))
    writer.close(len(matrix), cut=3)
    expected = matrix.clip(min=0)
    expected[sorted(set(order) - set(came.tolist()))] = 0
    read = Pooled.load(folder)
    np.testing.assert_array_equal(dense(read), expected)
    assert read.meta == {"n_features": matrix.shape[1], "n_texts": len(matrix), "cut": 3}
    assert {path.name for path in folder.iterdir()} == {"indices.i32", "values.f32", "indptr.npy", "pooled.json"}


@settings(deadline=None)
@given(matrix=matrices, entries=st.integers(1, 20))
def test_chunks_are_all_rows_in_order_and_bounded(matrix, entries):
    pooled = Pooled.from_dense(matrix)
    seen, rebuilt = 0, np.zeros_like(matrix)
    for rows in pooled.chunks(entries):
        assert rows.first == seen
        assert rows.indptr[0] == 0
        assert len(rows.indices) == len(rows.values) == rows.indptr[-1]
        assert rows.indptr[-1] <= entries or len(rows.indptr) == 2  # one text alone may be larger
        rebuilt[rows.row_of_entry(), rows.indices] = rows.values
        seen += len(rows.indptr) - 1
    assert seen == len(matrix)
    np.testing.assert_array_equal(rebuilt, matrix.clip(min=0))


@settings(deadline=None)
@given(matrix=matrices, data=st.data())
def test_take_gives_those_rows_in_that_order(tmp_path_factory, matrix, data):
    rows = st.lists(st.integers(0, len(matrix) - 1), max_size=8) if len(matrix) else st.just([])
    texts = np.array(data.draw(rows), np.int64)
    for pooled in (Pooled.from_dense(matrix), written(tmp_path_factory.mktemp("pooled"), matrix, [])):
        taken = pooled.take(texts)
        assert taken.n_features == matrix.shape[1]
        np.testing.assert_array_equal(dense(taken), matrix.clip(min=0)[texts])


@settings(deadline=None)
@given(values=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=30), data=st.data())
def test_a_disk_array_reads_like_an_array(tmp_path_factory, values, data):
    array = np.array(values, np.int32)
    path = tmp_path_factory.mktemp("array") / "a.i32"
    array.tofile(path)
    on_disk = DiskArray(path, np.int32, len(array))
    bound = st.none() | st.integers(-35, 35)
    part = slice(data.draw(bound), data.draw(bound))
    assert len(on_disk) == len(array)
    np.testing.assert_array_equal(on_disk[part], array[part])
    pick = data.draw(st.lists(st.integers(0, len(array) - 1), max_size=6)) if len(array) else []
    np.testing.assert_array_equal(on_disk[np.array(pick, np.int64)], array[np.array(pick, np.int64)])


def test_what_was_not_finished_cannot_be_loaded(tmp_path):
    writer = PooledWriter(tmp_path, 3)
    writer.append(np.ones((2, 3), np.float32))
    with pytest.raises(FileNotFoundError):
        Pooled.load(tmp_path)
    writer.close()
    assert Pooled.load(tmp_path).n_texts == 2
