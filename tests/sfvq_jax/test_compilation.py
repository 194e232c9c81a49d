"""How many programs a fit compiles: few, and none where only values differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfvq_jax import LeastSquares, fit

COMPILED = "/jax/core/compile/backend_compile_duration"
SHORT = {"rounds": 3}


class Compiled:
    """Counts the programs that are compiled within a `with`."""

    def __enter__(self):
        self.number = 0
        jax.monitoring.register_event_duration_secs_listener(self._count)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._count)

    def _count(self, name, seconds, **_):
        self.number += name == COMPILED


@pytest.fixture(scope="module", autouse=True)
def nothing_compiled():
    jax.clear_caches()


def x(n, d=11, seed=0):
    """Clusters, some of whose codewords die, so that moves are tried."""
    random = np.random.default_rng(seed)
    centres = 9 * random.normal(size=(5, d))
    return (centres[random.integers(5, size=n)] + random.normal(size=(n, d))).astype(np.float32)


KEYS = [jax.random.key(seed) for seed in range(2)]


def fitted(source, key=KEYS[0], bits=6, **settings):
    with Compiled() as compiled:
        fit(key, source, bits=bits, solver=LeastSquares(**SHORT | settings))
    return compiled.number


class TestArrays:
    def test_a_fit_up_to_64_codewords_compiles_at_most_eight(self):
        assert 0 < fitted(x(1000)) <= 8

    def test_another_fit_of_the_kind_compiles_nothing(self):
        fitted(x(1000))
        assert fitted(x(1000), length_penalty=0.7, tolerance=1e-3) == 0
        assert fitted(x(1000), key=KEYS[1]) == 0
        assert fitted(x(1000), bits=4) == 0
        assert fitted(x(1003, seed=1)) == 0
        assert fitted(jax.device_put(x(1000, seed=2))) == 0

    def test_a_large_array_compiles_at_most_eight(self):
        assert 0 < fitted(x(70_000, d=3), bits=3, samples=2**12) <= 8
        assert fitted(x(70_001, d=3), bits=3, samples=2**12, length_penalty=0.3) == 0


class TestSamplers:
    def test_an_equal_lambda_made_anew_compiles_nothing(self):
        numbers = [
            fitted(lambda key, n: jax.random.normal(key, (n, 5)), key, bits=3, samples=2**12)
            for key in KEYS
        ]
        assert 0 < numbers[0] <= 8
        assert numbers[1] == 0

    def test_another_value_in_it_is_seen(self):
        results = [
            fit(
                KEYS[0],
                lambda key, n, scale=scale: scale * jax.random.normal(key, (n, 5)),
                bits=2,
                solver=LeastSquares(samples=2**12, **SHORT),
            )
            for scale in (1.0, 3.0)
        ]
        ratio = results[1].history.distortion[-1] / results[0].history.distortion[-1]
        assert jnp.isclose(ratio, 9, rtol=1e-3)
