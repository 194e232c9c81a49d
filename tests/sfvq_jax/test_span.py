"""Data of low rank: the fit in its span is the fit in all dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax import Curve, HostSource, IteratorSource, LeastSquares, data_mesh, fit, project
from sfvq_jax.span import Span, find_span

KEY = jax.random.key(0)
SOLVER = LeastSquares(rounds=4, tolerance=0.0, samples=4096)
WIDE, RANK = 64, 6
TO_WIDE = np.random.default_rng(0).normal(size=(RANK, WIDE)).astype(np.float32)


def narrow(n, seed=0):
    """Clusters at a distance from the origin, whose start is by norm."""
    random = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(7).normal(size=(5, RANK)) + 2
    return (centres[random.integers(5, size=n)] + random.normal(size=(n, RANK))).astype(np.float32)


def wide(n, seed=0):
    return narrow(n, seed) @ TO_WIDE


class TestSpan:
    @pytest.mark.parametrize("offset", [0.0, 5.0, 1000.0])
    def test_has_the_rank_of_the_data_and_their_norms_and_distances(self, offset):
        x = wide(500) + np.float32(offset)
        span = find_span(x)
        assert span.rank == RANK + (offset > 0)
        y = np.asarray(span.enter(jnp.asarray(x)))
        assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)
        scale = np.abs(x).max()
        assert_allclose(span.leave(jnp.asarray(y)), x, atol=1e-5 * scale)

    def test_needs_no_square_matrix_of_many_dimensions(self):
        x = np.zeros((40, 200_000), np.float32)
        x[:, :5] = np.random.default_rng(0).normal(size=(40, 5))
        assert find_span(x).rank == 5

    @pytest.mark.parametrize("rank", [33, 64])
    def test_is_none_where_the_rank_is_near_the_width(self, rank):
        random = np.random.default_rng(0)
        x = random.normal(size=(1000, rank)) @ random.normal(size=(rank, WIDE))
        assert find_span(x.astype(np.float32)).rank is None

    def test_is_none_of_narrow_latents(self):
        x = np.zeros((100, 8), np.float32)
        x[:, 0] = np.arange(100)
        assert find_span(x).rank is None

    def test_rows_that_are_rare_are_in_it_too(self):
        x = wide(5000)
        x[17] = np.random.default_rng(3).normal(size=WIDE)
        x[4321] = np.random.default_rng(4).normal(size=WIDE)
        span = find_span(x)
        assert span.rank is None or span.share_outside(jnp.asarray(x), jnp.ones(5000)) < 1e-6

    def test_share_outside_is_that_of_the_variance(self):
        basis = jnp.asarray(np.eye(WIDE, 2, dtype=np.float32))
        x = np.random.default_rng(0).normal(size=(4000, WIDE)).astype(np.float32)
        weight = jnp.asarray(np.arange(4000) < 3000, jnp.float32)
        expected = x[:3000, 2:].var(0).sum() / x[:3000].var(0).sum()
        assert_allclose(Span(basis).share_outside(jnp.asarray(x), weight), expected, rtol=1e-3)


class TestFit:
    def test_is_the_fit_in_the_dimensions_of_the_data(self):
        """Lifted by a matrix of orthonormal rows, which changes no distance."""
        lift = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDE, RANK)))[0].T
        x = narrow(3000) @ lift.astype(np.float32)
        result = fit(KEY, x, bits=3, solver=SOLVER)
        expected = fit(KEY, narrow(3000), bits=3, solver=SOLVER)
        assert result.rank == RANK
        assert expected.rank is None
        assert result.outside < 1e-8
        scale = RANK / WIDE  # of a mean over dimensions
        for name in ("loss", "objective", "distortion"):
            one, other = (getattr(r.history, name) for r in (result, expected))
            assert_allclose(one, scale * other, rtol=1e-3)
        assert result.curve.codewords.shape == (8, WIDE)
        distance = project(result.curve, jnp.asarray(x)).squared_distance
        assert_allclose(distance.mean() / WIDE, result.history.distortion[-1], rtol=1e-4)

    @pytest.mark.parametrize("devices", [1, 3])
    @pytest.mark.parametrize("kind", ["array", "host", "iterator", "sampler"])
    def test_every_kind_of_source_is_mapped(self, kind, devices):
        x = wide(2000)
        mixing = jnp.asarray(TO_WIDE)
        source = {
            "array": lambda: x,
            "host": lambda: HostSource(x),
            "iterator": lambda: IteratorSource(np.split(x, 5)),
            "sampler": lambda: lambda key, n: jax.random.normal(key, (n, RANK)) @ mixing,
        }[kind]()
        solver = LeastSquares(rounds=2, samples=3000)
        mesh = data_mesh(jax.devices()[:devices])
        result = fit(KEY, source, bits=2, solver=solver, mesh=mesh)
        assert result.rank == RANK
        assert result.outside < 1e-8
        span = np.linalg.qr(TO_WIDE.T)[0]
        codewords = np.asarray(result.curve.codewords)
        assert_allclose(codewords @ span @ span.T, codewords, atol=1e-4 * np.abs(codewords).max())

    def test_what_later_latents_have_outside_is_told(self):
        x = wide(20_000)
        x[9000:] += 3 * np.random.default_rng(5).normal(size=(11_000, WIDE)).astype(np.float32)
        result = fit(KEY, IteratorSource([x]), bits=2, solver=LeastSquares(rounds=1, samples=2000))
        assert result.rank == RANK
        assert result.outside > 0.1
        assert any("lies outside of the 6 dimensions" in warning for warning in result.warnings)

    def test_an_array_with_rows_outside_is_fitted_in_all_dimensions(self):
        x = wide(20_000)
        x[-5:] += 100 * np.random.default_rng(5).normal(size=(5, WIDE)).astype(np.float32)
        result = fit(KEY, x, bits=2, solver=LeastSquares(rounds=1, samples=2000))
        assert result.rank is None

    def test_a_start_is_mapped_too(self):
        start = Curve(jnp.asarray(wide(8, seed=4)))
        solver = LeastSquares(rounds=1)
        result = fit(KEY, wide(2000), bits=3, solver=solver, start=start)
        assert result.rank == RANK
        assert set(result.history.codewords.tolist()) == {8}
