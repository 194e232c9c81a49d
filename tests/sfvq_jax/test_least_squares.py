"""The normal equations of a codebook, against dense float64 algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax import Curve, project
from sfvq_jax.least_squares import (
    PULL,
    add_samples,
    objective,
    solve,
    solve_tridiagonal,
    zero_sums,
)


def assigned(n, k, d, seed=0, offset=0.0):
    """Random samples with random places on a random curve."""
    random = np.random.default_rng(seed)
    curve = Curve(jnp.asarray(offset + random.normal(size=(k, d)), jnp.float32))
    x = (offset + random.normal(size=(n, d))).astype(np.float32)
    line = random.integers(0, k - 1, n).astype(np.int32)
    fraction = random.uniform(size=n).astype(np.float32)
    fraction[: n // 4] = random.integers(0, 2, n // 4)  # many project onto codewords themselves
    weight = random.uniform(0.5, 2, n).astype(np.float32)
    return curve, x, weight, line, fraction


def places(line, fraction, k):
    """The matrix [N, K] that makes points of codewords, in float64."""
    matrix = np.zeros((len(line), k))
    rows = np.arange(len(line))
    matrix[rows, line] += 1 - fraction.astype(np.float64)
    matrix[rows, line + 1] += fraction.astype(np.float64)
    return matrix


def errors(curve, x, line, fraction):
    points = places(line, fraction, curve.num_codewords) @ np.asarray(curve.codewords, np.float64)
    return np.sum((x - points) ** 2, 1).astype(np.float32)


def summed(curve, x, weight, line, fraction, origin=None):
    origin = curve.codewords.mean(0) if origin is None else origin
    squared = errors(curve, x, line, fraction)
    return add_samples(zero_sums(curve), x, weight, line, fraction, squared, origin), origin


# beyond 256 codewords the sums are added row by row
SHAPES = [(1, 2, 1), (7, 4, 3), (1500, 64, 5), (3000, 256, 2), (3000, 300, 4)]


class TestSums:
    @pytest.mark.parametrize(("n", "k", "d"), SHAPES)
    def test_are_the_tridiagonal_normal_matrix_and_the_right_hand_side(self, n, k, d):
        curve, x, weight, line, fraction = assigned(n, k, d)
        sums, origin = summed(curve, x, weight, line, fraction)
        matrix = places(line, fraction, k)
        normal = matrix.T @ (weight[:, None] * matrix)
        assert_allclose(sums.diagonal, np.diagonal(normal), rtol=2e-5, atol=1e-5)
        assert_allclose(sums.coupling[:-1], np.diagonal(normal, 1), rtol=2e-5, atol=1e-5)
        moment = matrix.T @ (weight[:, None] * (x - np.asarray(origin)))
        assert_allclose(sums.moment, moment, rtol=1e-4, atol=1e-4)
        error = weight @ errors(curve, x, line, fraction)
        assert_allclose(sums.coupling[-1], error, rtol=1e-5)
        assert_allclose(sums.weight, weight.sum(), rtol=1e-5)

    def test_are_k_d_plus_2_k_numbers(self):
        curve, *_ = assigned(4, 8, 3)
        assert sum(leaf.size for leaf in jax.tree.leaves(zero_sums(curve))) == 8 * 3 + 2 * 8

    @pytest.mark.parametrize("k", [16, 300])
    def test_of_parts_add_up(self, k):
        curve, *samples = assigned(2000, k, 3)
        whole, origin = summed(curve, *samples)
        squared = errors(curve, samples[0], *samples[2:])
        parts = zero_sums(curve)
        for part in (slice(0, 700), slice(700, 701), slice(701, 2000)):
            arrays = [array[part] for array in (*samples, squared)]
            parts = add_samples(parts, *arrays, origin)
        for one, other in zip(whole, parts, strict=True):
            assert_allclose(other, one, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("k", [16, 300])
    def test_samples_of_no_weight_count_nothing(self, k):
        curve, x, weight, line, fraction = assigned(1200, k, 3)
        weight[1000:] = 0
        some, origin = summed(curve, x, weight, line, fraction)
        x[1000:] = 1e6
        others, _ = summed(curve, x, weight, line, fraction, origin)
        for one, other in zip(some, others, strict=True):
            assert_allclose(other, one, rtol=1e-6)


class TestSolve:
    @pytest.mark.parametrize(("n", "k", "d"), SHAPES)
    @pytest.mark.parametrize("length_penalty", [0.0, 0.1, 10.0])
    def test_is_the_minimum_of_the_objective_with_its_pull(self, n, k, d, length_penalty):
        curve, x, weight, line, fraction = assigned(n, k, d)
        sums, origin = summed(curve, x, weight, line, fraction)
        matrix = places(line, fraction, k)
        steps = np.diff(np.eye(k), axis=0)
        load = weight.sum() / k
        normal = matrix.T @ (weight[:, None] * matrix)
        normal += load * (length_penalty * steps.T @ steps + PULL * np.eye(k))
        right = matrix.T @ (weight[:, None] * x) + PULL * load * np.asarray(curve.codewords)
        expected = np.linalg.solve(normal, right)
        solved = solve(sums, curve, length_penalty, origin).codewords
        # a line that few samples fall on is badly determined
        assert_allclose(solved, expected, rtol=2e-2, atol=2e-2 if length_penalty == 0 else 2e-4)

    def test_lowers_the_objective(self):
        curve, x, weight, _, _ = assigned(4000, 32, 3)
        origin = curve.codewords.mean(0)
        previous = np.inf
        for _ in range(10):
            found = project(curve, x)
            sums = add_samples(zero_sums(curve), x, weight, *found, origin)
            value = float(objective(sums, curve, 0.1))
            assert value < previous
            previous = value
            curve = solve(sums, curve, 0.1, origin)

    def test_the_objective_is_the_mean_error_and_the_penalty_on_length(self):
        curve, x, weight, line, fraction = assigned(500, 8, 3)
        sums, _ = summed(curve, x, weight, line, fraction)
        error = weight @ errors(curve, x, line, fraction) / weight.sum()
        length = np.sum(np.diff(np.asarray(curve.codewords, np.float64), axis=0) ** 2)
        expected = (error + 0.3 / 8 * length) / 3
        assert_allclose(objective(sums, curve, 0.3), expected, rtol=1e-5)

    def test_codewords_that_no_sample_reaches_stay_without_a_penalty(self):
        curve, x, weight, line, fraction = assigned(500, 16, 3)
        line[:] = line % 4
        solved = solve(*_with_curve(summed(curve, x, weight, line, fraction), curve, 0.0))
        assert_allclose(solved.codewords[6:], curve.codewords[6:], atol=1e-5)

    def test_a_great_penalty_draws_all_codewords_together(self):
        curve, *samples = assigned(500, 16, 3)
        solved = solve(*_with_curve(summed(curve, *samples), curve, 1e4))
        x, weight = samples[:2]
        mean = (weight @ x / weight.sum())[None]
        assert_allclose(solved.codewords, np.repeat(mean, 16, 0), atol=1e-2)

    def test_data_far_from_the_origin_loses_no_digits(self):
        near = assigned(2000, 16, 3)
        far = assigned(2000, 16, 3, offset=1000.0)
        one = solve(*_with_curve(summed(*near), near[0], 0.1)).codewords
        other = solve(*_with_curve(summed(*far), far[0], 0.1)).codewords
        assert_allclose(other - 1000, one, atol=2e-3)

    def test_can_be_differentiated_and_vmapped(self):
        curve, *samples = assigned(200, 8, 2)
        sums, origin = summed(curve, *samples)

        def length(penalty):
            solved = solve(sums, curve, penalty, origin).codewords
            return jnp.sum(jnp.diff(solved, axis=0) ** 2)

        penalties = jnp.array([0.01, 0.1, 1.0])
        lengths = jax.vmap(length)(penalties)
        assert (np.diff(lengths) < 0).all()
        slope = jax.grad(length)(0.1)
        assert_allclose(slope, (length(0.101) - length(0.099)) / 0.002, rtol=0.05)


def _with_curve(sums_and_origin, curve, length_penalty):
    sums, origin = sums_and_origin
    return sums, curve, length_penalty, origin


def test_a_tridiagonal_system_is_solved_as_a_dense_one():
    random = np.random.default_rng(0)
    off = random.normal(size=99).astype(np.float32)
    # barely definite: each row's diagonal is as large as what stands beside it, and a little more
    diagonal = np.abs(np.pad(off, (1, 0))) + np.abs(np.pad(off, (0, 1))) + np.float32(1e-2)
    right = random.normal(size=(100, 7)).astype(np.float32)
    dense = np.diag(np.float64(diagonal)) + np.diag(np.float64(off), 1) + np.diag(off, -1)
    solution = jax.jit(solve_tridiagonal)(diagonal, off, right)
    assert_allclose(solution, np.linalg.solve(dense, right), rtol=1e-3, atol=1e-3)
