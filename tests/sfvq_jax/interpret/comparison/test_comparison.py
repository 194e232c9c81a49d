"""Methods compared on a model whose factors are known: the truth must win, and by how much."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

from sfvq_jax import Curve
from sfvq_jax.interpret import (
    Comparison,
    Fitted,
    Method,
    Scorer,
    compare,
    order_summary,
    shared_attributes,
    summary,
)
from sfvq_jax.interpret.comparison import trial
from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.interpret.comparison.trial import path_correlations
from sfvq_jax.interpret.directions import bench

D, L, A = 5, 2, 3
NAMES = ("left", "middle", "right")
FACTORS = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0][:A].astype(np.float32)


class Blocks:
    """Three blocks of pixels, each as bright as one factor says; two factors do nothing."""

    latent_dim, num_layers = D, L

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, D))

    def render(self, latents):
        codes = latents if latents.ndim == 3 else jnp.stack([latents] * L, 1)
        values = 0.2 * jnp.matmul(codes.mean(1), FACTORS.T, precision="highest")
        return jnp.broadcast_to(jnp.repeat(values, 4, 1)[:, None, :, None], (len(codes), 8, 12, 1))


def blocks(images):
    return jnp.stack([images[:, 0, 0, 0], images[:, 0, 4, 0], images[:, 0, 8, 0]], 1)


MODEL = Blocks()
FIND = Scorer.of(blocks, NAMES)
JUDGE = Scorer.of(lambda images: np.asarray(blocks(images)) * 7 + 1, NAMES)  # no JAX


class Own:
    """A method of one's own: a name, and what it gives for ranges of layers."""

    def __init__(self, name, vectors, curve=None):
        self.name, self.vectors, self.curve = name, jnp.asarray(vectors), curve

    def fit(self, key, model):
        return Fitted({(0, model.num_layers - 1): self.vectors}, self.curve)


MIXED = np.stack([FACTORS[0] + FACTORS[1], FACTORS[1] + FACTORS[2], FACTORS[2] + FACTORS[0]])
CURVE = Curve(jnp.asarray(np.concatenate([-2 * FACTORS, 2 * FACTORS])))


@pytest.fixture(scope="module")
def comparison():
    methods = [
        Own("truth", FACTORS, CURVE),
        Own("mixed", MIXED / 2**0.5),
        Own("half", FACTORS[:2]),
        Own("repeated", np.repeat(FACTORS, 3, 0)),
    ]
    assert all(isinstance(method, Method) for method in methods)
    with pytest.MonkeyPatch.context() as patch:  # on few latents, to be quick
        patch.setattr(trial, "SPREAD_SAMPLES", 512)
        patch.setattr(bench, "BANK", 256)
        patch.setattr(trial, "RECOGNISED", 9)
        patch.setattr(trial, "RECOGNITION_PAIRS", 30)
        patch.setattr(trial, "RECOGNITION_EPOCHS", 15)
        return compare(
            jax.random.key(0),
            MODEL,
            FIND,
            JUDGE,
            methods=methods,
            classes=NAMES,
            features=lambda images: images[:, 0, :, 0] + 0.1,
            seeds=2,
            latents=32,
        )


def of(comparison, method):
    return [edit for edit in comparison.edits if edit.method == method]


def test_the_true_direction_is_matched_to_each_attribute_and_changes_nothing_else(comparison):
    for edit in of(comparison, "truth"):
        assert edit.dependency == pytest.approx(0, abs=1e-3)
        assert edit.correlation == pytest.approx(1, abs=1e-3)
        assert edit.agree == 1


def test_all_methods_are_scaled_to_the_same_change(comparison):
    reached = [edit for edit in comparison.edits if edit.strength is not None]
    assert_allclose([edit.change for edit in reached], 1, rtol=1e-3)
    # a deviation of latents along a factor is one of its attribute, and half of it along a mixture
    assert_allclose([e.strength for e in of(comparison, "truth")], 1, rtol=0.1)
    assert_allclose([e.strength for e in of(comparison, "mixed")], 2**0.5, rtol=0.1)


def test_what_moves_two_attributes_pays_for_it(comparison):
    for edit in of(comparison, "mixed"):
        assert edit.dependency == pytest.approx(0.5, rel=0.15)  # one of the two others, as much
        assert edit.correlation == pytest.approx(0.5, abs=0.01)


def test_what_a_method_does_not_reach_is_told_and_left_out_for_all(comparison):
    missed = [edit for edit in of(comparison, "half") if edit.strength is None]
    assert {edit.attribute for edit in missed} == {"right"}
    assert all(edit.content is None for edit in missed)
    assert shared_attributes(comparison) == 2
    rows = {row.method: row for row in summary(comparison)}
    assert rows["truth"].reached.mean == 1
    assert rows["half"].reached.mean == pytest.approx(2 / 3)


def test_directions_that_differ_are_recognised_and_copies_are_not(comparison):
    accuracy = {r.method: r.accuracy for r in comparison.recognitions if r.seed == 0}
    assert accuracy["truth"] > 0.8
    assert accuracy["repeated"] < 0.6  # three copies of each: a third is right by chance
    rows = {row.method: row for row in summary(comparison)}
    assert rows["repeated"].directions == 9


def test_a_curve_is_compared_by_all_its_pairs_too(comparison):
    rows = {row.method: row for row in summary(comparison)}
    assert rows["truth, pairs"].directions == 15
    for edit in of(comparison, "truth, pairs"):  # from -2 to +2 along each factor, among others
        assert edit.dependency == pytest.approx(0, abs=1e-3)


def test_a_curve_has_its_order_measured(comparison):
    assert [(order.method, order.seed) for order in comparison.orders] == [
        ("truth", 0),
        ("truth", 1),
    ]
    order = comparison.orders[0]
    assert order.class_runs is not None
    (row,) = order_summary(comparison)
    assert row["distortion"].mean == pytest.approx(
        np.mean([order.distortion for order in comparison.orders])
    )


def test_it_is_json(comparison):
    content = json.loads(json.dumps(comparison.to_json()))
    assert content["settings"]["attributes"] == list(NAMES)
    assert content["summary"][0]["method"] == "truth"
    assert content["edits"][0]["layers"] == [0, 1]
    assert content["order"][0]["distortion"]["low"] <= content["order"][0]["distortion"]["mean"]


def test_a_summary_has_means_and_intervals_over_seeds():
    def edit(method, seed, attribute, dependency):
        strength = None if dependency is None else 1.0
        return Edit(method, seed, attribute, (0, 1), strength, 1.0, 1.0, dependency)

    values = {(0, "a"): 0.1, (0, "b"): 0.3, (1, "a"): 0.5, (1, "b"): 0.6, (2, "a"): 0.2}
    edits = [edit("one", seed, name, value) for (seed, name), value in values.items()]
    edits += [edit("two", seed, name, 1.0) for seed, name in values]
    edits.append(edit("one", 2, "b", None))
    edits.append(edit("two", 2, "b", 9.0))  # not compared, since "one" does not get there
    recognitions = [
        Recognition(m, s, 3, 3, 0.5 + 0.1 * s) for m in ("one", "two") for s in range(3)
    ]
    order = Order("one", 0, 1.0, 1.0, 1.0, 1.0)
    settings = {"seeds": 3}
    one, two = summary(Comparison(edits, recognitions, [order], settings))
    means = np.array([0.2, 0.55, 0.2])
    half = scipy.stats.t.ppf(0.975, 2) * means.std(ddof=1) / 3**0.5
    assert_allclose(one.dependency, [means.mean(), means.mean() - half, means.mean() + half])
    assert two.dependency.mean == 1
    assert one.dependency_gap is None
    assert_allclose(two.dependency_gap, 1 - np.array(one.dependency)[[0, 2, 1]])
    assert one.reached.mean == pytest.approx(5 / 6)
    assert one.content is None
    assert one.recognition.mean == pytest.approx(0.6)


def test_path_correlations_are_pearsons_within_each_path():
    random = np.random.default_rng(0)
    steps, scores = random.normal(size=5), random.normal(size=(5, 4, 3))
    scores[:, :, 2] = 1.5  # nothing happens
    expected = np.mean(
        [[np.corrcoef(steps, scores[:, n, a])[0, 1] for a in range(2)] for n in range(4)], 0
    )
    assert_allclose(path_correlations(steps, scores), [*expected, 0], atol=1e-12)


def test_what_cannot_be_compared_is_refused():
    def refused(match, *methods, **options):
        with pytest.raises(ValueError, match=match):
            compare(jax.random.key(0), MODEL, FIND, JUDGE, methods=methods, **options)

    truth = Own("truth", FACTORS)
    refused("different names", truth, truth)
    refused("two seeds", truth, seeds=1)
    refused("no attribute 'up'", truth, attributes=["left", "up"])
    refused("two or more", truth, attributes=["left"])
    refused(r"\[M, 5\]", Own("narrow", FACTORS[:, :4]))
    refused("expected unit vectors", Own("long", 2 * FACTORS))
    refused("gives one direction", Own("alone", FACTORS[:1]))
    nothing = Own("nothing", FACTORS)
    nothing.fit = lambda key, model: Fitted({})
    refused("gives no directions", nothing)
