"""The three metrics on codes of which the answer is known."""

import numpy as np
import pytest

from benchmarks.disentanglement import dci, factor_vae_score, mig

FACTORS, VALUES, N = 4, 10, 2000
VOTES, SAMPLES = 200, 24


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).integers(0, VALUES, (N, FACTORS)).astype(float)


@pytest.fixture(scope="module")
def votes():
    """Factors [V, L, F] of which one is fixed in each vote, and which."""
    random = np.random.default_rng(1)
    fixed = random.integers(0, FACTORS, VOTES)
    values = random.integers(0, VALUES, (VOTES, SAMPLES, FACTORS)).astype(float)
    rows = np.arange(VOTES)
    values[rows, :, fixed] = values[rows, :1, fixed]
    return values, fixed


def scores(codes_of, factors, votes):
    """Disentanglement, completeness, error, MIG and the FactorVAE score."""
    values, fixed = votes
    codes = codes_of(factors)
    found = dci(codes, factors)
    gap = mig(codes, factors).mean()
    voted = factor_vae_score(codes_of(values), fixed, codes.std(0))
    return [found.disentanglement, found.completeness, found.error, gap, voted]


def rotation(*pairs):
    """By 45 degrees in the planes of some pairs of axes."""
    matrix = np.eye(FACTORS)
    for i, j in pairs:
        matrix[[i, i, j, j], [i, j, i, j]] = np.array([1, 1, -1, 1]) / 2**0.5
    return matrix


def test_codes_that_are_the_factors_in_any_order_and_unit_have_all(factors, votes):
    order, units = [2, 0, 3, 1], np.array([1, -3, 0.01, 100])
    for codes_of in (lambda f: f, lambda f: f[..., order] * units):
        found = scores(codes_of, factors, votes)
        np.testing.assert_allclose(found, [1, 1, 0, 1, 1], atol=0.01)


def test_each_code_of_a_plane_that_is_turned_tells_half_of_two_factors(factors, votes):
    turned = rotation((0, 1), (2, 3))
    found = scores(lambda f: f @ turned, factors, votes)
    # two of four factors, equally: 1 - log 2 ÷ log 4
    np.testing.assert_allclose(found[:2], [0.5, 0.5], atol=0.05)
    assert found[2] < 0.4
    assert found[3] < 0.05
    assert found[4] < 0.7  # of the two that share a code's variance, one is guessed


def test_only_the_factors_of_the_turned_plane_lose_their_gap(factors):
    gaps = mig(factors @ rotation((0, 1)), factors)
    np.testing.assert_allclose(gaps, [0, 0, 1, 1], atol=0.05)


def test_two_codes_of_one_factor_are_disentangled_and_not_complete(factors, votes):
    random = np.random.default_rng(2)

    def twice(f):
        return np.concatenate([f + 0.3 * random.standard_normal(f.shape) for _ in "ab"], -1)

    found = scores(twice, factors, votes)
    assert found[0] > 0.9
    assert 1 - np.log(2) / np.log(2 * FACTORS) - 0.1 < found[1] < 0.9
    assert found[3] < 0.1
    assert found[4] > 0.95


def test_noise_has_nothing(factors, votes):
    random = np.random.default_rng(3)
    found = scores(lambda f: random.standard_normal(f.shape), factors, votes)
    assert found[0] < 0.25  # few splits, which fall on some codes more than on others
    assert found[1] < 0.25
    assert 0.95 < found[2] < 1.1
    assert found[3] < 0.02
    assert found[4] < 1.6 / FACTORS


def test_classes_are_predicted_as_such_and_constant_codes_do_not_vote(votes):
    random = np.random.default_rng(4)
    classes = random.integers(0, 3, 600).astype(float)
    codes = np.stack([(classes == 1) * 2.0, np.zeros(600)], 1)  # the others look the same
    found = dci(codes, np.stack([classes, codes[:, 0]], 1), classes=[0])
    assert 0.3 < found.errors[0] < 0.7
    assert found.completeness == 1
    values, fixed = votes
    padded = np.concatenate([values, np.zeros_like(values)], -1)
    assert factor_vae_score(padded, fixed, padded.std((0, 1))) == 1
