"""What lies at each codeword, against brute force."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, IteratorSource
from sfvq_jax.interpret import rows_at

K, N, D = 9, 500, 5


@pytest.fixture(params=["one block", "many blocks"])
def x(request, monkeypatch):
    if request.param == "many blocks":
        # the package's function hides the module of the same name
        monkeypatch.setitem(rows_at.__globals__, "MAX_BLOCK", 77)
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32) + 100


def curve_in(x):
    return Curve(jnp.asarray(x[::60] + np.float32(0.3)))


@pytest.mark.parametrize("count", [1, 4])
def test_rows_are_the_nearest_of_brute_force(x, count, tmp_path):
    curve = curve_in(x)
    codewords = np.float64(curve.codewords)
    distances = np.linalg.norm(np.float64(x)[None] - codewords[:, None], axis=2)
    np.save(tmp_path / "x.npy", x)
    for source in (x, jnp.asarray(x), tmp_path / "x.npy"):
        at = rows_at(curve, source, count=count)
        assert_array_equal(at.rows, np.argsort(distances, 1)[:, :count])
        assert_allclose(at.distance, np.sort(distances, 1)[:, :count], rtol=1e-4)
        assert_array_equal(at.size, np.bincount(distances.argmin(0), minlength=K))
        assert at.labels is None


def test_a_codeword_has_the_commonest_label_of_its_rows_or_that_of_the_nearest(x):
    codewords = np.append(curve_in(x).codewords, np.full((1, D), 500, np.float32), 0)
    labels = np.array(["ü", "b", "c"])[np.random.default_rng(1).integers(3, size=N)]
    found = rows_at(Curve(jnp.asarray(codewords)), x, labels=labels)
    near = np.linalg.norm(x[:, None] - codewords[None], axis=2).argmin(1)
    for k in range(K):
        counts = {name: (labels[near == k] == name).sum() for name in "übc"}
        assert counts[found.labels[k]] == max(counts.values())
    assert found.size[K] == 0
    assert found.labels[K] == labels[found.rows[K, 0]]


def test_where_rows_are_fewer_than_wanted_all_are_given():
    x = np.eye(3, dtype=np.float32)
    at = rows_at(Curve(jnp.asarray(x[:2])), x, count=7)
    assert at.rows.shape == (2, 3)
    assert_array_equal(np.sort(at.rows, 1), [[0, 1, 2]] * 2)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.zeros(N - 1, int), f"there are {N - 1} labels of {N} latents"),
        (np.zeros(N), r"type float64 .* such as labels\.astype\(int\) makes"),
        (np.zeros((N, 1), int), r"shape \(500, 1\); expected whole numbers or texts, \[N\]"),
        (np.arange(N), "each of the 500 labels is another one"),
    ],
)
def test_labels_that_are_none_are_named(labels, told):
    x = np.ones((N, D), np.float32)
    with pytest.raises(ValueError, match=told):
        rows_at(Curve(jnp.eye(2, D)), x, labels=labels)


def test_sources_that_have_no_rows_and_settings_that_fit_nothing_are_named():
    x, curve = np.ones((4, D), np.float32), Curve(jnp.eye(2, D))
    for source in (IteratorSource([x]), lambda key, n: jnp.ones((n, D))):
        with pytest.raises(ValueError, match="no order and no end: give an array"):
            rows_at(curve, source)
    with pytest.raises(ValueError, match=f"the latents have width {D - 1}"):
        rows_at(curve, x[:, 1:])
    with pytest.raises(ValueError, match="count is 0; expected 1 or more"):
        rows_at(curve, x, count=0)
