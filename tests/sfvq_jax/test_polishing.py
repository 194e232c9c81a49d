"""Polishing: the faults it mends, and that it never makes a curve worse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import (
    Curve,
    HostSource,
    IteratorSource,
    LeastSquares,
    distortion,
    line_lengths,
    sharding,
)
from sfvq_jax.polishing import polish

K, D = 32, 4
SOLVER = LeastSquares(samples=2048)
KEY = jax.random.key(0)


def arc(key, n):
    """Points near three quarters of a circle."""
    angle, noise = jax.random.split(key)
    angle = jax.random.uniform(angle, (n,), maxval=1.5 * jnp.pi)
    on_arc = jnp.pad(jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1), ((0, 0), (0, D - 2)))
    return on_arc + 0.05 * jax.random.normal(noise, (n, D))


def along_arc():
    angle = np.linspace(0, 1.5 * np.pi, K)
    return np.pad(np.stack([np.cos(angle), np.sin(angle)], 1), ((0, 0), (0, D - 2)))


def as_curve(codewords):
    return Curve(jnp.asarray(codewords, jnp.float32))


X = arc(jax.random.key(7), 4096)  # so few that all of them are the held samples


def objective(curve, solver=SOLVER):
    return float(distortion(curve, X)) + float(solver.penalty(curve))


class TestFaults:
    def test_reversed_stretches_are_mended(self):
        codewords = along_arc()
        codewords[4:11] = codewords[4:11][::-1]
        codewords[20:28] = codewords[20:28][::-1]
        polished = polish(KEY, as_curve(codewords), X, solver=SOLVER, rounds=0)
        assert_allclose(polished.codewords, along_arc(), atol=1e-6)

    def test_a_dead_codeword_goes_to_the_middle_of_the_most_used_line(self):
        random = np.random.default_rng(0)
        x = np.concatenate([random.uniform(0, 2, 900), random.uniform(2, 4, 100)])
        x = np.stack([x, random.normal(size=1000) * 0.01], 1).astype(np.float32)
        curve = as_curve([[0, 0], [2, 0], [4, 0], [4, 50]])
        polished = polish(KEY, curve, x, solver=SOLVER, rounds=0)
        assert_allclose(polished.codewords, [[0, 0], [1, 0], [2, 0], [4, 0]], atol=1e-5)

    @pytest.mark.parametrize("dead", [[31], [0, 12, 13, 30]])
    def test_dead_codewords_come_back_into_use(self, dead):
        codewords = along_arc()
        codewords[dead] += 20
        polished = np.asarray(polish(KEY, as_curve(codewords), X, solver=SOLVER).codewords)
        nearest = np.linalg.norm(X[:, None] - polished[None], axis=2).argmin(1)
        assert np.bincount(nearest, minlength=K).min() > 20
        assert objective(as_curve(polished)) < 0.2 * objective(as_curve(codewords))

    def test_a_shuffled_curve_becomes_as_short_as_an_ordered_one(self):
        shuffled = as_curve(np.random.default_rng(0).permutation(along_arc()))
        polished = polish(KEY, shuffled, X, solver=SOLVER)
        assert line_lengths(polished).mean() < 0.15 * line_lengths(shuffled).mean()
        assert_allclose(line_lengths(polished).sum(), 1.5 * np.pi, rtol=0.1)


class TestPolish:
    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("penalty", [0.0, 2.0])
    def test_never_makes_the_objective_on_held_samples_worse(self, seed, penalty):
        solver = LeastSquares(length_penalty=penalty, samples=64)  # rounds of much noise
        curve = as_curve(np.random.default_rng(seed).normal(size=(K, D)))
        once = polish(jax.random.key(seed), curve, X, solver=solver)
        again = polish(jax.random.key(seed), once, X, solver=solver)
        assert objective(curve, solver) > objective(once, solver) >= objective(again, solver)

    def test_the_best_of_the_rounds_is_returned(self):
        curve = as_curve(along_arc())
        few, more = (polish(KEY, curve, X, solver=SOLVER, rounds=rounds) for rounds in (2, 6))
        assert objective(few) >= objective(more)

    @pytest.mark.parametrize("name", ["array", "sampler", "file", "iterator"])
    def test_the_same_key_gives_the_same_curve_from_every_source(self, name, tmp_path):
        np.save(tmp_path / "x.npy", X)
        source = {
            "array": X,
            "sampler": arc,
            "file": HostSource.of_file(tmp_path / "x.npy"),
            "iterator": IteratorSource([np.asarray(X)] * 2),
        }[name]
        curve = as_curve(along_arc() * 1.2)
        before = np.array(curve.codewords)
        one, other = (polish(KEY, curve, source, solver=SOLVER, rounds=4) for _ in range(2))
        assert_array_equal(one.codewords, other.codewords)
        assert_array_equal(curve.codewords, before)
        assert objective(one) < 0.8 * objective(curve)

    def test_a_pass_over_a_file_and_over_the_same_array_are_alike(self, tmp_path):
        np.save(tmp_path / "x.npy", X)
        solver = LeastSquares(samples="all", block=1000)
        curve = as_curve(along_arc() * 1.2)
        of_file = polish(KEY, curve, tmp_path / "x.npy", solver=solver, rounds=3)
        of_array = polish(KEY, curve, X, solver=solver, rounds=3)
        assert_allclose(of_file.codewords, of_array.codewords, atol=1e-5)

    def test_rounds_share_one_program(self):
        curve = as_curve(along_arc())
        before = sharding.add_drawn._cache_size()
        polish(KEY, curve, arc, solver=SOLVER, rounds=5)
        assert sharding.add_drawn._cache_size() <= before + 1

    def test_a_codebook_too_large_for_2_opt_keeps_its_order(self, monkeypatch):
        monkeypatch.setattr("sfvq_jax.polishing.TWO_OPT_CODEWORDS", K - 1)
        shuffled = as_curve(np.random.default_rng(0).permutation(along_arc()))
        polished = polish(KEY, shuffled, X, solver=SOLVER, rounds=0)
        assert_array_equal(polished.codewords, shuffled.codewords)

    def test_what_cannot_be_done_is_refused(self):
        curve = as_curve(along_arc())
        with pytest.raises(ValueError, match="rounds is -1"):
            polish(KEY, curve, X, rounds=-1)
        with pytest.raises(ValueError, match='samples is "all"'):
            polish(KEY, curve, arc, solver=LeastSquares(samples="all"))
        with pytest.raises(ValueError, match=r"shape \[N, 4\]"):
            polish(KEY, curve, np.zeros((100, 3), np.float32))
