"""Methods that give directions: each against brute force, on models small enough for it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.decomposition import FastICA
from sklearn.svm import LinearSVC

from ports import biggan, stylegan2
from sfvq_jax import Curve, LeastSquares, limited_memory
from sfvq_jax.interpret import Scorer
from sfvq_jax.interpret.comparison.comparing import default_methods
from sfvq_jax.interpret.comparison.methods.feature_space import FeaturePCA
from sfvq_jax.interpret.comparison.methods.gan_space import ICA, PCA
from sfvq_jax.interpret.comparison.methods.k_means import KMeans
from sfvq_jax.interpret.comparison.methods.latent_clr import LatentCLR, contrastive_loss
from sfvq_jax.interpret.comparison.methods.method import Fitted, Method, in_all_ranges
from sfvq_jax.interpret.comparison.methods.random import RandomDirections, RandomPairs
from sfvq_jax.interpret.comparison.methods.se_fa import SeFa
from sfvq_jax.interpret.comparison.methods.sfvq import SFVQ, curve_pairs
from sfvq_jax.interpret.comparison.methods.supervised import (
    PENALTY,
    ClassMeans,
    Hyperplane,
    _normal,
)
from sfvq_jax.interpret.directions.candidates import layer_ranges
from sfvq_jax.quality import pairwise_distances

D, L = 6, 3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Plain:
    """Latents of different spread and a mean, painted as pixels; nothing to look into."""

    latent_dim, num_layers = D, L
    mixing = normal(D, D)

    def sample(self, key, n, *, label=None, truncation=None):
        return 5 + jnp.matmul(jax.random.normal(key, (n, D)), self.mixing, precision="highest")

    def render(self, latents):
        pixels = latents if latents.ndim == 2 else latents.mean(1)
        return jnp.tanh(pixels)[:, None, :, None]


class Open(Plain):
    """The same with weights of different numbers of styles, and rectified activations."""

    weights = (normal(4, D, seed=1), normal(7, D, seed=2), normal(1, D, seed=3))
    first = normal(D, 9, seed=4)

    def style_weights(self):
        return [jnp.asarray(weight) for weight in self.weights]

    def activations(self, latents):
        return jax.nn.relu(jnp.matmul(latents, self.first, precision="highest"))


class Factors(Plain):
    """Features that three factors change, each wherever one starts, and more others otherwise."""

    latent_dim, num_layers = 8, 2
    axes = np.linalg.qr(normal(8, 8, seed=6))[0].astype(np.float32)

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, 8))

    def features(self, latents):
        along = jnp.matmul(latents, self.axes, precision="highest")
        return jnp.concatenate([3 * along[:, :3], jnp.sin(2 * along[:, 3:])], 1)


PLAIN, OPEN, FACTORS = Plain(), Open(), Factors()
KEY = jax.random.key(0)
WHOLE = (0, L - 1)


class Shown(Plain):
    """Images that show latents as they are."""

    def render(self, latents):
        return (latents if latents.ndim == 2 else latents.mean(1))[:, None, :, None]


WEIGHTS = np.array([[3, 0, -4, 0, 0, 0], [0, 0, 0, 1, 0, 0]], np.float32) / 5
LINEAR = Scorer.of(lambda images: images[:, 0, :, 0] @ WEIGHTS.T, ["both", "one"])
NEVER = Scorer.of(lambda images: images[:, 0, :2, 0], ["never", "relative"], [1e9, None])

SMALL = (
    SFVQ(bits=2, solver=LeastSquares(rounds=2, samples=1024)),
    KMeans(codewords=8, samples=512),
    PCA(count=4, samples=512),
    ICA(count=4, samples=512),
    SeFa(count=4),
    LatentCLR(count=5, steps=4, batch=3, directions_a_step=3),
    RandomDirections(count=5),
    RandomPairs(count=11),
    FeaturePCA(LINEAR, count=2, samples=256, differentiated=4),
)


def assert_same_lines(found, expected, atol=1e-4):
    """Rows [M, D] that are the same up to their signs."""
    found, expected = np.float64(found), np.float64(expected)
    assert found.shape == expected.shape
    signs = np.sign(np.sum(found * expected, 1, keepdims=True))
    assert_allclose(found, signs * expected, atol=atol)


@pytest.fixture(scope="module", params=SMALL, ids=lambda method: method.name)
def fitted(request):
    return request.param, request.param.fit(KEY, OPEN)


class TestEveryMethod:
    def test_gives_unit_vectors_for_every_range_of_layers(self, fitted):
        method, found = fitted
        assert isinstance(method, Method)
        assert set(found.directions) == {(i, j) for i in range(L) for j in range(i, L)}
        for vectors in found.directions.values():
            assert vectors.dtype == jnp.float32
            assert vectors.shape[1:] == (D,)
            assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)

    def test_as_many_as_asked_for(self, fitted):
        method, found = fitted
        of_curves = {"SFVQ": 3, "k-means": 7}
        expected = of_curves.get(method.name) or method.count
        assert len(found.directions[WHOLE]) == expected

    def test_the_same_key_finds_the_same(self, fitted):
        method, found = fitted
        again = method.fit(KEY, OPEN)
        for layers, vectors in found.directions.items():
            assert_array_equal(again.directions[layers], vectors)

    def test_lines_are_those_of_the_curve_it_gives(self, fitted):
        method, found = fitted
        if found.curve is None:
            assert method.name not in ("SFVQ", "k-means")
            return
        steps = np.diff(np.asarray(found.curve.codewords, np.float64), axis=0)
        expected = steps / np.linalg.norm(steps, axis=1, keepdims=True)
        assert_allclose(found.directions[WHOLE], expected, atol=1e-5)

    def test_the_defaults_are_what_the_model_allows_with_as_many_directions_each(self):
        methods = default_methods(PLAIN, bits=3)
        assert len({method.name for method in methods}) == 7
        assert SeFa not in map(type, methods)  # for want of style_weights
        assert [m.count for m in methods if hasattr(m, "count")] == [7, 7, 7, 7, 28]
        more = default_methods(PLAIN, bits=3, scorer=LINEAR)
        assert [type(method) for method in more[7:]] == [FeaturePCA, ClassMeans, Hyperplane]


def test_a_method_of_ones_own_is_one():
    class Axes:
        name = "axes"

        def fit(self, key, model):
            vectors = jnp.eye(model.latent_dim)
            return Fitted(in_all_ranges(vectors, model.num_layers))

    method: Method = Axes()
    assert isinstance(method, Method)
    assert len(method.fit(KEY, PLAIN).directions) == len(layer_ranges(L)) == 6


def test_pairs_of_a_curve_go_from_each_codeword_to_every_later_one():
    curve = Curve(jnp.asarray(normal(4, D)))
    codewords = np.asarray(curve.codewords, np.float64)
    steps = np.array([codewords[j] - codewords[i] for i, j in itertools.combinations(range(4), 2)])
    expected = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    assert_allclose(curve_pairs(curve), expected, atol=1e-5)


class Narrow(Plain):
    """Latents that fill two of the six dimensions; images change in all."""

    def sample(self, key, n, *, label=None, truncation=None):
        return jnp.matmul(jax.random.normal(key, (n, 2)), self.mixing[:2], precision="highest")


@pytest.mark.parametrize("method", [RandomDirections(5), LatentCLR(5, 8, 3, 3)])
def test_directions_keep_to_those_in_which_latents_differ(method):
    vectors = method.fit(KEY, Narrow()).directions[WHOLE]
    span = np.linalg.qr(Narrow.mixing[:2].T)[0]
    assert_allclose(np.linalg.norm(vectors @ span, axis=1), 1, atol=1e-4)


class TestSupervised:
    """Of attributes that are linear in latents, of which it is known what raises them most."""

    def vectors(self, method):
        found = method.fit(KEY, Shown()).directions
        assert set(found) == {(i, j) for i in range(L) for j in range(i, L)}
        return np.asarray(found[WHOLE], np.float64)

    def test_means_differ_by_the_covariance_with_the_attribute(self):
        # of Gaussian latents, E[x | above] - E[x | below] is along Cov(x, score)
        expected = WEIGHTS @ Plain.mixing.T @ Plain.mixing
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        found = self.vectors(ClassMeans(LINEAR, samples=2**14))
        assert ((found * expected).sum(1) > 0.995).all()

    def test_hyperplanes_are_normal_to_what_separates(self):
        expected = WEIGHTS / np.linalg.norm(WEIGHTS, axis=1, keepdims=True)
        found = self.vectors(Hyperplane(LINEAR, samples=2**12))
        assert ((found * expected).sum(1) > 0.995).all()

    def test_a_hyperplane_is_that_of_scikit_learn(self):
        x, random = normal(300, D, seed=7).astype(np.float64), np.random.default_rng(8)
        scores = x @ WEIGHTS[0] + 0.5 * random.normal(size=300)
        has = scores > np.median(scores)  # half of them, so that all rows take part
        machine = LinearSVC(C=PENALTY, dual=False, intercept_scaling=1e3, tol=1e-8)
        expected = machine.fit(x - x.mean(0), has).coef_[0]
        assert_allclose(_normal(x, scores, has), expected, atol=1e-3)

    @pytest.mark.parametrize("kind", [ClassMeans, Hyperplane])
    def test_what_no_image_has_gives_no_direction(self, kind):
        assert len(self.vectors(kind(NEVER, samples=256))) == 1


class TestKMeans:
    def test_the_path_is_one_that_no_reversal_makes_shorter(self):
        curve = KMeans(codewords=10, samples=512).fit(KEY, PLAIN).curve
        assert curve is not None
        distances = pairwise_distances(np.asarray(curve.codewords, np.float64))

        def length(order):
            return distances[order[:-1], order[1:]].sum()

        path = np.arange(10)
        for i, j in itertools.combinations(range(11), 2):
            other = np.concatenate([path[:i], path[i:j][::-1], path[j:]])
            assert length(other) > length(path) - 1e-4

    def test_more_codewords_than_latents_are_refused(self):
        with pytest.raises(ValueError, match="7 latents have no 8 means"):
            KMeans(codewords=8, samples=7).fit(KEY, PLAIN)


class TestPCA:
    def test_of_latents_is_that_of_scikit_learn(self):
        found = PCA(samples=1000).fit(KEY, PLAIN).directions[WHOLE]
        latents = np.float64(PLAIN.sample(KEY, 1000))
        assert_same_lines(found, SklearnPCA().fit(latents).components_)

    @pytest.mark.parametrize("samples", [500, 8])
    def test_of_activations_goes_back_to_latents_by_least_squares(self, samples):
        # of 8 latents and 9 activations, the smaller matrix is that of the latents
        found = PCA(count=4, samples=samples).fit(KEY, OPEN).directions[WHOLE]
        latents = OPEN.sample(KEY, samples)
        x = SklearnPCA(4).fit_transform(np.float64(OPEN.activations(latents)))
        centred = np.float64(latents) - np.float64(latents).mean(0)
        u = np.linalg.lstsq(x, centred, rcond=None)[0]
        assert_same_lines(found, u / np.linalg.norm(u, axis=1, keepdims=True))

    def test_components_of_no_variance_are_left_out(self):
        class Flat(Plain):
            def sample(self, key, n, *, label=None, truncation=None):
                return super().sample(key, n) * jnp.array([[1.0, 1, 1, 0, 0, 0]])

        found = PCA(samples=256).fit(KEY, Flat()).directions[WHOLE]
        assert found.shape == (3, D)
        assert_allclose(found[:, 3:], 0, atol=1e-6)


class Mixed(Plain):
    """Sources that are independent and not normal."""

    def sample(self, key, n, *, label=None, truncation=None):
        sources = jax.random.laplace(key, (n, D))
        return 5 + jnp.matmul(sources, self.mixing, precision="highest")


class TestICA:
    def test_finds_the_sources_that_pca_does_not(self):
        expected = Mixed.mixing / np.linalg.norm(Mixed.mixing, axis=1, keepdims=True)
        ica, pca = (
            np.float64(method.fit(KEY, Mixed()).directions[WHOLE])
            for method in (ICA(samples=4096), PCA(samples=4096))
        )
        assert np.abs(expected @ ica.T).max(1).min() > 0.99
        assert np.abs(expected @ pca.T).max(1).min() < 0.9

    def test_is_that_of_scikit_learn(self):
        found = np.float64(ICA(samples=2048).fit(KEY, Mixed()).directions[WHOLE])
        latents = np.float64(Mixed().sample(KEY, 2048))
        theirs = FastICA(whiten="unit-variance", random_state=0).fit(latents).mixing_
        order = np.argsort(-np.linalg.norm(theirs, axis=0))  # of explained variance
        theirs = (theirs / np.linalg.norm(theirs, axis=0))[:, order]
        assert_allclose(np.abs(np.sum(found * theirs.T, 1)), 1, atol=1e-3)


class TestFeaturePCA:
    def test_moves_features_along_their_components(self):
        weights = normal(D, D, seed=7) + 3 * np.eye(D, dtype=np.float32)
        scorer = Scorer.of(lambda images: images[:, 0, :, 0] @ weights.T, list("abcdef"))
        found = FeaturePCA(scorer, samples=2048, ridge=1e-4).fit(KEY, Shown()).directions[WHOLE]
        features = np.float64(Shown().sample(KEY, 2048)) @ np.float64(weights).T
        moved = np.float64(found) @ np.float64(weights).T
        assert_same_lines(
            moved / np.linalg.norm(moved, axis=1, keepdims=True),
            SklearnPCA().fit(features).components_,
            atol=0.05,
        )

    def test_layers_that_change_nothing_have_no_directions(self):
        class First(Shown):
            def render(self, latents):
                return super().render(latents if latents.ndim == 2 else latents[:, 0])

        found = FeaturePCA(LINEAR, 2, samples=64, differentiated=4).fit(KEY, First())
        assert set(found.directions) == {(0, last) for last in range(L)}


class TestSeFa:
    def test_is_the_eigenvectors_by_hand_for_every_range(self):
        directions = SeFa().fit(KEY, OPEN).directions
        for first, last in layer_ranges(L):
            rows = np.concatenate([np.float64(w) for w in OPEN.weights[first : last + 1]])
            a = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            values, vectors = (np.real(x) for x in np.linalg.eig(a.T @ a))
            order = np.argsort(-values)[: np.linalg.matrix_rank(a)]
            assert_same_lines(directions[first, last], vectors[:, order].T)

    def test_no_unit_vector_moves_the_styles_more_than_the_first(self):
        first = np.asarray(SeFa().fit(KEY, OPEN).directions[1, 1])[0]
        a = np.float64(OPEN.weights[1])
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        others = np.asarray(RandomDirections(1000).fit(KEY, OPEN).directions[1, 1])
        assert np.linalg.norm(a @ first) > np.linalg.norm(others @ a.T, axis=1).max()

    def test_a_style_that_no_latent_changes_counts_for_nothing(self):
        class Dead(Open):
            def style_weights(self):
                return [jnp.pad(weight, [(0, 2), (0, 0)]) for weight in self.weights]

        found = SeFa().fit(KEY, Dead()).directions
        for layers, vectors in SeFa().fit(KEY, OPEN).directions.items():
            assert_same_lines(found[layers], vectors)

    def test_a_model_that_shows_no_weights_is_told_what_is_missing(self):
        with pytest.raises(ValueError, match="this model has no style_weights"):
            SeFa().fit(KEY, PLAIN)


loss_of = jax.jit(contrastive_loss)


def similarity(vectors):
    """Mean absolute cosine of different directions' changes of features, at 32 latents."""
    latents = FACTORS.sample(jax.random.key(7), 32)
    moved = [FACTORS.features(latents + 3 * vector[None]) for vector in vectors]
    changes = np.float64(jnp.stack(moved) - FACTORS.features(latents)[None])
    changes /= np.linalg.norm(changes, axis=2, keepdims=True)
    cosines = np.abs(np.einsum("kif,ljf->kilj", changes, changes)).mean((1, 3))
    return cosines[~np.eye(len(cosines), dtype=bool)].mean()


class TestLatentCLR:
    method = LatentCLR(count=3, steps=150, batch=8, directions_a_step=3)

    def test_the_loss_is_its_formula(self):
        changes = normal(3, 4, 5)
        h = np.float64(changes) / np.linalg.norm(np.float64(changes), axis=2, keepdims=True)
        losses = []
        for k, i in np.ndindex(3, 4):
            same = [abs(h[k, i] @ h[k, j]) for j in range(4) if j != i]
            other = [abs(h[k, i] @ h[m, j]) for m in range(3) for j in range(4) if m != k]
            losses.append(-np.log(np.exp(np.divide(same, 0.3)).mean()))
            losses[-1] += np.log(np.exp(np.divide(other, 0.3)).mean())
        assert_allclose(loss_of(jnp.asarray(changes), 0.3), np.mean(losses), rtol=1e-4)

    def test_the_loss_does_not_know_a_direction_from_its_opposite(self):
        changes = jnp.asarray(normal(3, 4, 5))
        turned = changes * jnp.array([1.0, -1.0, 1.0])[:, None, None]
        assert_allclose(loss_of(turned, 0.5), loss_of(changes, 0.5), rtol=1e-5)

    def test_a_direction_that_changes_nothing_has_a_finite_loss_and_gradient(self):
        changes = jnp.asarray(normal(3, 4, 5)).at[1].set(0)
        loss, gradient = jax.jit(jax.value_and_grad(contrastive_loss))(changes, 0.5)
        assert jnp.isfinite(loss)
        assert jnp.isfinite(gradient).all()

    def test_learns_directions_that_differ_in_what_they_change(self):
        vectors, losses = self.method.train(KEY, FACTORS)
        assert losses.shape == (150,)
        assert losses[-20:].mean() < losses[:20].mean() - 0.2
        chance = [RandomDirections(3).fit(jax.random.key(i), FACTORS) for i in range(10)]
        by_chance = [similarity(fitted.directions[0, 0]) for fitted in chance]
        assert similarity(vectors) < 0.7 * np.mean(by_chance)

    def test_learns_the_factors_that_change_alike_everywhere(self):
        vectors = np.float64(self.method.train(KEY, FACTORS).vectors)
        inside = np.linalg.norm(vectors @ FACTORS.axes[:, :3], axis=1)
        assert inside.min() > 0.9

    def test_without_features_images_do(self):
        images = LatentCLR(count=3, steps=3, batch=2, directions_a_step=2).train(KEY, PLAIN)
        assert images.vectors.shape == (3, D)
        assert np.isfinite(images.losses).all()

    def test_little_memory_gives_the_same(self):
        method = LatentCLR(count=3, steps=3, batch=2, directions_a_step=2)
        expected = method.train(KEY, PLAIN)
        with limited_memory(1):
            found = method.train(KEY, PLAIN)
        assert_allclose(found.losses, expected.losses, rtol=1e-5)
        assert_allclose(found.vectors, expected.vectors, atol=1e-5)

    @pytest.mark.parametrize("change", [{"count": 1}, {"directions_a_step": 1}, {"batch": 1}])
    def test_nothing_to_contrast_is_refused(self, change):
        with pytest.raises(ValueError, match="leave nothing to contrast"):
            dataclasses.replace(self.method, **change).train(KEY, FACTORS)


STYLEGAN2 = stylegan2.StyleGAN2Config(
    z_dim=6,
    c_dim=0,
    w_dim=5,
    img_resolution=8,
    img_channels=2,
    mapping_layers=2,
    embed_features=0,
    layer_features=7,
    channels=(8, 6),
)
BIGGAN = biggan.BigGANConfig(
    6, 5, 3, (biggan.BlockConfig(8, 8, True), biggan.BlockConfig(8, 4, False)), True, "full"
)


@pytest.mark.parametrize("name", ["stylegan2", "biggan z", "biggan linear"])
def test_generators_have_the_features_that_latentclr_compares(name):
    if name == "stylegan2":
        model = stylegan2.init(KEY, STYLEGAN2)
    else:
        generator = biggan.init(KEY, BIGGAN)
        model = generator.space("z", 2) if name == "biggan z" else generator.space("linear")
    training = LatentCLR(count=3, steps=2, batch=2, directions_a_step=2).train(KEY, model)
    assert training.vectors.shape == (3, model.latent_dim)
    assert_allclose(np.linalg.norm(training.vectors, axis=1), 1, rtol=1e-5)
    assert np.isfinite(training.losses).all()
