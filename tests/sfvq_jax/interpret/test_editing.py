"""Edits along lines of the curve, and new samples on them."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve
from sfvq_jax.interpret import (
    deviation_along,
    edit_latents,
    line_direction,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CURVE = Curve(jnp.asarray(normal(9, 5)))


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
        with pytest.raises(ValueError, match="line 1 has no length"):
            line_direction(Curve(CURVE.codewords[jnp.array([0, 1, 1, 2])]), 1)


class TestEditLatents:
    latents = normal(3, 5, seed=1)
    direction = np.asarray(line_direction(CURVE, 4))
    strengths = np.float32([-10, 0, 2.5])

    def edit(self, first, last, strengths=strengths):
        return edit_latents(self.latents, self.direction, strengths, (first, last), 6)

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


class TestDeviationAlong:
    def test_is_the_standard_deviation_of_the_coordinate(self):
        latents, direction = normal(200, 5), np.asarray(line_direction(CURVE, 0))
        expected = np.std(np.float64(latents) @ np.float64(direction))
        assert_allclose(deviation_along(latents, direction), expected, rtol=1e-5)

    def test_does_not_depend_on_where_the_latents_lie(self):
        latents, direction = normal(200, 5), np.asarray(line_direction(CURVE, 0))
        shifted = deviation_along(latents + np.float32(100), direction)
        assert_allclose(shifted, deviation_along(latents, direction), rtol=1e-4)
