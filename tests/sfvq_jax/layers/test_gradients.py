"""Values and gradients through a quantiser are those of the packages `nsvq` and `diveq`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax import Curve
from sfvq_jax.dither import nearest_dithered
from sfvq_jax.layers import gradients
from sfvq_jax.projection import nearest_codeword

torch = pytest.importorskip("torch", reason="compares with packages of PyTorch")
diveq = pytest.importorskip("diveq", reason="compares with the package diveq")
nsvq = pytest.importorskip("nsvq", reason="compares with the package nsvq")

K, N, D = 7, 50, 5
RANDOM = np.random.default_rng(0)
CODEBOOK, X, SLOPE = (RANDOM.normal(size=s).astype(np.float32) for s in ((K, D), (N, D), (N, D)))
NOISE = RANDOM.normal(size=(2, N, D)).astype(np.float32)
FRACTIONS = RANDOM.uniform(size=K - 1).astype(np.float32)


def theirs(module, monkeypatch, *names):
    """Values, and gradients of Σ slope · values by x and codebook, with our noise and fractions."""
    drawn = iter(NOISE)
    for name in names:
        package = __import__(name, fromlist=["normal"])
        monkeypatch.setattr(package.normal, "Normal", lambda mean, scale: _Drawn(scale, drawn))
    module.codebook.data = torch.tensor(CODEBOOK)
    x = torch.tensor(X, requires_grad=True)
    values = module(x)[0]
    (values * torch.tensor(SLOPE)).sum().backward()
    return values.detach().numpy(), x.grad.numpy(), module.codebook.grad.numpy()


class _Drawn:
    """Stands for a normal distribution of PyTorch."""

    def __init__(self, scale, drawn):
        self.scale, self.drawn = scale, drawn

    def sample(self, shape):
        return self.scale * torch.tensor(next(self.drawn))


def ours(function):
    @jax.jit
    def found(x, codebook):
        values, back = jax.vjp(function, x, codebook)
        return values, *back(jnp.asarray(SLOPE))

    return found(X, CODEBOOK)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, rtol=1e-4, atol=2e-6)


def nearest(x, codebook):
    return codebook[nearest_codeword(Curve(codebook), x)]


def test_noise_substitution_is_that_of_nsvq(monkeypatch):
    expected = theirs(
        nsvq.NSVQ(K, D, codebook_reset=False, allow_warning=False), monkeypatch, "nsvq.nsvq"
    )
    found = ours(lambda x, c: gradients.through_noise(x, nearest(x, c), NOISE[0]))
    assert_same(found, expected)


@pytest.mark.parametrize("detached", [False, True])
def test_toward_the_point_is_diveq(detached, monkeypatch):
    kind = diveq.DIVEQDetach if detached else diveq.DIVEQ
    module = kind(K, D, codebook_reset=False, allow_warning=False)
    expected = theirs(module, monkeypatch, *[] if detached else ["diveq.diveq"])
    noise = (0 if detached else 1e-3) * NOISE[0]
    found = ours(lambda x, c: gradients.toward_point(x, nearest(x, c), noise))
    assert_same(found, expected)


def ends(x, codebook, noise):
    line, fraction, _ = nearest_dithered(Curve(codebook), x, jnp.asarray(FRACTIONS))
    return gradients.toward_ends(x, codebook[line], codebook[line + 1], fraction, noise)


@pytest.fixture
def dithered(monkeypatch):
    """A module of the package that has begun, with our fractions."""

    def made(kind):
        module = kind(K, D, skip_iters=0, avg_iters=0, allow_warning=False)
        monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(FRACTIONS)[:, None])
        return module

    return made


def test_toward_both_ends_is_sf_diveq(dithered, monkeypatch):
    expected = theirs(dithered(diveq.SFDIVEQ), monkeypatch, "diveq.sf_diveq")
    assert_same(ours(lambda x, c: ends(x, c, tuple(1e-3 * NOISE))), expected)


def test_detached_sf_diveq_gives_points_of_the_curve(dithered, monkeypatch):
    values, *_ = ours(lambda x, c: ends(x, c, (0 * NOISE[0], 0 * NOISE[1])))
    points = (1 - FRACTIONS)[:, None] * CODEBOOK[:-1] + FRACTIONS[:, None] * CODEBOOK[1:]
    index = ((X[:, None] - points) ** 2).sum(2).argmin(1)
    assert_allclose(values, points[index], rtol=1e-4, atol=1e-5)
    # the package steps toward the first end twice: what it would be with the second is ours
    theirs_values, *_ = theirs(dithered(diveq.SFDIVEQDetach), monkeypatch)
    ratio, error = FRACTIONS[index][:, None], CODEBOOK[index] - X
    second = np.linalg.norm(CODEBOOK[index + 1] - X, axis=1, keepdims=True)
    wrong = ratio * error * second / (second + 1e-12)
    right = ratio * (CODEBOOK[index + 1] - X)
    assert_allclose(theirs_values - wrong + right, values, rtol=1e-4, atol=1e-5)


def test_straight_through_passes_the_gradient_and_teaches_codewords_nothing():
    values, by_x, by_codebook = ours(lambda x, c: gradients.through_point(x, nearest(x, c)))
    assert_allclose(values, nearest(X, jnp.asarray(CODEBOOK)), atol=1e-6)
    assert_allclose(by_x, SLOPE)
    assert_allclose(by_codebook, 0)


def test_a_sample_at_its_point_has_finite_gradients():
    at = jnp.asarray(CODEBOOK[:1])

    def total(x, codebook):
        zero = jnp.zeros_like(x)
        one = gradients.toward_ends(x, codebook[:1], codebook[1:2], jnp.zeros(1), (zero, zero))
        two = gradients.through_noise(x, codebook[:1], zero)
        return one.sum() + two.sum() + gradients.toward_point(x, codebook[:1], zero).sum()

    for gradient in jax.grad(total, argnums=(0, 1))(at, jnp.asarray(CODEBOOK)):
        assert np.isfinite(gradient).all()
