"""Truncation, classes and latent spaces of a BigGAN."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ports.biggan import BigGAN, BigGANConfig, BlockConfig, init
from ports.biggan.model import stats_row
from ports.biggan.network import block_input, linear_input
from sfvq_jax.latent_model import LatentModel

BLOCKS = (BlockConfig(8, 8, True), BlockConfig(8, 4, False))
DEEP = BigGANConfig(6, 5, 3, BLOCKS, True, "full", attention=(0,), num_stats=11)
PIECES = BigGANConfig(6, 5, 3, BLOCKS, False, "chunks")
PLAIN = BigGANConfig(6, 5, 0, BLOCKS, False, "none", num_stats=3)
CONFIGS = {"full": DEEP, "chunks": PIECES, "none": PLAIN}


def random_model(config, seed=0):
    """A generator whose every weight and statistic counts."""
    model = init(jax.random.key(seed), config)
    rng = np.random.default_rng(seed)

    def shaken(path, x):
        if path[-1].key == "var":
            return jnp.asarray(rng.uniform(0.5, 2, x.shape), jnp.float32)
        return x + jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32)

    return model.replace(variables=jax.tree_util.tree_map_with_path(shaken, model.variables))


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return random_model(CONFIGS[request.param])


@pytest.fixture(scope="module")
def deep():
    return random_model(DEEP)


@pytest.fixture(scope="module")
def plain():
    return random_model(PLAIN)


Z = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
Y = np.array([4, 0, 2])


def test_classes_are_indices_or_vectors(model):
    images = model(Z, Y)
    assert images.shape == (3, *model.image_shape)
    assert images.dtype == jnp.float32
    assert jnp.abs(images).max() <= 1
    np.testing.assert_array_equal(model(Z, Y.astype(np.uint8)), images)
    np.testing.assert_allclose(model(Z, np.eye(5, dtype=np.float32)[Y]), images, atol=1e-6)
    np.testing.assert_allclose(model(Z, np.eye(5, dtype=bool)[Y]), images, atol=1e-6)


def test_a_mixed_class_has_the_mixed_embedding(model):
    mix = np.array([[0, 0.25, 0, 0.75, 0]] * 3, np.float32)
    embedding = 0.25 * model.embed(np.full(3, 1)) + 0.75 * model.embed(np.full(3, 3))
    np.testing.assert_allclose(model(Z, mix), model.generate(Z, embedding), atol=1e-6)


def test_one_z_for_all_layers_or_one_for_each(model):
    layers = model.config.num_zs
    same = np.repeat(Z[:, None], layers, axis=1)
    np.testing.assert_allclose(model(same, Y), model(Z, Y), atol=1e-6)
    for layer in range(layers):
        other = same.copy()
        other[:, layer] += 1
        assert jnp.abs(model(other, Y) - model(Z, Y)).max() > 1e-3


def test_truncation_selects_the_statistics(deep):
    for truncation in (0.1, 0.4, 1.0):  # one of the eleven sets alone
        row = round(10 * truncation)
        constants = jax.tree.map(lambda x, row=row: x[row][None], deep.variables["constants"])
        alone = BigGAN(
            {**deep.variables, "constants": constants},
            BigGANConfig.from_json(DEEP.to_json() | {"num_stats": 1}),
        )
        np.testing.assert_allclose(deep(Z, Y, truncation), alone(Z, Y), atol=1e-6)


@pytest.mark.parametrize(
    ("truncation", "num_stats", "first", "weight"),
    [
        (1.0, 51, 50, 1),
        (0.4, 51, 20, 1),
        (0.3, 51, 15, 1),
        (0.02, 51, 1, 1),
        (0.43, 51, 21, 0.5),
        (0.435, 51, 21, 0.75),
        (0.58, 51, 28, 1),  # 0.58 / 0.02 is a little less than 29
        (0.7, 2, 0, 0.7),
        (0.435, 11, 4, 0.35),
        (0.5, 1, 0, 1),
    ],
)
def test_rows_are_upstreams(truncation, num_stats, first, weight):
    row = stats_row(truncation, num_stats)
    assert (row.first.dtype, row.weight.dtype) == (np.int32, np.float32)
    assert row.first == first
    np.testing.assert_allclose(row.weight, weight, atol=1e-5)
    linear = stats_row(truncation, num_stats, "linear")
    assert linear.first == first
    expected = 1 if weight == 1 and truncation != 0.58 else 1 - weight
    np.testing.assert_allclose(linear.weight, expected, atol=1e-5)


def test_the_linear_interpolation_is_continuous_and_upstreams_is_not(deep):
    def jump(interpolation):
        images = [deep(Z, Y, t, interpolation=interpolation) for t in (0.4, 0.4001)]
        return jnp.abs(images[1] - images[0]).max()

    assert 10 * jump("linear") < jump("upstream")


@pytest.mark.parametrize("interpolation", ["upstream", "linear"])
def test_traced_truncations_are_the_static_ones_and_compile_once(deep, interpolation):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(1)
    def images(truncation):
        return deep(Z, Y, truncation, interpolation=interpolation)

    for truncation in (0.1, 0.2, 0.4, 0.435, 0.5, 0.75, 0.9, 1.0):
        expected = deep(Z, Y, truncation, interpolation=interpolation)
        np.testing.assert_allclose(images(jnp.float32(truncation)), expected, atol=1e-4)
        concrete = deep(Z, Y, jnp.float32(truncation), interpolation=interpolation)
        np.testing.assert_allclose(concrete, expected, atol=1e-4)


def test_static_truncations_compile_once(deep):
    from ports.biggan.model import _images

    deep(Z, Y, 0.3)
    before = _images._cache_size()
    for truncation in (0.1, 0.25, 1.0):
        deep(Z, Y, truncation)
        deep(Z, Y, truncation, interpolation="linear")
    assert _images._cache_size() == before


def test_truncated_latents_are_cut_at_two_and_scaled(deep, getkey):
    z = deep.sample_z(getkey(), 20000)
    assert z.shape == (20000, 6)
    assert jnp.abs(z.std() - 1) < 0.01
    assert jnp.abs(z).max() > 3
    cut = deep.sample_z(getkey(), 20000, 0.5)
    assert 0.99 < jnp.abs(cut).max() <= 1
    # the standard deviation of N(0, 1) between -2 and 2 is 0.8796
    assert jnp.abs(cut.std() - 0.5 * 0.8796) < 0.005
    key = getkey()
    halves = 0.5 * deep.sample_z(key, 10, 1.0)
    np.testing.assert_allclose(deep.sample_z(key, 10, jnp.float32(0.5)), halves, rtol=1e-6)


def spaces(model):
    yield model.space("z", 2)
    yield model.space("linear", None if model.config.hierarchy == "full" else 2)


def test_spaces_are_latent_models(model, getkey):
    for space in spaces(model):
        assert isinstance(space, LatentModel)
        latents = space.sample(getkey(), 4)
        assert latents.shape == (4, space.latent_dim)
        images = space.render(latents)
        assert images.shape == (4, *model.image_shape)
        layers = jnp.broadcast_to(latents[:, None], (4, space.num_layers, space.latent_dim))
        np.testing.assert_allclose(space.render(layers), images, atol=1e-5)
        assert space.model_hash == model.model_hash
        again = model.space_named(space.latent_space)
        assert again.latent_space == space.latent_space
        np.testing.assert_array_equal(again.render(latents), images)


def test_the_space_of_z_is_that_of_one_class(model, getkey):
    space = model.space("z", 2)
    z = space.sample(getkey(), 3)
    np.testing.assert_allclose(space.render(z), model(z, np.full(3, 2)), atol=1e-6)


def test_the_linear_space_knows_its_way_back_to_z_and_class(deep, getkey):
    space, key = deep.space("linear"), getkey()
    h = space.sample(key, 3, label=Y)
    z = deep.sample_z(jax.random.split(key)[0], 3)  # as the space draws it
    np.testing.assert_allclose(h, deep.layers(z, Y)["linear"], atol=1e-5)
    np.testing.assert_allclose(space.render(h), deep(z, Y), atol=1e-4)


def test_the_linear_space_of_one_class(plain, getkey):
    space, key = plain.space("linear", 3), getkey()
    z = plain.sample_z(jax.random.split(key)[0], 3)
    images = plain(z, np.full(3, 3))
    np.testing.assert_allclose(space.render(space.sample(key, 3)), images, atol=1e-4)


def test_where_the_linear_layer_sees_a_piece_of_z_the_others_are_their_mean(getkey):
    model = random_model(PIECES)
    space, key = model.space("linear", 1), getkey()
    z = model.sample_z(jax.random.split(key)[0], 3)
    piece = PIECES.z_dim // PIECES.num_zs
    images = model(z.at[:, piece:].set(0), np.full(3, 1))
    np.testing.assert_allclose(space.render(space.sample(key, 3)), images, atol=1e-4)


def test_a_layers_code_reaches_that_layer_alone(deep, getkey):
    space = deep.space("linear")
    one, other = space.sample(getkey(), 1, label=1), space.sample(getkey(), 1, label=3)
    codes = jnp.repeat(one[:, None], space.num_layers, axis=1)
    for layer in range(space.num_layers):
        mixed = codes.at[:, layer].set(other)
        assert jnp.abs(space.render(mixed) - space.render(codes)).max() > 1e-3


def test_features_are_the_middle_block_and_activations_the_linear_layer(model, getkey):
    space, z = model.space("z", 2), Z
    layers = model.layers(z, np.full(3, 2))
    np.testing.assert_allclose(space.activations(z), layers["linear"], atol=1e-5)
    np.testing.assert_allclose(space.features(z), layers["block1"].reshape(3, -1), atol=1e-5)
    *_, linear = spaces(model)
    h = linear.sample(getkey(), 3)
    np.testing.assert_array_equal(linear.activations(h), h)
    codes = jnp.repeat(h[:, None], linear.num_layers, axis=1)
    np.testing.assert_allclose(linear.features(codes), linear.features(h), atol=1e-5)


def test_style_weights_are_the_derivatives_of_what_each_layer_makes_of_its_code(model):
    cfg, params = model.config, model.variables["params"]
    for space in spaces(model):

        def made(code, layer, space=space):
            zs = embeddings = seen = code
            if space.inverse is not None:
                seen = (code - params["linear"]["bias"]) @ space.inverse
                zs, embeddings = seen[: cfg.z_dim], seen[cfg.z_dim :]
            elif cfg.hierarchy != "none":
                embeddings = jnp.zeros(cfg.embed_dim)
            if layer == 0:
                if space.inverse is None:
                    seen = linear_input(cfg, zs[None], embeddings[None])[0]
                return seen @ params["linear"]["weight"]
            layers = [jnp.stack([code] * cfg.num_zs)[None] for code in (zs, embeddings)]
            condition = block_input(cfg, *layers, layer - 1)[0]
            block = params[f"block{layer - 1}"]
            norms = [block[f"bn{i}"] for i in range(4 if cfg.bottleneck else 2)]
            return jnp.concatenate([condition @ bn[p] for bn in norms for p in ("gain", "bias")])

        weights = space.style_weights()
        assert len(weights) == space.num_layers
        for layer, weight in enumerate(weights):
            expected = jax.jacrev(made)(jnp.zeros(space.latent_dim), layer)
            np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_a_spaces_truncation_is_of_latents_and_statistics(deep, getkey):
    space, key = deep.space("z", 2, truncation=0.4), getkey()
    z = space.sample(key, 3)
    assert jnp.abs(z).max() <= 0.8
    np.testing.assert_allclose(space.render(z), deep(z, np.full(3, 2), 0.4), atol=1e-6)
    assert space.latent_space == "biggan-z, class 2, truncation 0.4"
    assert jnp.abs(space.sample(key, 100, truncation=0.1)).max() <= 0.2


def test_labels_of_a_space(deep, getkey):
    space, key = deep.space("linear"), getkey()
    assert space.num_classes == 5
    np.testing.assert_array_equal(
        space.sample(key, 4, label=2), space.sample(key, 4, label=jnp.full(4, 2))
    )
    assert jnp.abs(space.sample(key, 4, label=2) - space.sample(key, 4, label=1)).max() > 1e-3
    for label in (5, -1, 1.5, jnp.ones(4)):
        with pytest.raises(ValueError, match=r"class .* outside 0-4|label is .*; expected"):
            space.sample(key, 4, label=label)
    single = deep.space("z", 2)
    assert single.num_classes == 0
    np.testing.assert_array_equal(single.sample(key, 4, label=2), single.sample(key, 4))
    with pytest.raises(ValueError, match="label is 1, but this is the space of class 2"):
        single.sample(key, 4, label=1)


def test_models_and_spaces_pass_through_jit_vmap_and_grad(deep):
    space = deep.space("linear")
    h = space.sample(jax.random.key(0), 3)
    images = space.render(h)
    np.testing.assert_allclose(jax.jit(lambda s, h: s.render(h))(space, h), images, atol=1e-5)
    single = jax.vmap(lambda h: space.render(h[None])[0])(h)
    np.testing.assert_allclose(single, images, atol=1e-5)
    single = jax.vmap(lambda z, y: deep(z[None], y[None])[0])(Z, Y)
    np.testing.assert_allclose(single, deep(Z, Y), atol=1e-5)
    slope, direction = jax.jvp(lambda h: space.render(h).mean(), (h,), (jnp.ones_like(h),))
    gradient = jax.grad(lambda h: space.render(h).mean())(h)
    np.testing.assert_allclose(gradient.sum(), direction, rtol=1e-3, atol=1e-6)
    assert jnp.isfinite(slope)
    assert jnp.abs(gradient).max() > 0


def test_the_config_survives_json():
    for config in CONFIGS.values():
        assert BigGANConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("z", "y", "truncation", "sentence"),
    [
        (Z[:, :5], Y, 1.0, r"z has shape \(3, 5\); this generator takes \[N, 6\] or \[N, 3, 6\]"),
        (np.zeros((3, 2, 6), "f4"), Y, 1.0, r"z has shape \(3, 2, 6\)"),
        (Z[0], Y, 1.0, r"z has shape \(6,\)"),
        (np.float32(0), Y, 1.0, r"z has shape \(\)"),
        (Z, Y[:2], 1.0, r"3 latents come with classes of shape \(2, 3\)"),
        (Z, np.array([0, 5, 1]), 1.0, "class 5 is outside 0-4"),
        (Z, np.array([0, -1, 1]), 1.0, "class -1 is outside 0-4"),
        (Z, np.zeros((3, 4), "f4"), 1.0, r"y has shape \(3, 4\) .* class vectors \[N, 5\]"),
        (Z, np.zeros(3, "f4"), 1.0, "y has shape .* and dtype float32"),
        (Z, np.int32(1), 1.0, r"y has shape \(\)"),
        (Z, Y, 0.0, r"truncation is 0.0; it must be in \(0, 1\]"),
        (Z, Y, 1.5, "truncation is 1.5"),
        (Z, Y, float("nan"), "truncation is nan"),
        (Z, Y, jnp.float32(1.5), "truncation is 1.5"),
    ],
)
def test_what_makes_no_image_is_named(deep, z, y, truncation, sentence):
    with pytest.raises(ValueError, match=sentence):
        deep(z, y, truncation)


def test_truncations_are_checked_where_there_is_one_set_of_statistics_too():
    with pytest.raises(ValueError, match="truncation is 7"):
        random_model(PIECES)(Z, Y, 7)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("w",), "space is 'w'; a BigGAN has"),
        (("z",), "the space z of this generator holds no classes: choose one with label, 0-4"),
        (("z", 5), "class 5 is outside 0-4"),
        (("z", -1), "class -1 is outside 0-4"),
        (("z", 1.5), "label is 1.5"),
        (("z", [1, 2]), r"label is \[1, 2\]"),
        (("z", 1, 0.0), "truncation is 0"),
        (("z", 1, 2.0), "truncation is 2"),
        (("linear", 1), "holds all classes: no label"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(deep, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        deep.space(*arguments)


def test_the_linear_space_needs_a_class_where_it_holds_none(plain):
    with pytest.raises(ValueError, match="the space linear of this generator holds no classes"):
        plain.space("linear")


@pytest.mark.parametrize("shape", [(), (6,), (2, 5), (2, 2, 6), (2, 1, 3, 6)])
def test_latents_of_other_shapes_are_named(deep, shape):
    with pytest.raises(ValueError, match=r"this space takes \[N, 6\] or \[N, 3, 6\]"):
        deep.space("z", 1).render(jnp.zeros(shape))


@pytest.mark.parametrize("name", ["", "stylegan2-w", "biggan-w", "biggan-z", "biggan-z, class 9"])
def test_names_of_spaces_that_the_model_has_not_are_refused(deep, name):
    with pytest.raises(ValueError, match=r"BigGAN|class"):
        deep.space_named(name)


def test_interpolations_have_names(deep):
    with pytest.raises(ValueError, match="interpolation is 'cubic'"):
        deep(Z, Y, interpolation="cubic")
