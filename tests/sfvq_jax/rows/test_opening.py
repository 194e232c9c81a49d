"""Rows are the same whatever they lie in, on a disk, in a bucket or behind HTTP."""

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import HostSource, LeastSquares, fit, project
from sfvq_jax.io import store
from sfvq_jax.rows.opening import open_rows
from sfvq_jax.sources import as_source, read_in_order

from ..test_compilation import Compiled
from .conftest import D, N, quantised, write_zarr

SPANS = [(990, 1000), (0, 3), (7, 7), (290, 620)]
READ = "/tensorstore/kvstore/file/bytes_read"


@pytest.fixture
def uncached(monkeypatch):
    """All that is read is read from the disk."""
    monkeypatch.setattr(store, "CACHE_BYTES", 0)
    store.context.cache_clear()
    yield
    store.context.cache_clear()


def bytes_read():
    found = ts.experimental_collect_matching_metrics(READ)
    return sum(metric["values"][0]["value"] for metric in found)


def parts(x, spans=SPANS):
    return np.concatenate([x[first:stop] for first, stop in spans])


NAMES = [
    "x.npy", "half.npy", "brain.npy", "x.safetensors#emb", "x.safetensors", "brain.safetensors",
    "x.fbin", "x2.zarr", "x3.zarr", "sharded.zarr", "brain.zarr", "group.zarr#emb", "parts",
    "parts/", "parts/emb_*.npy", "*.fbin", "group.zarr/emb",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_container_gives_its_rows_as_they_are_stored(containers, x, name):
    rows = open_rows(f"{containers}/{name}")
    dtype = {"half": np.float16, "brai": ml_dtypes.bfloat16}.get(name[:4], np.float32)
    assert (rows.shape, rows.dtype) == ((N, D), dtype)
    assert_array_equal(rows.read(SPANS), parts(x.astype(dtype)))
    assert_array_equal(rows.read([]), x[:0].astype(dtype))
    rows.check_unchanged()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "group.zarr/emb"])
def test_buckets_are_read_as_disks_are(in_bucket, x, name):
    rows = open_rows(f"{in_bucket}/{name}")
    assert_array_equal(rows.read(SPANS), parts(x.astype(rows.dtype)))
    rows.check_unchanged()


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors#emb", "sharded.zarr", "group.zarr#emb"])
def test_pages_are_read_as_disks_are(containers, serve, x, name):
    rows = open_rows(f"{serve(containers).address}/{name}")
    assert_array_equal(rows.read(SPANS), parts(x))
    rows.check_unchanged()


def test_an_object_is_asked_for_by_ranges_of_at_most_four_mebibytes(serve, tmp_path):
    x = np.random.default_rng(0).normal(size=(1200, 2**10)).astype(np.float32)  # 4.7 MiB
    np.save(tmp_path / "x.npy", x)
    pages = serve(tmp_path)
    rows = open_rows(f"{pages.address}/x.npy")
    assert rows.chunk == 512
    pages.asked.clear()
    assert_array_equal(rows.read([(1, 1190), (3, 4)]), parts(x, [(1, 1190), (3, 4)]))
    ranges = [asked.removeprefix("bytes=").split("-") for asked in pages.asked["x.npy"]]
    lengths = sorted(int(last) - int(first) + 1 for first, last in ranges)
    assert lengths == [4096, 165 * 4096, 2**22]


def test_what_a_user_has_in_hand_is_read_with_its_chunks(containers, x):
    array = ts.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{containers}/x3.zarr/"}}
    ).result()
    found = {"tensorstore": HostSource(array), "part of one": HostSource(array[100:300])}
    h5py, zarr = (pytest.importorskip(name) for name in ("h5py", "zarr"))
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        found["h5py"] = HostSource(file.create_dataset("x", data=x, chunks=(50, D)))
        found["zarr"] = HostSource(zarr.open_array(containers / "x2.zarr", mode="r"))
        for name, source in found.items():
            expected = x[100:300] if name == "part of one" else x
            assert_array_equal(source.read(None, 5, 120).x, expected[5:125])
            assert source._rows.chunk == (50 if name == "h5py" else 64)


def test_weights_lie_at_a_uri_too(in_bucket, containers, x, getkey):
    weights = np.abs(x[:, 0])
    np.save(containers / "weights.npy", weights)
    for place in (containers / "weights.npy", f"{in_bucket}/x.safetensors#norm"):
        source = as_source(f"{containers}/x3.zarr", place)
        expected = weights if str(place).endswith(".npy") else x[:, 0]
        if expected is weights:
            assert_array_equal(source.read(None, 3, 90).weight, weights[3:93])
        else:  # some are below 0
            with pytest.raises(ValueError, match="must be finite and at least 0, but that of row"):
                source.read(None, 0, 90)


@pytest.mark.usefixtures("uncached")
class TestOrder:
    def test_a_random_pass_reads_every_chunk_of_every_part_once(self, tmp_path, x, getkey):
        """Counted in bytes; blocks begin anywhere."""
        for i, (first, last) in enumerate([(0, 300), (300, 700), (700, N)]):
            write_zarr(tmp_path / f"part_{i}.zarr", x[first:last], chunk=32)
        source = HostSource(tmp_path)
        key = getkey()
        before = bytes_read()
        found = np.concatenate([source.read(key, at, 250).x for at in range(0, N, 250)])
        taken = bytes_read() - before
        chunks = sum(-(-rows // 32) for rows in (300, 400, 300))
        assert x.nbytes <= taken <= (chunks + 3) * 32 * D * 4  # 3: where one block ends in a chunk
        order = np.lexsort(found.T)
        assert_array_equal(found[order], x[np.lexsort(x.T)])

    def test_samples_to_start_from_and_to_measure_with_come_from_many_places(self, tmp_path):
        x = np.arange(2**16, dtype=np.float32)[:, None] * np.ones(2, np.float32)
        source = HostSource(write_zarr(tmp_path / "x.zarr", x, chunk=2048))
        key = np.uint32([0, 1])
        few = source.scattered(512).read(key, 0, 512).x[:, 0]
        assert len(np.unique(few // 256)) > 230
        assert_array_equal(source.numbers(key, 512), few)
        assert len(np.unique(source.read(key, 0, 512).x[:, 0] // 2048)) == 1

    def test_of_large_chunks_only_parts_are_taken_which_is_told(self, tmp_path, getkey):
        x = np.arange(2**15, dtype=np.float32)[:, None] * np.ones(2, np.float32)
        source = HostSource(write_zarr(tmp_path / "x.zarr", x, chunk=2**14))
        with pytest.warns(UserWarning, match="lies in chunks of 16384 rows, which are read whole"):
            found = source.read(getkey(), 0, 2000).x[:, 0]
        assert len(np.unique(found // 2**11)) == 16
        assert source.read(None, 17, 0).x.shape == (0, 2)
        # in order each is read once
        before = bytes_read()
        rows = [source.read(None, at, 1000).x for at in range(0, 2**15, 1000)]
        assert_array_equal(np.concatenate(rows), x)
        assert bytes_read() - before <= 1.01 * x.nbytes


class TestStoredTypes:
    def test_small_types_stay_as_they_are_until_they_are_on_the_device(self, containers, x):
        for name, dtype in (("half.npy", np.float16), ("brain.zarr", ml_dtypes.bfloat16)):
            source = HostSource(containers / name)
            assert source.read(None, 0, 9).x.dtype == dtype
            assert_array_equal(read_in_order(source, 0, 9), x[:9].astype(dtype).astype(np.float32))
        assert HostSource(x.astype(np.float64)).read(None, 0, 9).x.dtype == np.float32
        assert HostSource(x.astype(">f4")).read(None, 0, 9).x.dtype == np.float32

    @pytest.mark.parametrize("bad", [np.nan, -np.inf, 3e38])
    def test_what_is_not_finite_or_large_is_found_in_them(self, x, bad):
        x = x.astype(ml_dtypes.bfloat16)
        x[77, 3] = bad
        with pytest.raises(ValueError, match="in 1 of 1000 rows, the first in row 77"):
            HostSource(x).look_through()

    def test_whole_numbers_are_taken_with_a_scale(self, containers, x):
        with pytest.raises(ValueError, match=r"of type int8; .*HostSource\(…, scale=\), --scale"):
            HostSource(containers / "int8.zarr")
        source = HostSource(containers / "int8.zarr", scale=1 / 16)
        assert source.read(None, 0, 9).x.dtype == np.int8
        assert_allclose(read_in_order(source, 0, N), (quantised(x) - 128) / 16)
        for name, less in (("x.u8bin", 0), ("x.i8bin", 128)):  # whose scale is 1
            found = read_in_order(HostSource(containers / name), 0, N)
            assert_array_equal(found, quantised(x) - less)

    def test_a_fit_of_them_is_that_of_their_values(self, containers, x, getkey):
        solver, key = LeastSquares(rounds=2, samples="all", block=300), getkey()
        values = (quantised(x) - 128).astype(np.float32) / 16
        source = HostSource(containers / "int8.zarr", scale=1 / 16)
        curves = [fit(key, s, bits=2, solver=solver).curve for s in (HostSource(values), source)]
        # many of such numbers are at equal distances from two lines, where rounding decides
        assert_allclose(curves[1].codewords, curves[0].codewords, atol=5e-3)
        with Compiled() as compiled:  # also of the last block of a pass, which is short
            fit(getkey(), source, bits=2, solver=solver)
        assert compiled.number == 0
        expected = project(curves[0], values).position
        assert_allclose(project(curves[0], read_in_order(source, 0, N)).position, expected)


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("none.npy", FileNotFoundError, "there is no file .*none.npy"),
        ("none.zarr", FileNotFoundError, "there is no array of zarr in .*none.zarr"),
        ("none.fbin", FileNotFoundError, "there is no file .*none.fbin"),
        ("none_*.npy", FileNotFoundError, r"nothing to read in .*none_\*.npy; latents lie"),
        ("group.zarr", ValueError, "is a group of emb, norm: name one of its arrays, .*zarr#NAME"),
        ("group.zarr#q", FileNotFoundError, "there is no array of zarr in .*group.zarr#q"),
        ("x.safetensors#q", ValueError, "holds the tensors emb, norm: name one"),
        ("", ValueError, "holds files of several kinds, such as .* and .*: name one kind"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_named(containers, name, error, told):
    with pytest.raises(error, match=told):
        open_rows(f"{containers}/{name}")


def test_parts_that_differ_are_named_both(tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    for other, told in ((x[:, :5], r"rows of shape \(5,\), but .*a.npy \(8,\)"),
                        (x.astype(np.float16), "type float16, but .*a.npy float32")):  # fmt: skip
        np.save(tmp_path / "b.npy", other)
        with pytest.raises(ValueError, match=rf"b\.npy has {told}: parts of one array are alike"):
            open_rows(tmp_path)
