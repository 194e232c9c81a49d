"""Methods compared on a model whose factors are known: the truth must win, and by how much."""

import functools
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
    Direction,
    Fitted,
    Method,
    RandomDirections,
    Scorer,
    compare,
    order_summary,
    summary,
)
from sfvq_jax.interpret.comparison import trial
from sfvq_jax.interpret.comparison.measures import Edit, Order, Recognition
from sfvq_jax.interpret.comparison.trial import path_correlations
from sfvq_jax.interpret.directions import Bench, bench
from sfvq_jax.interpret.intervals import holm, share_over_seeds

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
        go = functools.partial(
            compare,
            jax.random.key(0),
            MODEL,
            FIND,
            JUDGE,
            methods=methods,
            classes=NAMES,
            features=lambda images: images[:, 0, :, 0] + 0.1,
            seeds=2,
            latents=32,
            change=0.5,
        )
        done, told = {}, []

        def interrupt(progress):
            if progress.part == "half, seed 1":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            go(done=done, on_progress=interrupt)
        assert len(done) == 4 + 2
        before = {name: id(part) for name, part in done.items()}
        comparison = go(done=done, on_progress=told.append)
        assert {name: id(done[name]) for name in before} == before
        assert {p.part for p in told} == {"half, seed 1", "repeated, seed 1"}
        assert told[-1].images == told[-1].total
        return comparison


def of(comparison, method):
    return [edit for edit in comparison.edits if edit.method == method]


def test_the_true_direction_is_matched_to_each_attribute_and_changes_nothing_else(comparison):
    for edit in of(comparison, "truth"):
        assert edit.dependency == pytest.approx(0, abs=1e-3)
        assert edit.correlation == pytest.approx(1, abs=1e-3)
        assert edit.agree == 1


def test_all_methods_are_scaled_to_the_same_change(comparison):
    reached = [edit for edit in comparison.edits if edit.strength is not None]
    assert_allclose([edit.change for edit in reached], 0.5, rtol=1e-3)
    # a deviation of latents along a factor is one of its attribute, and half of it along a mixture
    assert_allclose([e.strength for e in of(comparison, "truth")], 0.5, rtol=0.1)
    assert_allclose([e.strength for e in of(comparison, "mixed")], 0.5**0.5, rtol=0.1)


def test_what_moves_two_attributes_pays_for_it(comparison):
    for edit in of(comparison, "mixed"):
        assert edit.dependency == pytest.approx(0.5, rel=0.15)  # one of the two others, as much
        assert edit.correlation == pytest.approx(0.5, abs=0.01)


def test_what_a_method_does_not_reach_is_told_and_left_out_for_it_alone(comparison):
    missed = [edit for edit in of(comparison, "half") if not edit.reached]
    assert {edit.attribute for edit in missed} == {"right"}
    assert all(edit.content is edit.strength is None for edit in missed)
    rows = {row.method: row for row in summary(comparison)}
    assert (rows["truth"].shared, rows["mixed"].shared, rows["half"].shared) == (3, 3, 2)
    assert rows["truth"].reached.mean == 1
    assert rows["truth"].failed == rows["half"].failed == 0
    assert rows["half"].reached.mean == pytest.approx(2 / 3)


def test_reached_is_on_fresh_latents_within_the_limits():
    """Of a trial made by hand, on latents where nothing is random."""

    class Within(Bench):
        def __init__(self, limit):
            self.model, self.judge, self.judge_scale, self._batch = MODEL, JUDGE, np.ones(A), 8
            # of images as bright as they are at the limit; three quarters of two latents are two
            self.kinds = [lambda images: np.asarray(blocks(images))[:, :1]]
            self.inside = lambda seen: seen[0][:, 0] < 0.2 * (limit or 100)

        def judged(self, images):  # at 10 it can rise no more
            return np.minimum(5 * np.asarray(blocks(images)), 10)

    def edited(limit, fresh):
        bench = Within(limit)
        zeros, fresh = jnp.zeros((2, D)), jnp.asarray(np.outer(np.ones(2), fresh * FACTORS[0]))
        (fresh_judged,) = bench.look(fresh, bench.judged)
        by_hand = trial.Trial(
            bench, trial.Columns([0, 1, 2], [0, 1, 2], []), None, 3.0, np.eye(D), np.zeros(0),
            np.zeros(0), zeros, jnp.asarray(fresh, jnp.float32), fresh_judged, None,
        )  # fmt: skip
        direction = Direction(jnp.asarray(FACTORS[0]), (0, L - 1), 1.0)
        return by_hand._measured(direction, 0, bench.walk(direction, zeros))

    everywhere = edited(None, 0)
    assert everywhere.reached
    assert everywhere.strength == pytest.approx(3, rel=1e-4)
    beyond = edited(2.9, 0)  # three deviations are wanted, and images leave between 2 and 3
    assert (beyond.reached_where_chosen, beyond.reached) == (True, False)
    assert beyond.strength is beyond.dependency is None
    assert 2 < beyond.limit < 3
    within = edited(3.5, 0)
    assert 3 < within.limit < 4
    assert (within.reached, within.strength) == (True, pytest.approx(3, rel=1e-4))
    elsewhere = edited(None, 8)  # fresh latents are near what can be seen
    assert (elsewhere.reached_where_chosen, elsewhere.reached) == (True, False)


def test_directions_that_differ_are_recognised_and_copies_are_not(comparison):
    told_apart = {r.method: r for r in comparison.recognitions if r.seed == 0}
    for measure in ("accuracy", "accuracy_equal"):
        assert getattr(told_apart["truth"], measure) > 0.8
        # three copies of each: a third is right by chance
        assert getattr(told_apart["repeated"], measure) < 0.6
    rows = {row.method: row for row in summary(comparison)}
    assert (rows["repeated"].directions, rows["repeated"].recognised) == (9, 9)


def test_random_directions_are_measured_with_steps_as_long_as_the_first_ones_too():
    """Along the first dimensions latents differ ten times as much: random steps are shorter."""

    class Long(Blocks):
        def sample(self, key, n, *, label=None, truncation=None):
            return jax.random.normal(key, (n, D)) * jnp.array([[10.0, 1, 1, 1, 1]])

    axes = np.eye(D, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "SPREAD_SAMPLES", 256)
        patch.setattr(bench, "BANK", 128)
        patch.setattr(trial, "RECOGNITION_PAIRS", 12)
        patch.setattr(trial, "RECOGNITION_EPOCHS", 1)
        methods = [Own("first", axes[:1].repeat(2, 0)), RandomDirections(4)]
        compared = compare(
            jax.random.key(0), Long(), FIND, JUDGE, methods=methods, seeds=2, latents=8
        )
    rows = {row.method: row for row in summary(compared)}
    assert list(rows) == ["first", "random", "random, equal steps"]
    assert rows["random, equal steps"].directions == 4
    limits = {m: [e.limit or 8 for e in of(compared, m)] for m in rows}
    strengths = {m: [e.strength for e in of(compared, m) if e.strength is not None] for m in rows}
    assert np.mean(limits["random, equal steps"]) < np.mean(limits["random"])
    assert strengths["random"]


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


def edit(method, seed, attribute, dependency, *, chosen=True):
    """Reached where there is a dependency."""
    if dependency is None:
        return Edit(method, seed, attribute, (0, 1), reached_where_chosen=chosen)
    return Edit(method, seed, attribute, (0, 1), None, True, True, 1.0, 1.0, 1.0, dependency)


def rows_of(edits, seeds=3):
    methods = dict.fromkeys(e.method for e in edits)
    recognitions = [
        Recognition(m, s, 3, 3, 0.5 + 0.1 * s, 0.4, 1.0) for m in methods for s in range(seeds)
    ]
    order = Order("one", 0, 1.0, 1.0, 1.0, 1.0)
    return summary(Comparison(edits, recognitions, [order], {"seeds": seeds}))


def test_a_summary_has_means_and_intervals_over_seeds():
    values = {(0, "a"): 0.1, (0, "b"): 0.3, (1, "a"): 0.5, (1, "b"): 0.6, (2, "a"): 0.2}
    edits = [edit("one", seed, name, value) for (seed, name), value in values.items()]
    edits += [edit("two", seed, name, 1.0) for seed, name in values]
    edits.append(edit("one", 2, "b", None))
    edits.append(edit("two", 2, "b", 9.0))  # not compared, since "one" does not get there
    one, two = rows_of(edits)
    means = np.array([0.2, 0.55, 0.2])
    half = scipy.stats.t.ppf(0.975, 2) * means.std(ddof=1) / 3**0.5
    assert_allclose(one.dependency, [means.mean(), means.mean() - half, means.mean() + half])
    assert two.dependency.mean == 1
    assert one.dependency_gap is None
    assert_allclose(two.dependency_gap[:3], 1 - np.array(one.dependency)[[0, 2, 1]])
    assert two.dependency_gap.p == pytest.approx(scipy.stats.ttest_1samp(1 - means, 0).pvalue)
    assert one.reached.mean == pytest.approx(5 / 6)
    assert (one.failed, two.failed) == (pytest.approx(1 / 3), 0)
    assert one.shared == two.shared == pytest.approx(5 / 3)
    assert one.content is None
    assert one.recognition.mean == pytest.approx(0.6)
    assert (one.recognition_equal.mean, one.recognised) == (pytest.approx(0.4), 3)


def test_a_weak_method_blanks_its_own_row_alone():
    places = [(seed, name) for seed in range(3) for name in "ab"]
    random = np.random.default_rng(0)
    edits = [edit(m, *place, random.uniform()) for m in ("one", "two") for place in places]
    alone = rows_of(edits)
    edits += [edit("weak", *place, None, chosen=False) for place in places]
    *others, weak = rows_of(edits)
    assert others == alone
    assert (weak.shared, weak.failed, weak.reached.mean) == (0, 0, 0)
    assert weak.dependency is weak.strength is weak.dependency_gap is None


def test_p_values_are_those_of_holm():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    assert_allclose(holm(np.array([0.9, 0.6])), [1, 1])
    assert holm(np.array([])).shape == (0,)


def test_gaps_are_adjusted_for_as_many_methods():
    values = np.random.default_rng(1).uniform(0.4, 1, (3, 3))
    edits = [edit("one", seed, "a", 0.0) for seed in range(3)]
    for number, of_method in enumerate(values):
        edits += [edit(f"other {number}", seed, "a", v) for seed, v in enumerate(of_method)]
    gaps = [row.dependency_gap for row in rows_of(edits)[1:]]
    raw = scipy.stats.ttest_1samp(values, 0, axis=1).pvalue
    assert_allclose([gap.p for gap in gaps], holm(raw))
    assert gaps[0].p > raw[0]


def test_intervals_of_shares_stay_shares_and_are_wider_where_seeds_differ():
    alike = share_over_seeds(np.array([0.9, 0.9, 0.9, 0.9]), 80)
    wilson = scipy.stats.binomtest(72, 80).proportion_ci(0.95, "wilson")
    assert_allclose(alike, [0.9, wilson.low, wilson.high])
    apart = share_over_seeds(np.array([0.6, 1.0, 1.0, 1.0]), 80)
    assert 0 < apart.low < alike.low
    assert alike.high < apart.high <= 1
    everything = share_over_seeds(np.ones(2), 10)
    assert everything.low < everything.mean == pytest.approx(everything.high) == 1


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
