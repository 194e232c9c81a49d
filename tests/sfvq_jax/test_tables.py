"""Parquet, HDF5 and datasets of Hugging Face give the rows that were written, or say why not."""

import sys

import datasets
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorstore as ts
import zarr
from numpy.testing import assert_array_equal

from sfvq_jax import HostSource
from sfvq_jax.rows.arrow import DatasetRows
from sfvq_jax.rows.hdf5 import ChunkedRows, hdf5_rows
from sfvq_jax.rows.npy import FileRows
from sfvq_jax.rows.opening import open_rows
from sfvq_jax.rows.parquet import parquet_rows
from sfvq_jax.rows.rows import Rows
from sfvq_jax.sources import as_source

N, D = 1000, 6
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
SPANS = [(990, 1000), (0, 3), (95, 305), (3, 3), (2, 4)]
WANTED = np.concatenate([X[start:stop] for start, stop in SPANS])


def lists(x, kind=pa.list_):
    """Rows as a column of Arrow."""
    offsets = np.arange(0, x.size + 1, x.shape[1])
    if kind is pa.list_:
        return pa.ListArray.from_arrays(offsets.astype(np.int32), x.reshape(-1))
    if kind is pa.large_list:
        return pa.LargeListArray.from_arrays(offsets, x.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(x.reshape(-1), x.shape[1])


def parquet(path, columns, size=100, **options):
    """The path of a new file."""
    pq.write_table(pa.table(columns), path, row_group_size=size, **options)
    return str(path)


def assert_same_rows(rows, dtype=np.float32, wanted=WANTED, chunk=None):
    assert isinstance(rows, Rows)
    assert rows.shape == (N, *wanted.shape[1:])
    assert rows.dtype == dtype
    assert chunk is None or rows.chunk == chunk
    found = rows.read(SPANS)
    assert found.dtype == dtype
    assert_array_equal(found, wanted.astype(dtype))
    assert_array_equal(rows.read([(500, 501)])[0], rows.read([(400, 600)])[100])
    assert rows.read([]).shape == (0, *wanted.shape[1:])
    rows.check_unchanged()


class TestParquet:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("kind", [pa.list_, pa.large_list, "fixed"])
    def test_lists_are_rows(self, tmp_path, kind, dtype):
        columns = {"id": pa.array(range(N)), "emb": lists(X.astype(dtype), kind)}
        assert_same_rows(parquet_rows(parquet(tmp_path / "x.parquet", columns)), dtype, chunk=100)

    def test_a_column_is_chosen_by_its_name(self, tmp_path):
        path = parquet(tmp_path / "x.parquet", {"a": lists(-X), "b.c": lists(X), "w": X[:, 0]})
        assert_same_rows(parquet_rows(path, "b.c"))
        assert_same_rows(parquet_rows(path, "w"), wanted=WANTED[:, 0])
        with pytest.raises(ValueError, match=r"a \(list.*b\.c \(list.*name one as .*#NAME"):
            parquet_rows(path)
        with pytest.raises(ValueError, match="expected d with numbers, or lists of them"):
            parquet_rows(path, "d")

    def test_columns_of_floats_are_dimensions(self, tmp_path):
        path = parquet(tmp_path / "x.parquet", {f"x{i}": X[:, i] for i in range(D)}, size=300)
        assert_same_rows(parquet_rows(path), chunk=300)

    def test_few_row_groups_are_in_memory_at_once(self, tmp_path, monkeypatch):
        rows = parquet_rows(parquet(tmp_path / "x.parquet", {"emb": lists(X)}))
        asked = []
        read = rows._file.read_row_groups
        monkeypatch.setattr("sfvq_jax.rows.parquet.TOGETHER", 3 * max(rows._bytes))
        monkeypatch.setattr(
            rows._file, "read_row_groups", lambda groups, **_: asked.append(groups) or read(groups)
        )
        assert_array_equal(rows.read([(950, 1000), (0, 700)]), np.concatenate([X[950:], X[:700]]))
        assert asked == [[9, 0, 1], [2, 3, 4], [5, 6]]

    @pytest.mark.parametrize(
        ("row", "what"),
        [(None, "a missing value"), ([1.0] * 5 + [None], "a missing value"), ([1.0], "1 numbers")],
    )
    def test_a_row_that_is_not_there_is_named(self, tmp_path, row, what):
        column = pa.array([*X[:345].tolist(), row, *X[346:].tolist()], pa.list_(pa.float32()))
        rows = parquet_rows(parquet(tmp_path / "x.parquet", {"emb": column}))
        assert_array_equal(rows.read([(0, 300)]), X[:300])
        with pytest.raises(ValueError, match=f"column emb of .*x.parquet has {what} in row 345"):
            rows.read([(200, 500)])

    def test_files_that_are_damaged_missing_or_new(self, tmp_path):
        path = tmp_path / "x.parquet"
        with pytest.raises(FileNotFoundError, match=r"no file .*x\.parquet"):
            parquet_rows(str(path))
        path.write_bytes(b"PAR1 no such thing")
        with pytest.raises(ValueError, match="is no Parquet file, or a damaged one"):
            parquet_rows(str(path))
        with pytest.raises(ValueError, match="disks, gs:// and s3://; download it"):
            parquet_rows("https://example.org/x.parquet")
        parquet(path, {"emb": lists(X)}, write_page_checksum=True, compression="none")
        rows, data = parquet_rows(str(path)), bytearray(path.read_bytes())
        data[data.find(X[555].tobytes()[:8])] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match="changed while it was read"):
            rows.check_unchanged()
        with pytest.raises(ValueError, match=r"rows 500 to 599 cannot be read: .*CRC"):
            parquet_rows(str(path)).read([(550, 560)])


class TestHDF5:
    def test_rows_in_one_piece_are_read_from_the_file_itself(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["latents"], file["labels"] = X, np.arange(N)
        rows = hdf5_rows(str(tmp_path / "x.h5"))
        assert isinstance(rows, FileRows)
        assert_same_rows(rows)

    @pytest.mark.parametrize("dtype", ["f2", ">f4", "f8"])
    def test_chunks_may_be_compressed(self, tmp_path, dtype):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            data = X.astype(dtype)
            options = {"compression": "gzip", "fletcher32": True}
            file.create_dataset("of/a", data=data, chunks=(32, 4), **options)
            file.create_dataset("of/b", data=-data)
        path = str(tmp_path / "x.h5")
        assert_same_rows(hdf5_rows(path, "of/a"), dtype[-2:], chunk=32)
        with pytest.raises(ValueError, match=r"of/a \(1000, 6\) .*of/b .*; name one as .*#NAME"):
            hdf5_rows(path)
        with pytest.raises(ValueError, match="expected c"):
            hdf5_rows(path, "c")

    def test_rows_that_were_never_written_are_no_zeros(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            lost = file.create_dataset("lost", (N, D), "f4", chunks=(32, 4))
            lost[:640], lost[672:] = X[:640], X[672:]
            file.create_dataset("never", (N, D), "f4")
        for name, row in (("lost", 640), ("never", 0)):
            with pytest.raises(ValueError, match=f"never written, the first of them row {row}"):
                hdf5_rows(str(tmp_path / "x.h5"), name)

    def test_an_open_dataset_is_read_while_it_is_open(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["latents"] = X
        with h5py.File(tmp_path / "x.h5") as file:
            rows = ChunkedRows(file["latents"])
            assert_same_rows(rows)
        with pytest.raises(ValueError, match="rows 1 to 2 cannot be read"):
            rows.read([(1, 3)])

    def test_files_that_are_damaged_or_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            hdf5_rows(str(tmp_path / "x.h5"))
        (tmp_path / "x.h5").write_bytes(b"no such thing")
        with pytest.raises(ValueError, match="is no HDF5 file, or a damaged one"):
            hdf5_rows(str(tmp_path / "x.h5"))
        with pytest.raises(ValueError, match="HDF5 is read from disks; download it"):
            hdf5_rows("s3://bucket/x.h5")


class TestHuggingFace:
    dataset = datasets.Dataset.from_dict({"emb": X, "label": list(range(N))})

    def test_a_column_of_lists_is_rows(self):
        assert_same_rows(DatasetRows(self.dataset))
        halves = [self.dataset.select(range(400)), self.dataset.select(range(400, N))]
        assert_same_rows(DatasetRows(datasets.concatenate_datasets(halves)))

    def test_one_of_several_columns_is_selected(self):
        dataset = self.dataset.add_column("other", [[1.0]] * N)
        assert_same_rows(DatasetRows(dataset.select_columns("emb")))
        with pytest.raises(ValueError, match=r"2 columns of lists .* dataset\.select_columns"):
            DatasetRows(dataset)
        with pytest.raises(ValueError, match="no columns of lists of floats, of label"):
            DatasetRows(dataset.select_columns("label"))

    def test_shuffled_rows_lie_apart_until_they_are_flattened(self):
        dataset = self.dataset.shuffle(seed=1)
        with pytest.raises(ValueError, match=r"shuffled or selected.*flatten_indices\(\)"):
            DatasetRows(dataset)
        found = DatasetRows(dataset.flatten_indices()).read([(0, N)])
        assert_array_equal(found, dataset.with_format("numpy")["emb"][:])

    def test_a_missing_row_is_named(self):
        dataset = datasets.Dataset.from_dict({"emb": [[1.0, 2.0], [3.0, 4.0], None]})
        with pytest.raises(ValueError, match=r"column emb of the dataset has .* in row 2"):
            DatasetRows(dataset).read([(1, 3)])


@pytest.mark.parametrize(
    ("package", "module", "suffix"), [("pyarrow", "parquet", ".parquet"), ("h5py", "hdf5", ".h5")]
)
def test_a_package_that_is_not_installed_is_named(monkeypatch, package, module, suffix):
    monkeypatch.delitem(sys.modules, f"sfvq_jax.rows.{module}")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"x{suffix} takes the package {package}.*\[{module}\]"):
        open_rows(f"x{suffix}")


def test_a_folder_of_them_is_one_array(tmp_path):
    for i, part in enumerate(np.split(X, [300, 700])):
        parquet(tmp_path / f"part_{9 + i}.parquet", {"emb": lists(part)})
    assert_same_rows(open_rows(tmp_path))


def test_arrays_of_other_libraries_are_sources_as_they_are(tmp_path):
    stored = zarr.create_array(store=tmp_path / "x.zarr", data=X, chunks=(100, D))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["latents"] = X
        opened = ts.array(X), stored, file["latents"], datasets.Dataset.from_dict({"emb": X})
        for source in map(as_source, opened):
            assert isinstance(source, HostSource)
            assert_array_equal(source.read(None, 90, 20).x, X[90:110])
