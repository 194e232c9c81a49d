"""The normal equations of a codebook, against dense float64 algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, LeastSquares, distortion, dithered_loss, line_lengths, solver
from sfvq_jax.curve import padded
from sfvq_jax.least_squares import PULL, mean_step, normal_sums, solve, solve_tridiagonal
from sfvq_jax.projection import Projection

step = jax.jit(solver.step)


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
    points = places(line, fraction, len(curve.codewords)) @ np.asarray(curve.codewords, np.float64)
    return np.sum((x - points) ** 2, 1).astype(np.float32)


def summed(curve, x, weight, line, fraction):
    place = Projection(line, fraction, errors(curve, x, line, fraction))
    return jax.jit(normal_sums)(curve, x, weight, place)


def huber(length, m):
    return np.where(length < m, length**2, 2 * m * length - m**2)


# beyond 256 codewords the sums are added row by row
SHAPES = [(1, 2, 1), (7, 4, 3), (1500, 64, 5), (3000, 300, 4)]


class TestSums:
    @pytest.mark.parametrize(("n", "k", "d"), SHAPES)
    def test_are_the_tridiagonal_normal_matrix_and_the_right_hand_side(self, n, k, d):
        curve, x, weight, line, fraction = assigned(n, k, d)
        sums = summed(curve, x, weight, line, fraction)
        matrix = places(line, fraction, k)
        normal = matrix.T @ (weight[:, None] * matrix)
        assert_allclose(sums.diagonal, np.diagonal(normal), rtol=2e-5, atol=1e-5)
        assert_allclose(sums.coupling[:-1], np.diagonal(normal, 1), rtol=2e-5, atol=1e-5)
        moment = matrix.T @ (weight[:, None] * (x - np.asarray(curve.codewords.mean(0))))
        assert_allclose(sums.moment, moment, rtol=1e-4, atol=1e-4)
        assert_allclose(sums.error, weight @ errors(curve, x, line, fraction), rtol=1e-5)

    def test_the_load_is_the_weight_nearest_along_the_curve(self):
        curve, x, weight, line, fraction = assigned(500, 8, 3)
        load = np.bincount(line + (fraction >= 0.5), weight, minlength=8)
        assert_allclose(summed(curve, x, weight, line, fraction).load, load, rtol=1e-5)

    def test_m_is_the_harmonic_mean_step_of_the_lines_that_hold_samples_inside(self):
        codewords = jnp.array([[0.0], [1.0], [2.0], [12.0], [14.0]])
        line = np.array([0, 1, 3, 3, 2], np.int32)
        fraction = np.float32([0.5, 0.5, 0.5, 0.5, 1])  # the bridge has a sample at its end only
        curve = padded(Curve(codewords), 8)
        place = Projection(line, fraction, np.zeros(5, np.float32))
        sums = normal_sums(curve, np.zeros((5, 1), np.float32), np.ones(5, np.float32), place)
        assert_allclose(mean_step(curve, sums), 4 / (1 + 1 + 2 / 2), rtol=1e-4)


class TestSolve:
    @pytest.mark.parametrize(("n", "k", "d"), SHAPES)
    @pytest.mark.parametrize("length_penalty", [0.0, 0.1, 10.0])
    def test_is_the_minimum_of_the_parabola_with_its_pull(self, n, k, d, length_penalty):
        curve, x, weight, line, fraction = assigned(n, k, d)
        sums = summed(curve, x, weight, line, fraction)
        m = np.float32(1.5)
        length = np.linalg.norm(np.diff(np.float64(curve.codewords), axis=0), axis=1)
        bend = m / np.maximum(length, m)
        matrix, steps = places(line, fraction, k), np.diff(np.eye(k), axis=0)
        load = weight.sum() / k
        normal = matrix.T @ (weight[:, None] * matrix)
        normal += load * (length_penalty * steps.T @ (bend[:, None] * steps) + PULL * np.eye(k))
        right = matrix.T @ (weight[:, None] * x) + PULL * load * np.asarray(curve.codewords)
        expected = np.linalg.solve(normal, right)
        solved = solve(sums, curve, length_penalty, m).codewords
        # a line that few samples fall on is badly determined
        assert_allclose(solved, expected, rtol=2e-2, atol=2e-2 if length_penalty == 0 else 2e-4)

    def test_rows_beyond_the_size_change_nothing(self):
        curve, *samples = assigned(500, 8, 3)
        alone = solve(summed(curve, *samples), curve, 0.2, 1.0).codewords
        curve = padded(curve, 16)
        found = solve(summed(curve, *samples), curve, 0.2, 1.0).codewords
        assert_allclose(found[:8], alone, atol=1e-5)

    def test_codewords_that_no_sample_reaches_stay_without_a_penalty(self):
        curve, x, weight, line, fraction = assigned(500, 16, 3)
        solved = solve(summed(curve, x, weight, line % 4, fraction), curve, 0.0, 1.0)
        assert_allclose(solved.codewords[6:], curve.codewords[6:], atol=1e-5)

    def test_a_great_penalty_draws_all_codewords_together(self):
        curve, *samples = assigned(500, 16, 3)
        solved = solve(summed(curve, *samples), curve, 1e5, 10.0)
        x, weight = samples[:2]
        mean = (weight @ x / weight.sum())[None]
        assert_allclose(solved.codewords, np.repeat(mean, 16, 0), atol=1e-2)

    def test_data_far_from_the_origin_loses_no_digits(self):
        near, far = assigned(2000, 16, 3), assigned(2000, 16, 3, offset=1000.0)
        one, other = (solve(summed(*each), each[0], 0.1, 1.0).codewords for each in (near, far))
        assert_allclose(other - 1000, one, atol=2e-3)

    def test_can_be_differentiated_and_vmapped(self):
        curve, *samples = assigned(200, 8, 2)
        sums = summed(curve, *samples)

        def length(penalty):
            solved = solve(sums, curve, penalty, 1.0).codewords
            return jnp.sum(jnp.diff(solved, axis=0) ** 2)

        lengths = jax.vmap(length)(jnp.array([0.01, 0.1, 1.0]))
        assert (np.diff(lengths) < 0).all()
        slope = jax.grad(length)(0.1)
        assert_allclose(slope, (length(0.101) - length(0.099)) / 0.002, rtol=0.05)


def gaussian(n=500, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def start(k=8):
    return Curve(jnp.asarray(gaussian(k, seed=1)))


class TestLeastSquares:
    @pytest.mark.parametrize(
        "settings",
        [
            {"length_penalty": -0.1},
            {"length_penalty": float("nan")},
            {"length_penalty": float("inf")},
            {"length_penalty": "0.2"},
            {"length_penalty": np.array(-1.0)},
            {"length_penalty": jnp.array(jnp.nan)},
            {"tolerance": -1.0},
            {"tolerance": np.float32("nan")},
            {"early": float("inf")},
            {"early": jnp.bfloat16(-1)},
            {"rounds": 0},
            {"rounds": 2.5},
            {"rounds": "3"},
            {"rounds": True},
            {"rounds": None},
            {"block": 0},
            {"block": 1.5},
            {"samples": 0},
            {"samples": 1.5},
            {"samples": 1.5e3},
            {"samples": np.float32(1500)},
            {"samples": True},
            {"samples": "some"},
            {"samples": [100]},
            {"dithered": "no"},
            {"moves": "reseed"},
            {"moves": ("reseed", "shuffle")},
            {"moves": None},
            {"precision": "float32"},
        ],
    )
    def test_settings_that_make_no_stage_are_refused(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            LeastSquares(**settings)

    def test_numbers_of_numpy_and_lists_of_moves_are_welcome(self):
        one = LeastSquares(
            np.float32(0.2), rounds=np.int64(3), samples=np.int32(9), moves=["reseed"]
        )
        assert hash(jax.tree.structure(one)) is not None
        assert one.moves == ("reseed",)

    def test_samples_that_have_no_weight_move_nothing(self):
        one, curve = LeastSquares(), start()
        new, m, info = step(
            one, curve, one.init(curve), jax.random.key(0), gaussian(), np.zeros(500)
        )
        assert_array_equal(new.codewords, curve.codewords)
        assert_array_equal(m, one.init(curve))
        assert info.distortion == 0
        assert np.isfinite(info.objective)

    def test_its_numbers_are_leaves_and_its_counts_are_not(self):
        one = LeastSquares(length_penalty=0.3, tolerance=1e-5, early=2.0)
        assert sorted(jax.tree.leaves(one)) == [1e-5, 0.3, 2.0]
        assert jax.tree.structure(one) != jax.tree.structure(LeastSquares(rounds=3))

    def test_the_penalty_is_quadratic_up_to_m_and_linear_beyond(self):
        curve, m = start(), np.float32(1.2)
        length = np.float64(line_lengths(curve))
        expected = 0.3 * huber(length, m).sum() / 16
        assert (length > m).any()
        assert (length < m).any()
        assert_allclose(LeastSquares(0.3).penalty(curve, m), expected, rtol=1e-5)
        assert_allclose(LeastSquares(0.3).penalty(padded(curve, 32), m), expected, rtol=1e-5)

    def test_equal_steps_cost_their_squares(self):
        curve = Curve(jnp.stack([jnp.arange(8.0), jnp.zeros(8)], 1))
        one, x = LeastSquares(0.3), gaussian() + np.float32(3)
        _, m, info = step(one, curve, one.init(curve), jax.random.key(0), x)
        assert_allclose(m, 1, rtol=1e-5)
        assert_allclose(info.objective - info.distortion, 0.3 * 7 / 16, rtol=1e-4)

    def test_steps_lower_the_objective_by_the_terms_of_the_older_curve(self):
        x, one, curve, key = gaussian(), LeastSquares(), start(16), jax.random.key(0)
        state, previous = one.init(curve), np.inf
        first = float(distortion(curve, x))
        for _ in range(10):
            new, its_state, info = step(one, curve, state, key, x)
            assert info.distortion + one.penalty(curve, state) < previous
            previous = info.objective
            curve, state = new, its_state
        assert distortion(curve, x) < 0.7 * first

    def test_a_greater_penalty_gives_a_shorter_curve_of_higher_distortion(self):
        x, key, lengths, found = gaussian(2000), jax.random.key(0), [], []
        for penalty in (0.01, 0.1, 1.0):
            one, curve = LeastSquares(length_penalty=penalty), start()
            for _ in range(10):
                curve, _, _ = step(one, curve, one.init(curve), key, x)
            lengths.append(float(line_lengths(curve).sum()))
            found.append(float(distortion(curve, x)))
        assert lengths == sorted(lengths, reverse=True)
        assert found == sorted(found)

    def test_steps_vmapped_over_penalties_are_those_one_by_one(self):
        x, curve, key = gaussian(), start(), jax.random.key(0)

        def of_penalty(penalty):
            one = LeastSquares(length_penalty=penalty)
            return solver.step(one, curve, one.init(curve), key, x)[0].codewords

        penalties = np.float32([0.01, 0.1, 1.0])
        many = jax.vmap(of_penalty)(penalties)
        each = [of_penalty(penalty) for penalty in penalties]
        assert_allclose(many, each, atol=1e-4)
        assert np.abs(many[0] - many[2]).max() > 0.1

    def test_a_dithered_step_assigns_as_the_dithered_loss_does(self, getkey):
        x, curve, key = gaussian(), start(), getkey()
        one = LeastSquares(length_penalty=0.0, dithered=True)
        _, _, info = step(one, curve, one.init(curve), key, x)
        loss = dithered_loss(curve, x, jax.random.uniform(key, (7,)))
        assert_allclose(info.objective, loss, rtol=1e-5)

    @pytest.mark.parametrize(
        ("left", "size", "factor"), [(0, 64, 1), (2, 16, 8), (2, 8, 1), (1, 256, 8)]
    )
    def test_in_early_stages_of_enough_codewords_the_penalty_is_greater(self, left, size, factor):
        one = LeastSquares(0.25)
        traced = jax.jit(lambda left, size: one.anneal(left, size).length_penalty)
        assert one.anneal(left, size).length_penalty == 0.25 * factor
        assert_allclose(traced(left, size), 0.25 * factor)


def test_a_tridiagonal_system_is_solved_as_a_dense_one():
    random = np.random.default_rng(0)
    off = random.normal(size=99).astype(np.float32)
    # barely definite: each row's diagonal is as large as what stands beside it, and a little more
    diagonal = np.abs(np.pad(off, (1, 0))) + np.abs(np.pad(off, (0, 1))) + np.float32(1e-2)
    right = random.normal(size=(100, 7)).astype(np.float32)
    dense = np.diag(np.float64(diagonal)) + np.diag(np.float64(off), 1) + np.diag(off, -1)
    solution = jax.jit(solve_tridiagonal)(diagonal, off, right)
    assert_allclose(solution, np.linalg.solve(dense, right), rtol=1e-3, atol=1e-3)
