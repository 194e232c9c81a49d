"""Directions of other projects' files: the vectors, their layers, units and what is refused."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax.interpret import import_directions

D, LAYERS = 4, 6
SPREAD = np.array([1.0, 2.0, 0.5, 3.0], np.float32)
LATENTS = jax.random.normal(jax.random.key(0), (4096, D)) * jnp.asarray(SPREAD)[None]
MODEL = SimpleNamespace(
    latent_dim=D, num_layers=LAYERS, latent_space="stylegan2-w", model_hash="abc"
)
ROWS = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
EDIT = {
    "name": "red hair", "component_index": 2, "lat_comp": ROWS[2:], "lat_stdev": 1.4,
    "latent_space": "W", "edit_type": "latent", "edit_start": 1, "edit_end": 4,
}  # fmt: skip


def imported(content, **options):
    return import_directions(content, "theirs", MODEL, LATENTS, **options)


def vectors(records):
    return np.stack([record.direction.vector for record in records])


@pytest.mark.parametrize(
    ("content", "method"),
    [
        (ROWS, ""),
        (ROWS.astype(">f8"), ""),
        ({"lat_comp": ROWS[:, None], "lat_stdev": np.ones(3)}, "GANSpace"),
        ({"model": {"params": 7 * ROWS}, "optimizer": {}}, "LatentCLR"),
        ({"module.params": ROWS}, "LatentCLR"),
    ],
)
def test_rows_become_unit_vectors_of_all_layers(content, method):
    records = imported(content)
    assert_allclose(vectors(records), ROWS / np.linalg.norm(ROWS, axis=1)[:, None], rtol=1e-6)
    assert [record.name for record in records] == ["theirs 0", "theirs 1", "theirs 2"]
    assert {record.direction.layers for record in records} == {(0, LAYERS - 1)}
    assert records[1].source == {"method": method, "row": 1, "of": 3}
    assert records[0][2:4] == ("stylegan2-w", "abc")


@pytest.mark.parametrize("shape", [(D,), (1, D)])
def test_a_boundary_is_one_direction_in_standard_deviations(shape):
    (record,) = imported(np.eye(D)[3].reshape(shape))
    assert record.name == "theirs"
    assert_allclose(record.direction.unit, SPREAD[3], rtol=0.05)


def test_vectors_of_any_length_keep_their_direction():
    for size in (1e-300, 1e300):
        assert_allclose(vectors(imported(ROWS.astype(float) * size)), vectors(imported(ROWS)))


def test_an_edit_has_a_name_and_layers_that_can_be_overridden():
    (record,) = imported(EDIT)
    assert (record.name, record.direction.layers) == ("red hair", (1, 3))
    assert_allclose(vectors([record]), vectors(imported(ROWS)[2:]))
    assert imported(EDIT, layers=(0, 5))[0].direction.layers == (0, 5)


def test_the_first_of_many_are_taken_and_the_rest_is_not_looked_at():
    many = np.concatenate([ROWS, np.full((9, D), np.nan, np.float32)])
    records = imported(many, count=3)
    assert [record.source["of"] for record in records] == [12, 12, 12]
    with pytest.raises(ValueError, match="row 3: the vector has values that are NaN"):
        imported(many)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROWS[:, :3], "have 3 numbers, and latents of stylegan2-w 4"),
        (np.zeros((1, D)), "row 0: the vector has length 0"),
        (np.eye(D, dtype=int), "of type int"),
        (np.ones((2, 3, D)), r"shape \(2, 3, 4\); vectors are \[D\]"),
        (np.ones((0, D)), "shape"),
        (np.array(1.0), "shape"),
        ({"lat_comp": [1.0]}, "lat_comp is of type list"),
        ({"model": {"nets.0.linear.weight": np.ones((D, D))}}, "another direction at every latent"),
        ({"g_ema": {}, "g": {}}, "it holds g_ema, g; expected an array"),
        ({}, "it holds nothing; expected"),
        ([1, 2], "it holds a list; expected"),
        (EDIT | {"edit_type": "activation"}, "of type activation, which moves activations"),
        (EDIT | {"edit_type": "both"}, "of type both"),
        (EDIT | {"latent_space": "Z"}, "a direction in z, and stylegan2-w is another space"),
        (EDIT | {"edit_end": 9}, "layers 1-8 are outside 0-5"),
        (EDIT | {"edit_end": 1}, "layers 1-0 are outside 0-5"),
        (EDIT | {"edit_start": None}, "does not say its layers"),
        (EDIT | {"lat_comp": ROWS}, "has 3 rows; an edit has one"),
    ],
)
def test_what_is_no_direction_is_told(content, message):
    with pytest.raises(ValueError, match=message):
        imported(content)


def test_a_direction_along_which_latents_do_not_differ_is_told():
    flat = LATENTS.at[:, 0].set(1.0)
    with pytest.raises(ValueError, match="row 1: latents do not differ along"):
        import_directions(np.eye(D)[[1, 0]], "theirs", MODEL, flat)
