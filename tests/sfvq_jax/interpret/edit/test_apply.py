"""Edits along directions, one or several, and what is held while they are made."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve
from sfvq_jax.interpret import (
    Direction,
    deviation_along,
    edit_latents,
    hold_attributes,
    line_direction,
    pair_direction,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CURVE = Curve(jnp.asarray(normal(9, 5)))
LATENTS = normal(500, 5, seed=4) * np.float32([1, 2, 3, 4, 5])


class TestLineDirection:
    @pytest.mark.parametrize("line", [0, 3, 7])
    def test_is_the_unit_vector_from_a_codeword_to_the_next(self, line):
        step = np.float64(CURVE.codewords[line + 1]) - np.float64(CURVE.codewords[line])
        assert_allclose(line_direction(CURVE, line), step / np.linalg.norm(step), rtol=1e-5)

    def test_turns_with_the_curve(self):
        backwards = Curve(CURVE.codewords[::-1])
        assert_allclose(line_direction(backwards, 2), -line_direction(CURVE, 5), rtol=1e-6)

    @pytest.mark.parametrize("line", [-1, 8, 100])
    def test_a_line_that_is_not_there_is_named_with_those_that_are(self, line):
        with pytest.raises(ValueError, match=f"line {line} is outside 0-7"):
            line_direction(CURVE, line)

    def test_a_line_of_no_length_is_named(self):
        with pytest.raises(ValueError, match="codewords 1 and 2 are in the same place"):
            line_direction(Curve(CURVE.codewords[jnp.array([0, 1, 1, 2])]), 1)

    @pytest.mark.parametrize(("start", "stop"), [(0, 8), (7, 2)])
    def test_any_pair_of_codewords_has_one_too(self, start, stop):
        step = np.float64(CURVE.codewords[stop]) - np.float64(CURVE.codewords[start])
        assert_allclose(pair_direction(CURVE, start, stop), step / np.linalg.norm(step), rtol=1e-5)
        with pytest.raises(ValueError, match="codeword 9 is outside 0-8"):
            pair_direction(CURVE, start, 9)


class TestEditLatents:
    latents = normal(3, 5, seed=1)
    direction = np.asarray(line_direction(CURVE, 4))
    strengths = np.float32([-10, 0, 2.5])

    def edit(self, first, last, strengths=strengths):
        direction = Direction(jnp.asarray(self.direction), (first, last), 1.0)
        return edit_latents(jnp.asarray(self.latents), direction, jnp.asarray(strengths), 6)

    @pytest.mark.parametrize(("first", "last"), [(0, 5), (2, 4), (3, 3), (5, 5)])
    def test_moves_the_chosen_layers_by_the_strength_and_no_others(self, first, last):
        codes = np.asarray(self.edit(first, last))
        assert codes.shape == (3, 3, 6, 5)
        for n, s, layer in np.ndindex(3, 3, 6):
            moved = self.strengths[s] * self.direction if first <= layer <= last else 0
            assert_allclose(codes[n, s, layer], self.latents[n] + moved, rtol=1e-6)

    def test_the_strength_is_the_distance_moved(self):
        distance = np.linalg.norm(self.edit(0, 5) - self.latents[:, None, None], axis=-1)
        expected = np.broadcast_to(abs(self.strengths)[:, None], (3, 3, 6))
        assert_allclose(distance, expected, rtol=1e-5)

    def test_no_strength_changes_nothing(self):
        unedited = self.edit(1, 4)[:, 1]
        assert_array_equal(unedited, np.repeat(self.latents[:, None], 6, axis=1))

    def test_an_edit_and_its_opposite_cancel(self):
        there, back = self.edit(1, 4, np.float32([3])), self.edit(1, 4, np.float32([-3]))
        assert_allclose(there + back, 2 * self.edit(1, 4, np.float32([0])), atol=1e-5)

    @pytest.mark.parametrize(("first", "last"), [(-1, 3), (0, 6), (4, 2), (6, 6)])
    def test_layers_that_the_model_has_not_are_named_with_those_it_has(self, first, last):
        with pytest.raises(ValueError, match=f"layers {first}-{last} are outside 0-5"):
            self.edit(first, last)

    def test_the_unit_multiplies_the_strength(self):
        one = Direction(jnp.asarray(self.direction), (1, 2), 3.0)
        other = Direction(jnp.asarray(self.direction), (1, 2), 1.0)
        x, strengths = jnp.asarray(self.latents), jnp.asarray(self.strengths)
        assert_allclose(
            edit_latents(x, one, strengths, 6), edit_latents(x, other, 3 * strengths, 6), rtol=1e-5
        )

    def test_several_directions_are_the_sum_of_edits_each_in_its_own_layers(self):
        one = Direction(jnp.asarray(self.direction), (0, 2), 2.0)
        other = Direction(line_direction(CURVE, 1), (2, 5), 1.0)
        x = jnp.asarray(self.latents)
        strengths = jnp.array([[1.0, 0.0], [0.5, -3.0]])
        both = edit_latents(x, [one, other], strengths, 6)
        first = edit_latents(x, one, strengths[:, 0], 6)
        # what is edited already can be edited again
        then = [edit_latents(first[:, i], other, strengths[i : i + 1, 1], 6) for i in range(2)]
        assert_allclose(both, jnp.concatenate(then, 1), atol=1e-5)
        same = edit_latents(x, [one, other], strengths[:, 0], 6)
        assert_allclose(same, edit_latents(x, [one, other], strengths[:, :1].repeat(2, 1), 6))

    def test_strengths_for_another_number_of_directions_are_refused(self):
        one = Direction(jnp.asarray(self.direction), (0, 2), 1.0)
        with pytest.raises(ValueError, match=r"1 directions take \[S\] or \[S, 1\]"):
            edit_latents(jnp.asarray(self.latents), one, jnp.ones((2, 3)), 6)


class TestHoldAttributes:
    def test_the_result_is_orthogonal_to_what_is_held_and_as_near_as_can_be(self):
        direction = Direction(line_direction(CURVE, 0), (1, 2), 2.0)
        gradients = normal(2, 4, 5, seed=3)
        held = hold_attributes(direction, jnp.asarray(gradients), LATENTS)
        sums = np.float64(gradients[:, 1:3].sum(1))
        assert_allclose(sums @ np.float64(held.vector), np.zeros(2), atol=1e-5)
        basis = np.linalg.qr(sums.T)[0]
        vector = np.float64(direction.vector)
        rest = vector - basis @ (basis.T @ vector)
        assert_allclose(held.vector, rest / np.linalg.norm(rest), atol=1e-5)
        assert held.layers == (1, 2)
        assert held.unit == pytest.approx(np.std(LATENTS @ np.asarray(held.vector)), rel=1e-4)

    def test_attributes_that_change_alike_are_held_as_one(self):
        direction = Direction(line_direction(CURVE, 0), (0, 3), 1.0)
        gradients = jnp.asarray(normal(1, 4, 5, seed=3))
        twice = hold_attributes(direction, jnp.concatenate([gradients, 7 * gradients]), LATENTS)
        assert_allclose(
            twice.vector, hold_attributes(direction, gradients, LATENTS).vector, atol=1e-5
        )

    def test_an_attribute_that_nothing_changes_is_held_anyway(self):
        direction = Direction(line_direction(CURVE, 0), (0, 3), 1.0)
        held = hold_attributes(direction, jnp.zeros((1, 4, 5)), LATENTS)
        assert_allclose(held.vector, direction.vector, rtol=1e-5)

    def test_a_direction_that_only_moves_what_is_held_is_refused(self):
        direction = Direction(line_direction(CURVE, 0), (0, 0), 1.0)
        with pytest.raises(ValueError, match="hold fewer attributes"):
            hold_attributes(direction, direction.vector[None, None], LATENTS)


class TestDeviationAlong:
    def test_is_the_standard_deviation_of_the_coordinate(self):
        latents, direction = normal(200, 5), np.asarray(line_direction(CURVE, 0))
        expected = np.std(np.float64(latents) @ np.float64(direction))
        assert_allclose(deviation_along(latents, direction), expected, rtol=1e-5)

    def test_does_not_depend_on_where_the_latents_lie(self):
        latents, direction = normal(200, 5), np.asarray(line_direction(CURVE, 0))
        shifted = deviation_along(latents + np.float32(100), direction)
        assert_allclose(shifted, deviation_along(latents, direction), rtol=1e-4)


class TestDirectionAlong:
    def test_strength_one_is_a_standard_deviation_of_the_latents(self):
        direction = Direction.along(jnp.asarray([0, 0, 7.0, 0, 0]), (0, 1), LATENTS)
        assert_allclose(direction.vector, [0, 0, 1, 0, 0])
        assert direction.unit == pytest.approx(LATENTS[:, 2].std(), rel=1e-4)
        before = jnp.asarray(LATENTS[:100])
        moved = edit_latents(before, direction, jnp.ones(1), 2)[:, 0, 0] - before
        assert_allclose(moved[:, 2], np.full(100, LATENTS[:, 2].std()), rtol=1e-4)

    def test_what_has_no_deviation_is_refused(self):
        still = LATENTS * np.float32([1, 1, 1, 1, 0]) + np.float32(1000)
        with pytest.raises(ValueError, match="do not differ along"):
            Direction.along(jnp.eye(5)[4], (0, 1), still)
        with pytest.raises(ValueError, match="length 0"):
            Direction.along(jnp.zeros(5), (0, 1), LATENTS)
        with pytest.raises(ValueError, match=r"shape \(4,\) and latents \(500, 5\)"):
            Direction.along(jnp.ones(4), (0, 1), LATENTS)


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 5), (5,), (1, 3, 6, 5)])
def test_latents_of_another_shape_are_refused(shape):
    direction = Direction(line_direction(CURVE, 0), (0, 3), 1.0)
    with pytest.raises(ValueError, match=r"\[N, 5\] or, one code a layer, \[N, 6, 5\]"):
        edit_latents(jnp.ones(shape), direction, jnp.ones(1), 6)
