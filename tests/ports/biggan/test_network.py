"""The network's parts against slow or plain versions of what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ports.biggan import BigGANConfig, BlockConfig, init
from ports.biggan.network import BatchNorm, SelfAttention, StatsRow, upsample
from ports.biggan.network import upsampled_conv3x3 as upsampled_conv
from ports.convolution import conv

BLOCKS = (BlockConfig(8, 8, False), BlockConfig(8, 4, True), BlockConfig(4, 4, True))
CONFIG = BigGANConfig(
    z_dim=8, num_classes=3, embed_dim=5, blocks=BLOCKS, bottleneck=True, hierarchy="full"
)


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (1, 2, 5, 1), (3, 4, 4, 6), (1, 7, 3, 2)])
def test_upsampled_conv_is_a_convolution_after_upsampling(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(3, 3, shape[3], 4)).astype(np.float32)
    expected = jax.jit(lambda x, k: conv(upsample(x), k))(x, kernel)
    result = jax.jit(upsampled_conv)(x, kernel)
    assert result.shape == (shape[0], 2 * shape[1], 2 * shape[2], 4)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_upsample_repeats_every_pixel():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(upsample(x), x.repeat(2, axis=1).repeat(2, axis=2))


def slow_attention(x, weights, gamma):
    """Attention of every pixel over pools of 2x2 pixels, one product at a time, in float64."""
    result = np.array(x, np.float64)
    for image in result:
        height, width, channels = image.shape
        pools = [
            image[i : i + 2, j : j + 2].reshape(4, channels)
            for i in range(0, height - 1, 2)
            for j in range(0, width - 1, 2)
        ]
        keys = np.array([(pool @ weights["phi"]).max(0) for pool in pools])
        values = np.array([(pool @ weights["g"]).max(0) for pool in pools])
        for pixel in image.reshape(-1, channels):  # a view: the pixels change in place
            scores = np.array([pixel @ weights["theta"] @ key for key in keys])
            shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            pixel += gamma * (shares @ values @ weights["o"])
    return result


@pytest.mark.parametrize("shape", [(2, 4, 4, 8), (1, 2, 6, 16), (1, 5, 3, 11)])
def test_attention_is_softmax_over_pooled_pixels(shape):
    rng = np.random.default_rng(0)
    channels = shape[3]
    few, half = channels // 8, channels // 2
    sides = {"theta": (channels, few), "phi": (channels, few), "g": (channels, half)}
    weights = {name: rng.normal(size=s) for name, s in (sides | {"o": (half, channels)}).items()}
    x = rng.normal(size=shape).astype(np.float32)
    params = {name: {"weight": w.astype(np.float32)[None, None]} for name, w in weights.items()}
    result = SelfAttention().apply({"params": params | {"gamma": np.float32(0.7)}}, x)
    np.testing.assert_allclose(result, slow_attention(x, weights, 0.7), rtol=1e-4, atol=1e-4)


def test_batch_norm_with_the_batches_own_statistics_gives_what_its_gain_and_bias_say(getkey):
    x = 3 + 2 * jax.random.normal(getkey(), (4, 8, 8, 5))
    condition = jax.random.normal(getkey(), (4, 6))
    layer = BatchNorm(1e-5, 1)
    variables = layer.init(getkey(), x, condition, StatsRow(jnp.int32(0), jnp.float32(1)))
    y, sown = layer.apply(variables, x, condition, None, mutable="statistics")
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)  # gain and bias start from 1 and 0
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-3)
    np.testing.assert_allclose(sown["statistics"]["mean"][0], x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(sown["statistics"]["var"][0], x.var((0, 1, 2)), rtol=1e-5)


def test_bfloat16_stays_near_float32(getkey):
    blocks = (BlockConfig(16, 8, True),)
    config = BigGANConfig(6, 3, 4, blocks, False, "none", attention=(0,))
    model = init(getkey(), config)
    z, y = model.sample_z(getkey(), 4), jnp.arange(4) % 3
    images, low = model(z, y), model.cast(jnp.bfloat16)(z, y)
    assert low.dtype == jnp.float32
    assert jnp.abs(low - images).max() < 0.05 * jnp.abs(images).max()


def test_widths_and_resolutions_follow_from_the_blocks():
    assert CONFIG.block_resolutions == (4, 8, 16)
    assert (CONFIG.img_resolution, CONFIG.num_zs) == (16, 4)
    assert (CONFIG.linear_dim, CONFIG.linear_inputs, CONFIG.block_inputs) == (128, 13, 13)
    pieces = BigGANConfig(8, 3, 5, BLOCKS, False, "chunks")
    assert (pieces.num_zs, pieces.linear_inputs, pieces.block_inputs) == (4, 2, 7)
    plain = BigGANConfig(8, 3, 0, BLOCKS, False, "none")
    assert (plain.num_zs, plain.linear_inputs, plain.block_inputs) == (1, 8, 3)


def test_a_config_survives_json():
    assert BigGANConfig.from_json(CONFIG.to_json()) == CONFIG


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hierarchy": "some"}, "hierarchy is 'some'"),
        ({"blocks": ()}, "no blocks"),
        ({"blocks": (BLOCKS[0], BLOCKS[2])}, "8 channels is followed by one that takes 4"),
        ({"blocks": (BlockConfig(4, 8, True),)}, "only drops channels"),
        ({"blocks": (BlockConfig(3, 3, True),)}, "too narrow"),
        ({"attention": (4,)}, "attention after block 4 of 3"),
        ({"attention": (-1,)}, "attention after block -1"),
        ({"attention": (3,)}, "attention on 4 channels"),
        ({"embed_dim": 0}, "embed_dim is 0"),
        ({"hierarchy": "chunks", "z_dim": 9}, "z of 9 numbers cannot be cut in 4 pieces"),
    ],
)
def test_a_config_that_describes_no_network_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        BigGANConfig.from_json(CONFIG.to_json() | {"blocks": [vars(b) for b in BLOCKS]} | (
            change if "blocks" not in change else {"blocks": [vars(b) for b in change["blocks"]]}
        ))  # fmt: skip
