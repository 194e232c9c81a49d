"""The network's parts against slow float64 versions of what upstream's operators mean."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

from ports.convolution import conv
from ports.stylegan2 import StyleGAN2Config, init, network
from ports.stylegan2.model import synthesis_blocks
from ports.stylegan2.network import (
    ACTIVATIONS,
    SynthesisNetwork,
    bias_act,
    fir,
    modulated_conv,
    upsample,
    upsampling_conv,
)
from sfvq_jax import LatentModel

CONFIG = StyleGAN2Config(
    z_dim=6,
    c_dim=0,
    w_dim=5,
    img_resolution=16,
    img_channels=2,
    mapping_layers=2,
    embed_features=0,
    layer_features=7,
    channels=(8, 6, 4),
)
FILTERS = {
    "one tap": (1.0,),
    "two taps": (0.25, 0.75),
    "three taps": (0.2, 0.5, 0.3),
    "four taps": (0.125, 0.375, 0.375, 0.125),
    "asymmetric": (0.1, 0.2, 0.3, 0.4),
    "eight taps": tuple((np.arange(1.0, 9.0) / 36).tolist()),
    "not separable": ((0.5, 0.1, 0.0), (0.0, 0.2, 0.1), (0.05, 0.0, 0.05)),
    "sum 0 within a row": ((0.5, -0.5, 0.0, 0.0), (0.0, 0.5, 0.5, 0.0)),
}
UNUSUAL = ("asymmetric", "not separable")


def outer(taps):
    taps = np.asarray(taps, np.float64)
    return np.outer(taps, taps) if taps.ndim == 1 else taps


def slow_upsample(x, taps, padding=0):
    """Zero insertion, padding and a true convolution of gain 4: upstream's upfirdn2d with up=2."""
    taps = outer(taps)
    pads = [(padding + (t + 1) // 2, padding + (t - 2) // 2) for t in taps.shape]
    n, h, w, c = x.shape
    result = np.zeros((n, 2 * h, 2 * w, c))
    result[:, ::2, ::2] = x
    big = 20  # enough zeros, so that negative padding is a crop like any other
    result = np.pad(result, ((0, 0), (big, big), (big, big), (0, 0)))
    lines = [slice(big - before, side - big + after) for side, (before, after) in
             zip(result.shape[1:3], pads, strict=True)]  # fmt: skip
    result = result[:, lines[0], lines[1]]
    maps = [[4 * convolve2d(image[..., i], taps, "valid") for i in range(c)] for image in result]
    return np.moveaxis(np.array(maps), 1, -1)


@pytest.mark.parametrize("taps", FILTERS.values(), ids=FILTERS)
def test_upsample_is_zero_insertion_and_a_true_convolution(taps):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    result = jax.jit(upsample, static_argnums=1)(x, taps)
    np.testing.assert_allclose(result, slow_upsample(x, taps), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "k"),
    [*((name, 3) for name in FILTERS), *((name, k) for name in UNUSUAL for k in (1, 5))],
)
def test_upsampling_conv_is_upsampling_then_a_true_convolution(name, k):
    taps = FILTERS[name]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 5, 5, 2)).astype(np.float32)
    kernel = rng.normal(size=(k, k, 2, 3)).astype(np.float32)
    upsampled = slow_upsample(x, taps, padding=k // 2)[0]
    expected = sum(
        np.stack([convolve2d(upsampled[..., i], kernel[..., i, o], "valid") for o in range(3)], -1)
        for i in range(2)
    )
    result = jax.jit(upsampling_conv, static_argnums=2)(x, kernel, taps)
    np.testing.assert_allclose(result[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "k"), [("four taps", 3), *((name, k) for name in UNUSUAL for k in (1, 3, 5))]
)
def test_upsampling_in_strips_is_the_same_with_its_gradients(getkey, monkeypatch, name, k):
    x = jax.random.normal(getkey(), (2, 8, 5, 2))
    kernel = jax.random.normal(getkey(), (k, k, 2, 3))
    direction = jax.random.normal(getkey(), (2, 16, 10, 3))

    def run(limit):
        monkeypatch.setattr(network, "_STRIP_BYTES", limit)
        y, pull = jax.jit(
            lambda x, kernel: jax.vjp(lambda *a: upsampling_conv(*a, FILTERS[name]), x, kernel)
        )(x, kernel)
        return y, *pull(direction)

    strips = 5 * k * k * 3 * 4 * 2  # of two rows
    for whole, parts in zip(run(2**30), run(strips), strict=True):
        np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_one_image_of_1024_pixels_takes_little_more_than_its_features():
    """A megapixel of 32 channels has 128 MiB, and its taps before upsampling had 288."""
    x = jax.ShapeDtypeStruct((1, 512, 512, 64), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 64, 32), jnp.float32)
    upsampling = jax.jit(lambda x, kernel: upsampling_conv(x, kernel, FILTERS["four taps"]))
    memory = upsampling.lower(x, kernel).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 160 * 2**20


def test_filter_pads_may_crop():
    x = jnp.arange(24.0).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(fir(x, (1.0,), [(-1, -1), (0, -2)]), x[:, 1:3, :4])


@pytest.mark.parametrize("up", [1, 2])
def test_modulated_conv_scales_each_samples_own_kernel(getkey, up):
    x = jax.random.normal(getkey(), (3, 4, 4, 5))
    weight = jax.random.normal(getkey(), (3, 3, 5, 2))
    styles = jax.random.normal(getkey(), (3, 5))
    taps = FILTERS["asymmetric"]
    result = jax.jit(functools.partial(modulated_conv, up=up, resample_filter=taps))(
        x, weight, styles
    )
    for i in range(3):
        own = weight * styles[i][None, None, :, None]
        own = own / jnp.sqrt(jnp.sum(own**2, (0, 1, 2), keepdims=True) + 1e-8)
        one = x[i : i + 1]
        plain = conv(one, own) if up == 1 else upsampling_conv(one, own, taps)
        np.testing.assert_allclose(result[i], plain[0], atol=2e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_scales_activation_and_clamp(name):
    x, bias = jnp.linspace(-3, 3, 8).reshape(2, 4), jnp.array([0.0, 1.0, -1.0, 0.5])
    plain = bias_act(x, bias, name)
    np.testing.assert_allclose(bias_act(x, bias, name, 0.5), 0.5 * plain, rtol=1e-6)
    np.testing.assert_allclose(
        bias_act(x, bias, name, 0.5, 0.7), jnp.clip(0.5 * plain, -0.35, 0.35), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [("skip", jnp.bfloat16), ("resnet", jnp.float16)],
)
def test_low_precision_stays_near_float32(getkey, architecture, dtype):
    model = init(getkey(), dataclasses.replace(CONFIG, architecture=architecture, conv_clamp=256.0))
    w = model.sample(getkey(), 4)
    images, low = model.render(w), model.cast(dtype).render(w)
    assert low.dtype == jnp.float32
    assert jnp.abs(low - images).max() < 0.05 * jnp.abs(images).max()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_blocks_that_upstream_keeps_in_float32_stay_so_and_the_others_are_cast_once(getkey, dtype):
    model = init(getkey(), dataclasses.replace(CONFIG, num_fp16_res=1))
    ws = jax.random.normal(getkey(), (4, 6, 5))
    low = model.cast(dtype)
    outputs = synthesis_blocks(low, ws)
    names = {"b4/x": "float32", "b8/x": "float32", "b16/x": dtype, "b16/img": "float32"}
    assert {name: outputs[name].dtype.name for name in names} == names
    kernels = {
        f"{block}/{layer}": params[layer]["weight"].dtype.name
        for block, params in low.variables["params"]["synthesis"].items()
        for layer in params
        if layer != "const"
    }
    cast = {name for name, kind in kernels.items() if kind == dtype}
    assert cast == {"b16/conv0", "b16/conv1"}
    # the fewer, the nearer; and kernels that are cast at every call give the same
    images = model.synthesis(ws)
    more = model.replace(config=dataclasses.replace(model.config, num_fp16_res=2)).cast(dtype)
    errors = [jnp.linalg.norm(m.synthesis(ws) - images) for m in (low, more)]
    assert 0 < errors[0] < errors[1] < 0.05 * jnp.linalg.norm(images)
    later = model.replace(dtype=jnp.dtype(dtype))
    np.testing.assert_array_equal(low.synthesis(ws), later.synthesis(ws))


def test_a_model_is_cast_once_and_to_a_dtype_that_there_is(getkey):
    model = init(getkey(), CONFIG)
    for dtype in (jnp.int8, "float64", "half a byte"):
        with pytest.raises(ValueError, match="expected one of float32, bfloat16, float16"):
            model.cast(dtype)
    with pytest.raises(ValueError, match="cast to bfloat16 already: load the model anew"):
        model.cast(jnp.bfloat16).cast(jnp.float32)
    assert model.cast(jnp.float32).dtype == jnp.float32


def test_float16_does_not_overflow_where_styles_are_huge(getkey):
    x = jax.random.normal(getkey(), (1, 4, 4, 64)).astype(jnp.float16)
    weight = 1000 * jax.random.normal(getkey(), (3, 3, 64, 8))
    styles = 1000 * jax.random.normal(getkey(), (1, 64))
    low = modulated_conv(x, weight, styles)
    full = modulated_conv(x.astype(jnp.float32), weight, styles)
    np.testing.assert_allclose(low.astype(jnp.float32), full, atol=0.02)


@pytest.mark.parametrize(("blocks", "channels", "mapping_layers"), [(1, 1, 0), (4, 4, 2)])
def test_any_resolution_and_number_of_channels_and_layers(getkey, blocks, channels, mapping_layers):
    config = dataclasses.replace(
        CONFIG, img_resolution=4 * 2 ** (blocks - 1), img_channels=channels, channels=(4,) * blocks,
        mapping_layers=mapping_layers, w_dim=CONFIG.z_dim,
    )  # fmt: skip
    model = init(getkey(), config)
    assert model.num_layers == 2 * blocks
    size = config.img_resolution
    assert model.render(model.sample(getkey(), 2)).shape == (2, size, size, channels)


def test_noise_modes(getkey):
    model = init(getkey(), CONFIG)
    params = model.variables["params"]
    noisy = jax.tree_util.tree_map_with_path(
        lambda path, p: p + 1.0 if path[-1].key == "noise_strength" else p, params
    )
    model = model.replace(variables={**model.variables, "params": noisy})
    ws = model.mapping(jax.random.normal(getkey(), (2, 6)))
    const, none = model.synthesis(ws), model.synthesis(ws, "none")
    key = getkey()
    random = model.synthesis(ws, "random", key=key)
    np.testing.assert_array_equal(random, model.synthesis(ws, "random", key=key))
    for a, b in (
        (const, none),
        (const, random),
        (random, model.synthesis(ws, "random", key=getkey())),
    ):
        assert jnp.abs(a - b).max() > 1e-3


def test_truncation_moves_the_first_codes_toward_the_mean(getkey):
    model = init(getkey(), CONFIG)
    mean = jax.random.normal(getkey(), (5,))
    constants = {**model.variables["constants"], "mapping": {"w_avg": mean}}
    model = model.replace(variables={**model.variables, "constants": constants})
    z = jax.random.normal(getkey(), (3, 6))
    ws = model.mapping(z)
    cut = model.mapping(z, truncation_psi=0.3, truncation_cutoff=2)
    np.testing.assert_allclose(cut[:, :2], mean[None, None] + 0.3 * (ws[:, :2] - mean[None, None]),
                               rtol=1e-5, atol=1e-6)  # fmt: skip
    np.testing.assert_array_equal(cut[:, 2:], ws[:, 2:])
    np.testing.assert_allclose(model.mapping(z, truncation_psi=0.0)[0, 0], mean, rtol=1e-6)


def test_model_is_differentiable_and_vmaps(getkey):
    model = init(getkey(), CONFIG)
    w = model.sample(getkey(), 3)
    batched = model.render(w)
    np.testing.assert_allclose(jax.vmap(lambda w: model.render(w[None])[0])(w), batched, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda w: model.render(w).mean()))(w)
    assert gradient.shape == w.shape
    assert jnp.isfinite(gradient).all()


def test_conditional_generator_needs_labels_and_samples_them(getkey):
    config = dataclasses.replace(CONFIG, c_dim=3, embed_features=4)
    model = init(getkey(), config)
    z, key = jax.random.normal(getkey(), (2, 6)), getkey()
    with pytest.raises(ValueError, match=r"conditional: pass labels c of shape \[N, 3\]"):
        model.mapping(z)
    ones, twos = model.sample(key, 4, label=1), model.sample(key, 4, label=2)
    assert jnp.abs(ones - twos).max() > 1e-3
    np.testing.assert_allclose(model.sample(key, 4, label=jnp.array([1, 1, 2, 2]))[2:], twos[2:],
                               atol=1e-6)  # fmt: skip
    assert model.sample(key, 4).shape == (4, 5)
    for label in (3, -1, np.array([0, 1, 2, 3])):
        with pytest.raises(ValueError, match="is outside 0-2, this generator's classes"):
            model.sample(key, 4, label=label)
    for label in (1.0, "1", np.ones(4), [0, 1], True):
        with pytest.raises(ValueError, match=r"label is .*; expected the index of a class, 0-2"):
            model.sample(key, 4, label=label)


def test_wrong_shapes_are_named(getkey):
    model = init(getkey(), CONFIG)
    with pytest.raises(ValueError, match=r"z has shape \(2, 5\); this generator takes \[N, 6\]"):
        model.mapping(jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"takes \[N, 6, 5\]"):
        model.synthesis(jnp.zeros((2, 4, 5)))
    with pytest.raises(ValueError, match="noise_mode is 'constant'"):
        model.synthesis(jnp.zeros((2, 6, 5)), "constant")
    with pytest.raises(ValueError, match="pass key"):
        model.synthesis(jnp.zeros((2, 6, 5)), "random")
    with pytest.raises(ValueError, match="unconditional"):
        model.sample(getkey(), 2, label=1)


def test_mapping_normalises_its_input(getkey):
    model = init(getkey(), CONFIG)
    z = jax.random.normal(getkey(), (2, 6))
    np.testing.assert_allclose(model.mapping(7 * z), model.mapping(z), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["skip", "orig"])
def test_style_weights_are_the_derivatives_of_styles_by_the_code_of_each_layer(
    getkey, architecture
):
    model = init(getkey(), dataclasses.replace(CONFIG, architecture=architecture))
    variables = {name: tree["synthesis"] for name, tree in model.variables.items()}

    def styles(ws):
        _, captured = SynthesisNetwork(model.config).apply(
            variables,
            ws[None],
            capture_intermediates=lambda module, _: module.name == "affine",
            mutable="intermediates",
        )
        found = jax.tree_util.tree_leaves_with_path(captured["intermediates"])
        return {(path[0].key, path[1].key): leaf[0] for path, leaf in found}

    derivatives = jax.jit(jax.jacrev(styles))(jnp.zeros((6, 5)))
    weights = model.style_weights()
    assert len(weights) == model.num_layers
    for layer, weight in enumerate(weights):
        moved = [name for name, by_code in derivatives.items() if by_code[:, layer].any()]
        convolutions = [name for name in moved if name[1] != "torgb"]
        (name,) = convolutions or moved  # the last code makes RGB alone
        np.testing.assert_allclose(weight, derivatives[name][:, layer], rtol=1e-5, atol=1e-6)


def test_z_is_a_space_of_its_own(getkey):
    model = init(getkey(), CONFIG)
    space = model.space("z")
    assert isinstance(space, LatentModel)
    z = space.sample(getkey(), 3)
    assert (z.shape, space.latent_space) == ((3, 6), "stylegan2-z")
    w = model.mapping(z)[:, 0]
    images = model.render(w)
    np.testing.assert_array_equal(space.activations(z), w)
    np.testing.assert_allclose(space.render(z), images, atol=1e-6)
    codes = jnp.stack([z[:1]] * 3 + [z[1:2]] * 3, 1)  # a z for the coarse layers, one for the fine
    mixed = jnp.stack([w[:1]] * 3 + [w[1:2]] * 3, 1)
    np.testing.assert_allclose(space.render(codes), model.render(mixed), atol=1e-6)
    assert model.space("w") is model.space_named("stylegan2-w") is model


def test_z_of_a_class_and_truncated_has_both_in_its_name(getkey):
    config = dataclasses.replace(CONFIG, c_dim=3, embed_features=4)
    model = init(getkey(), config)
    constants = {**model.variables["constants"], "mapping": {"w_avg": jnp.ones(5)}}
    model = model.replace(variables={**model.variables, "constants": constants})
    space = model.space("z", label=2, truncation=0.5)
    assert space.latent_space == "stylegan2-z, class 2, truncation 0.5"
    named = model.space_named(space.latent_space)
    assert (named.label, named.truncation) == (2, 0.5)
    z = space.sample(getkey(), 2, label=2)
    expected = model.mapping(z, jnp.array([[0.0, 0, 1]] * 2), 0.5)[:, 0]
    np.testing.assert_allclose(space.activations(z), expected, atol=1e-6)


def test_spaces_that_there_are_not_are_named(getkey):
    model = init(getkey(), CONFIG)
    conditional = init(getkey(), dataclasses.replace(CONFIG, c_dim=3, embed_features=4))
    for told, refused in {
        "a StyleGAN2 has": lambda: model.space("s"),
        "the space w holds all classes": lambda: model.space("w", truncation=0.5),
        "this generator is unconditional": lambda: model.space("z", label=1),
        "that of one class: choose it, 0-2": lambda: conditional.space("z"),
        "label is 3, but": lambda: conditional.space("z", label=3),
        "label is 1, but this is the space with label 2": lambda: conditional.space(
            "z", label=2
        ).sample(getkey(), 1, label=1),
        "truncation is 0.5, but": lambda: model.space("z").sample(getkey(), 1, truncation=0.5),
    }.items():
        with pytest.raises(ValueError, match=told):
            refused()


def test_features_are_the_middle_block_and_codes_above_change_nothing(getkey):
    model = init(getkey(), CONFIG)
    w = model.sample(getkey(), 2)
    ws = jnp.repeat(w[:, None], 6, axis=1)
    features = model.features(w)
    expected = jax.jit(synthesis_blocks)(model, ws)["b8/x"]
    np.testing.assert_allclose(features, expected.reshape(2, -1), atol=1e-5)
    np.testing.assert_array_equal(model.features(ws.at[:, 3:].add(1)), features)
    assert jnp.abs(model.features(ws.at[:, 2].add(1)) - features).max() > 1e-3
