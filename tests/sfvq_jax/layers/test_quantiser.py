"""A quantiser that is trained inside a network: its curve, its upkeep, its layers of Flax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import Curve, data_mesh, project
from sfvq_jax.layers import GRADIENTS, Quantiser, curve_of, linen
from sfvq_jax.layers import nnx as layers_nnx

K, D, BATCH = 8, 3, 64
SMALL = Quantiser(K, recent=64, window=256)
CODEBOOK = jnp.zeros((K, D))
RATE = 0.5


def samples(seed, n=BATCH):
    """Along a bent line."""
    t, noise = jax.random.split(jax.random.key(seed))
    t = jax.random.uniform(t, (n, 1), minval=-3, maxval=3)
    return jnp.concatenate([t, jnp.sin(t), 0 * t], 1) + 0.05 * jax.random.normal(noise, (n, D))


def trained(quantiser, codebook, upkeep, x, key):
    """A step of gradient descent on the error of what goes on."""

    def loss(codebook):
        found, new = quantiser(codebook, upkeep, x, key=key, train=True)
        return jnp.mean((found.value - x) ** 2) + found.loss, (found, new)

    (_, (found, new)), gradient = jax.value_and_grad(loss, has_aux=True)(codebook)
    return codebook - RATE * gradient, new, found


def after(quantiser, steps, codebook=CODEBOOK):
    upkeep, found = quantiser.init(D), None
    for i in range(steps):
        codebook, upkeep, found = trained(
            quantiser, codebook, upkeep, samples(i), jax.random.key(i)
        )
    return codebook, upkeep, found


def curve_after(quantiser, steps):
    codebook, upkeep, _ = after(quantiser, steps)
    return curve_of({"codebook": codebook}, upkeep._asdict())


@pytest.fixture(scope="module")
def small():
    return after(SMALL, 12)


class TestTraining:
    def test_it_passes_samples_on_until_it_begins_with_recent_ones_in_order(self):
        waiting = dataclasses.replace(SMALL, skip=3)
        codebook, upkeep, found = after(waiting, 3)
        assert_array_equal(found.value, samples(2))
        assert found.perplexity == found.position.sum() == 0
        along = np.asarray(curve_of({"codebook": codebook}, upkeep._asdict()).codewords)[:, 0]
        assert (np.diff(along) > 0).all() or (np.diff(along) < 0).all()
        *_, found = trained(waiting, codebook, upkeep, samples(3), jax.random.key(3))
        assert (found.value != samples(3)).any()
        with pytest.raises(ValueError, match="has not begun to quantise"):
            curve_of({"codebook": codebook}, SMALL.init(D)._asdict())

    def test_it_keeps_using_all_lines(self, small):
        *_, found = small
        assert found.dead == 0
        assert found.used == 1
        assert 4 < found.perplexity <= K - 1

    def test_it_doubles_its_codewords(self):
        doubling = dataclasses.replace(SMALL, doubling=2)
        sizes = [int(after(doubling, steps)[1].size) for steps in (1, 2, 3, 4)]
        assert sizes == [4, 4, 8, 8]

    def test_dead_codewords_are_replaced_in_order(self, small):
        codebook, upkeep, _ = small
        far = upkeep._replace(offset=upkeep.offset.at[0].add(100.0), use=jnp.zeros(K - 1))
        *_, found = trained(SMALL, codebook, far, samples(50), jax.random.key(50))
        assert found.dead == 1
        for i in range(4):
            codebook, far, found = trained(SMALL, codebook, far, samples(i), jax.random.key(i))
        along = np.asarray(curve_of({"codebook": codebook}, far._asdict()).codewords)[:, 0]
        assert np.abs(along).max() < 4
        assert (np.diff(along) > 0).all() or (np.diff(along) < 0).all()

    @pytest.mark.parametrize("gradient", GRADIENTS)
    def test_every_gradient_and_plain_vector_quantisers_learn(self, gradient):
        lines = gradient in ("ste", "sf_diveq")
        quantiser = dataclasses.replace(SMALL, gradient=gradient, lines=lines)
        x, errors = samples(99, 512), []
        _, upkeep, _ = after(quantiser, 1)
        codebook = CODEBOOK + 0.5 * jax.random.normal(jax.random.key(0), CODEBOOK.shape)
        for i in range(20):
            errors.append(quantiser(codebook, upkeep, x)[0].squared_distance.mean())
            key = jax.random.key(i)
            codebook, upkeep, _ = trained(quantiser, codebook, upkeep, samples(i), key)
        assert errors[-1] < 0.5 * errors[0]

    def test_use_does_not_depend_on_the_size_of_a_batch(self, small):
        codebook, upkeep, _ = small
        told = []
        for n in (256, 64):
            kept = upkeep._replace(since=jnp.zeros(()))
            for i in range(0, 768, n):
                x = samples(7, 768)[i : i + n]
                found, kept = SMALL(codebook, kept, x, key=jax.random.key(0), train=True)
            told.append(found.perplexity)
        assert_allclose(*told, rtol=0.01)


class TestQuantised:
    def test_the_nearest_point_of_the_curve_unless_in_training(self, small):
        codebook, upkeep, _ = small
        curve, x = curve_of({"codebook": codebook}, upkeep._asdict()), samples(5)
        found, same = SMALL(codebook, upkeep, x.reshape(4, -1, D))
        expected = project(curve, x)
        assert_allclose(found.position.reshape(-1), expected.position, atol=1e-5)
        assert_allclose(found.squared_distance.reshape(-1), expected.squared_distance, atol=1e-5)
        assert_allclose(
            jnp.sum((found.value - x.reshape(4, -1, D)) ** 2, -1), found.squared_distance, atol=1e-5
        )
        assert same is upkeep

    def test_masked_samples_count_for_nothing(self, small):
        codebook, upkeep, _ = small
        mask = jnp.arange(BATCH) < 40
        quantiser = dataclasses.replace(SMALL, gradient="ste")
        found = []
        for rest in (0.0, 1e6):
            x = jnp.where(mask[:, None], samples(3), rest)
            one, kept = quantiser(codebook, upkeep, x, mask=mask, train=True)
            found.append((one.value[:40], one.loss, one.perplexity, kept.use, kept.since))
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), *found)
        assert found[0][-1] - upkeep.since in (40, -upkeep.since)

    def test_half_precision_is_computed_in_float32(self, small):
        codebook, upkeep, _ = small
        half = samples(5).astype(jnp.bfloat16)
        found, kept = SMALL(codebook, upkeep, half, key=jax.random.key(0), train=True)
        wide, _ = SMALL(
            codebook, upkeep, half.astype(jnp.float32), key=jax.random.key(0), train=True
        )
        assert found.value.dtype == jnp.bfloat16
        assert_array_equal(found.position, wide.position)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"num_codewords": 3}, "num_codewords is 3; expected 4 or more"),
            ({"gradient": "gumbel"}, "gradient is 'gumbel'; expected one of ste, nsvq"),
            ({"lines": False}, "without lines gradient is"),
            ({"noise": -1.0}, "noise is -1.0; expected 0 or more"),
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, change, told):
        with pytest.raises(ValueError, match=told):
            dataclasses.replace(SMALL, **change)

    @pytest.mark.parametrize(
        ("x", "options", "told"),
        [
            (
                np.zeros((2, 4), np.float32),
                {},
                r"has shape \(2, 4\); expected samples \[..., 3\]",
            ),
            (np.zeros((2, 3), np.int32), {}, "x is int32; expected floating point"),
            (np.zeros((2, 3), np.float32), {"train": True}, '"sf_diveq" takes a key in training'),
            (np.zeros((2, 3), np.float32), {"mask": np.ones(3)}, r"the mask has shape \(3,\)"),
        ],
    )
    def test_samples_that_do_not_fit_are_refused(self, x, options, told):
        with pytest.raises(ValueError, match=told):
            SMALL(CODEBOOK, SMALL.init(D), x, **options)


def test_several_devices_give_what_one_does(small):
    codebook, upkeep, _ = small
    upkeep = upkeep._replace(since=jnp.full((), 250.0))  # so that it looks for dead codewords
    upkeep = upkeep._replace(offset=upkeep.offset.at[0].add(100.0))
    expected = trained(SMALL, codebook, upkeep, samples(1), jax.random.key(1))
    for devices in (2, 8):
        quantiser = dataclasses.replace(SMALL, axis_name="data")

        def step(codebook, upkeep, x, key, quantiser=quantiser):
            def loss(codebook):
                found, new = quantiser(codebook, upkeep, x, key=key, train=True)
                return jnp.sum((found.value - x) ** 2) / (BATCH * D) + found.loss, (found, new)

            (_, (found, new)), gradient = jax.value_and_grad(loss, has_aux=True)(codebook)
            return codebook - RATE * gradient, new, found

        mesh = data_mesh(jax.devices()[:devices])
        rows, same = P("data"), P()
        found_specs = type(expected[2])(rows, rows, rows, same, same, same, same)
        sharded = jax.jit(
            jax.shard_map(
                step,
                mesh=mesh,
                in_specs=(same, same, rows, same),
                out_specs=(same, same, found_specs),
            )
        )
        found = sharded(codebook, upkeep, samples(1), jax.random.key(1))
        jax.tree.map(lambda a, b: assert_allclose(a, b, atol=1e-4), found, expected)


def test_vmap_trains_several_at_once(small):
    codebook, upkeep, _ = small
    x = jnp.stack([samples(1), samples(2)])
    keys = jax.vmap(jax.random.key)(jnp.arange(2))

    def step(x, key):
        return SMALL(codebook, upkeep, x, key=key, train=True)[0].value

    both = jax.vmap(step)(x, keys)
    assert_allclose(both[1], step(x[1], keys[1]), atol=1e-5)


class TestFlax:
    def test_linen_keeps_the_codebook_in_params_and_its_upkeep_in_batch_stats(self):
        layer = linen.SFVQ(K, recent=64, window=256)
        keys = {"params": jax.random.key(0), "quantiser": jax.random.key(1)}
        variables = layer.init(keys, samples(0), train=True)
        assert variables["params"]["codebook"].shape == (K, D)
        assert variables["batch_stats"]["steps"] == 0
        found, updates = jax.jit(
            lambda v, x, key: layer.apply(
                v, x, train=True, mutable=["batch_stats"], rngs={"quantiser": key}
            )
        )(variables, samples(0), jax.random.key(2))
        assert_array_equal(found.value, samples(0))
        curve = curve_of(variables["params"], updates["batch_stats"])
        assert isinstance(curve, Curve)
        expected = curve_after(SMALL, 1)
        assert_allclose(curve.codewords, expected.codewords, atol=1e-5)
        variables = {"params": variables["params"], **updates}
        found = layer.apply(variables, samples(9), train=False)
        assert_allclose(
            found.squared_distance, project(curve, samples(9)).squared_distance, atol=1e-5
        )

    def test_nnx_gives_the_same(self):
        layer = layers_nnx.SFVQ(K, D, recent=64, window=256, rngs=nnx.Rngs(0))

        @nnx.jit
        def step(layer, x):
            return nnx.grad(lambda layer: jnp.sum(layer(x).value ** 2))(layer)

        step(layer, samples(0))
        expected = curve_after(SMALL, 1)
        assert_allclose(layer.curve().codewords, expected.codewords, atol=1e-5)
        gradient = step(layer, samples(1))
        assert jnp.abs(gradient.codebook[...]).max() > 0
        layer.eval()
        before = jax.tree.leaves(nnx.state(layer, nnx.BatchStat))
        found = layer(samples(9))
        assert_allclose(
            found.squared_distance, project(expected, samples(9)).squared_distance, atol=1e-5
        )
        jax.tree.map(assert_array_equal, before, jax.tree.leaves(nnx.state(layer, nnx.BatchStat)))

    def test_settings_are_those_of_the_quantiser(self):
        own = {field.name: field.default for field in dataclasses.fields(Quantiser)}
        of_layer = {field.name: field.default for field in dataclasses.fields(linen.SFVQ)}
        assert own.items() <= of_layer.items()
        with pytest.raises(ValueError, match="num_codewords is 2"):
            layers_nnx.SFVQ(2, D, rngs=nnx.Rngs(0))
