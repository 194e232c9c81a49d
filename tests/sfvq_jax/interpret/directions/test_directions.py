"""Directions of a linear model, whose effects are known exactly: found, measured, named, kept."""

import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sfvq_jax import Curve, CurveRecord, check_belongs
from sfvq_jax.interpret import (
    Bench,
    Direction,
    DirectionRecord,
    Effect,
    Scorer,
    attribute_gradients,
    edit_latents,
    find_directions,
    load_direction,
    measured_of,
    pair_direction,
    save_direction,
)
from sfvq_jax.interpret.directions.bench import effect
from sfvq_jax.interpret.directions.candidates import layers_price
from sfvq_jax.interpret.directions.choosing import merit_of
from sfvq_jax.interpret.directions.finding import name_of
from sfvq_jax.interpret.directions.screening import search, search_reached, search_vectors

A, L, D, K = 3, 3, 4, 7
NAMES = ("first", "second", "third")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Linear:
    """Paints A pixels, each a linear function of all layers' codes, of latents N(0, spread²)."""

    latent_dim, num_layers = D, L
    weights = normal(A, L, D)
    spread = np.array([1.0, 2.0, 0.5, 1.0], np.float32)

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, D)) * self.spread[None]

    def render(self, latents):
        if latents.ndim == 2:
            latents = jnp.stack([latents] * L, 1)
        pixels = jnp.einsum("nld,ald->na", latents, self.weights, precision="highest")
        return pixels[:, None, :, None]


MODEL = Linear()
CURVE = Curve(jnp.asarray(3 * normal(K, D, seed=1)))
PIXELS = Scorer.of(lambda images: images[:, 0, :, 0], NAMES)
JUDGE = Scorer.of(lambda images: np.asarray(images)[:, 0, :, 0] ** 3, NAMES)  # not JAX, not linear
COVARIANCE = np.diag(np.float64(Linear.spread) ** 2)


def exact_effects(vector, layers, covariance=COVARIANCE):
    """Of all attributes at one deviation along the vector, in the attributes' own deviations."""
    vector = np.float64(vector)
    weights = np.float64(Linear.weights)
    deviations = np.sqrt(np.einsum("ad,de,ae->a", weights.sum(1), covariance, weights.sum(1)))
    first, last = layers
    of_range = weights[:, first : last + 1].sum(1) @ vector
    return of_range * np.sqrt(vector @ covariance @ vector) / deviations


class TestScreen:
    def test_gradients_are_the_weights(self):
        latents = MODEL.sample(jax.random.key(0), 5)
        gradients = attribute_gradients(MODEL, PIXELS, latents, batch=2)
        assert_allclose(gradients, np.broadcast_to(Linear.weights, (5, A, L, D)), rtol=1e-5)

    def test_gradients_give_the_forward_derivative_of_every_edit(self):
        latents = MODEL.sample(jax.random.key(0), 4)
        scorer = Scorer.of(lambda images: jnp.sin(images[:, 0, :, 0]), NAMES)
        gradients = attribute_gradients(MODEL, scorer, latents)
        for start, stop, layers in [(0, 3, (0, 2)), (5, 2, (1, 1)), (1, 2, (0, 1))]:
            direction = Direction(pair_direction(CURVE, start, stop), layers, 1.7)

            def scores(strength, direction=direction):
                codes = edit_latents(latents, direction, strength[None], L)[:, 0]
                return scorer(MODEL.render(codes))

            _, exact = jax.jvp(scores, (jnp.zeros(()),), (jnp.ones(()),))
            first, last = layers
            found = gradients[:, :, first : last + 1].sum(2) @ np.asarray(direction.vector)
            assert_allclose(1.7 * found, exact, rtol=1e-4, atol=1e-5)

    def test_what_cannot_be_traced_is_told_to_judge(self):
        with pytest.raises(ValueError, match="must be written in JAX"):
            attribute_gradients(MODEL, JUDGE, MODEL.sample(jax.random.key(0), 2))

    def test_a_callback_has_no_derivative_and_is_told_so(self):
        class Called(type(MODEL)):
            def render(self, latents):
                shape = jax.eval_shape(super().render, latents)
                return jax.pure_callback(lambda _: np.zeros(shape.shape, "float32"), shape, latents)

        with pytest.raises(ValueError, match="must be written in JAX"):
            attribute_gradients(Called(), PIXELS, MODEL.sample(jax.random.key(0), 2))

    @pytest.mark.parametrize("pairs", [True, False])
    def test_search_finds_the_best_of_all_candidates_and_layer_ranges(self, pairs):
        weights = np.float64(Linear.weights)
        gradients = np.broadcast_to(Linear.weights, (4, A, L, D))
        found = search(CURVE, gradients, [2, 0], COVARIANCE, count=4, pairs=pairs)
        codewords = np.float64(CURVE.codewords)
        for column, candidates in zip([2, 0], found, strict=True):
            scores = {}
            for i, j in itertools.combinations(range(K), 2):
                if not pairs and j > i + 1:
                    continue
                vector = (codewords[j] - codewords[i]) / np.linalg.norm(codewords[j] - codewords[i])
                unit = np.sqrt(vector @ COVARIANCE @ vector)
                for first, last in itertools.combinations_with_replacement(range(L), 2):
                    e = unit * weights[:, first : last + 1].sum(1) @ vector
                    ends = (i, j) if e[column] > 0 else (j, i)
                    score = e[column] ** 2 / np.linalg.norm(e) * layers_price((first, last), L)
                    scores[score] = (ends, (first, last))
            best: dict = {}
            for score in sorted(scores, reverse=True):  # of each pair its best layers
                best.setdefault(scores[score][0], (score, scores[score][1]))
            ranges = [layers for _, (_, layers) in best.items()]
            of_range = [ranges[:n].count(layers) for n, layers in enumerate(ranges)]
            expected = [item for item, n in zip(best.items(), of_range, strict=True) if n < 3][:4]
            assert [(c.codewords, c.layers) for c in candidates] == [
                (ends, layers) for ends, (_, layers) in expected
            ]
            assert_allclose([c.score for c in candidates], [s for _, (s, _) in expected], rtol=1e-4)

    def test_what_is_reached_is_the_greatest_difference_for_the_least_elsewhere(self):
        codewords, scores = np.float64(CURVE.codewords), np.float64(normal(K, A, seed=5))
        (found,) = search_reached(CURVE, scores, [1], COVARIANCE, num_layers=8, count=5, pairs=True)
        merits = {}
        for i, j in itertools.combinations(range(K), 2):
            step = codewords[j] - codewords[i]
            e = (scores[j] - scores[i]) * np.sqrt(step @ COVARIANCE @ step) / (step @ step)
            merits[(i, j) if e[1] > 0 else (j, i)] = e[1] ** 2 / np.linalg.norm(e)
        expected = sorted(merits, key=lambda ends: -merits[ends])[:5]
        assert [c.codewords for c in found] == expected
        assert {c.layers for c in found} == {(0, 5)}

    def test_a_candidate_at_which_latents_disagree_comes_later(self):
        steady = np.zeros((10, 1, 1, D))
        steady[:, 0, 0, 0] = 1.0
        steady[:, 0, 0, 1] = np.where(np.arange(10) < 4, -2.0, 4.0)  # more, but not always
        curve = Curve(jnp.array([[0.0, 0, 0, 0], [1.0, 0, 0, 0], [1.0, 1.0, 0, 0]]))
        (found,) = search(curve, steady, [0], np.eye(D), count=3, pairs=False)
        assert [c.codewords for c in found] == [(0, 1), (1, 2)]

    def test_two_codewords_in_one_place_are_no_candidate_in_front(self):
        curve = Curve(CURVE.codewords.at[3].set(CURVE.codewords[2]))
        gradients = np.broadcast_to(Linear.weights, (4, A, L, D))
        for candidates in search(curve, gradients, [0, 1, 2], COVARIANCE, count=3):
            assert all(set(c.codewords) != {2, 3} for c in candidates)


def test_vectors_are_searched_as_pairs_of_codewords_are():
    random = np.random.default_rng(1)
    curve = Curve(jnp.asarray(random.normal(size=(6, D)), jnp.float32))
    gradients = random.normal(size=(7, A, 2, D))
    covariance = np.cov(random.normal(size=(D, 50)))
    start, stop = np.triu_indices(6, 1)
    vectors = np.stack([pair_direction(curve, i, j) for i, j in zip(start, stop, strict=True)])
    ranges = [(0, 0), (0, 1), (1, 1)]
    by_pairs = search(curve, gradients, [2, 0], covariance, count=5)
    deviations = np.einsum("md,de,me->m", vectors, covariance, vectors) ** 0.5
    by_range = (dict.fromkeys(ranges, np.float64(v)) for v in (vectors, deviations))
    found = search_vectors(*by_range, gradients, [2, 0], count=5)
    for candidates, directions in zip(by_pairs, found, strict=True):
        for candidate, direction in zip(candidates, directions, strict=True):
            vector = np.float64(pair_direction(curve, *candidate.codewords))
            assert_allclose(direction.vector, vector, atol=1e-6)
            assert direction.layers == candidate.layers
            assert direction.unit == pytest.approx((vector @ covariance @ vector) ** 0.5, rel=1e-5)


class TestMeasure:
    def test_effects_of_a_linear_model_are_exact(self):
        bench = Bench(jax.random.key(0), MODEL, PIXELS, JUDGE)
        vector = pair_direction(CURVE, 1, 5)
        unit = float(np.sqrt(np.float64(vector) @ COVARIANCE @ np.float64(vector)))
        direction = Direction(vector, (1, 2), unit)
        found, judged = bench.effects(direction, MODEL.sample(jax.random.key(1), 64))
        expected = exact_effects(vector, (1, 2))
        # deviations of the attributes are estimates from 1024 images
        assert_allclose([found[name].mean for name in NAMES], expected, rtol=0.08)
        for name, value in zip(NAMES, expected, strict=True):
            assert found[name].agree == 1
            assert found[name].certain
            assert_allclose([found[name].low, found[name].high], [found[name].mean] * 2, rtol=1e-3)
            assert np.sign(judged[name].mean) == np.sign(value)

    def test_the_interval_is_students(self):
        changes = normal(30) + 0.5
        measured = effect(changes)
        half = 2.0452296 * changes.std(ddof=1) / 30**0.5  # t with 29 degrees of freedom at .975
        assert_allclose(measured.low, changes.mean() - half, rtol=1e-5)
        assert_allclose(measured.high, changes.mean() + half, rtol=1e-5)
        assert_allclose(measured.agree, (changes > 0).mean())
        assert_allclose(effect(-changes).agree, measured.agree)

    def test_the_interval_holds_the_true_mean_as_often_as_it_says(self):
        random = np.random.default_rng(0)
        inside = [(e := effect(random.normal(0.3, 1, 40))).low < 0.3 < e.high for _ in range(1000)]
        assert 0.93 < np.mean(inside) < 0.97

    def test_images_far_out_have_left_the_distribution_and_near_ones_have_not(self):
        bench = Bench(jax.random.key(0), MODEL, PIXELS, JUDGE)
        vector = jnp.array([0.0, 1.0, 0.0, 0.0])
        latents = MODEL.sample(jax.random.key(1), 64)
        low, high = bench.limits(Direction(vector, (0, L - 1), 2.0), latents)
        assert -8 < low < -1
        assert 1 < high < 8
        nowhere = Direction(vector, (0, L - 1), 1e-3)
        assert bench.limits(nowhere, latents) == (None, None)
        nearer = bench.limits(Direction(vector, (0, L - 1), 4.0), latents)
        assert_allclose(nearer, [low / 2, high / 2], rtol=0.3)

    def test_effects_are_measured_within_the_limits(self):
        bench = Bench(jax.random.key(0), MODEL, PIXELS, JUDGE)
        latents = MODEL.sample(jax.random.key(1), 32)
        direction = Direction(jnp.array([0.0, 1.0, 0.0, 0.0]), (0, L - 1), 2.0)
        linear = bench.effects(direction, latents, (-0.5, 1.0))[0]["first"]
        assert_allclose(linear.mean, bench.effects(direction, latents)[0]["first"].mean, rtol=1e-3)
        cubic = [bench.effects(direction, latents, (-x, x))[1]["first"].mean for x in (0.25, 0.5)]
        assert abs(cubic[0]) < abs(cubic[1])
        wide = bench.effects(direction, latents, comparisons=100)[1]["first"]
        narrow = bench.effects(direction, latents)[1]["first"]
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_a_gain_is_the_share_of_those_without_that_get_it_beside_random_steps(self):
        judge = Scorer.of(PIXELS.function, NAMES, (0.0, None, 1e6))
        bench = Bench(jax.random.key(0), MODEL, PIXELS, judge)
        latents = MODEL.sample(jax.random.key(1), 200)
        weights = np.float64(Linear.weights.sum(1)[0])
        direction = Direction(jnp.asarray(weights / np.linalg.norm(weights)), (0, L - 1), 1.5)
        scores = np.asarray(latents, np.float64) @ weights
        lacking = scores <= 0
        expected = (scores[lacking] + 2 * 1.5 * np.linalg.norm(weights) > 0).mean()
        gain = bench.gain(jax.random.key(2), direction, latents, "first", (None, 2.0))
        assert gain.strength == 2
        assert_allclose(gain.gained.mean, expected, atol=1e-6)
        assert gain.gained.low < gain.gained.mean < gain.gained.high
        # a random direction goes up or down, and rarely as steeply
        assert gain.by_chance.mean < 0.5 < gain.gained.low
        assert gain.certain
        relative = bench.gain(jax.random.key(2), direction, latents, "second", (None, 2.0))
        assert_allclose(bench.look(latents, bench.has)[0][:, 1].mean(), 0.25, atol=0.08)
        assert 0 <= relative.gained.mean <= 1
        never = bench.gain(jax.random.key(2), direction, latents, "third")
        assert (never.strength, never.gained.mean, never.certain) == (8, 0, False)

    def test_a_gain_where_nothing_is_lacking_is_not_certain(self):
        judge = Scorer.of(PIXELS.function, NAMES, -1e6)
        bench = Bench(jax.random.key(0), MODEL, PIXELS, judge)
        direction = Direction(jnp.array([1.0, 0.0, 0.0, 0.0]), (0, 0), 1.0)
        latents = MODEL.sample(jax.random.key(1), 8)
        gain = bench.gain(jax.random.key(2), direction, latents, "first")
        assert math.isnan(gain.gained.mean)
        assert not gain.certain


def test_merit_is_for_what_rises():
    rises = np.array([[1.0, 0.1], [1.2, 0.0], [0.8, -0.1]])
    assert merit_of(rises, 0) > 0.9
    assert merit_of(-rises, 0) < 0
    mostly_falls = np.array([[9.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])  # though it rises in the mean
    assert merit_of(mostly_falls, 0) < 0


def test_candidates_are_spread_over_ranges_of_layers():
    gradients = np.zeros((4, 1, 8, D))
    gradients[:, 0, 0] = 1.0  # the first layer is the best for every pair
    gradients[:, 0, 1:] = 0.9
    (found,) = search(CURVE, gradients, [0], COVARIANCE, count=8)
    assert len(found) == 8
    most = max(np.unique([c.layers for c in found], axis=0, return_counts=True)[1])
    assert most == 3


@pytest.fixture(scope="module")
def found():
    return find_directions(jax.random.key(0), MODEL, CURVE, PIXELS, JUDGE, per_attribute=2)


class TestFindDirections:
    def test_are_sorted_by_attribute_and_raise_it(self, found):
        assert [d.attribute for d in found] == [name for name in NAMES for _ in range(2)]
        for direction in found:
            column = NAMES.index(direction.attribute)
            layers, vector = direction.direction.layers, direction.direction.vector
            effects = exact_effects(vector, layers)
            assert effects[column] > 0
            assert_allclose(
                [direction.effects[name].mean for name in NAMES], effects, rtol=0.1, atol=0.01
            )
            others = np.delete(effects, column)
            expected = np.linalg.norm(others) / effects[column]
            assert_allclose(direction.entanglement, expected, rtol=0.15)
            assert direction.confirmed == direction.gain.certain
            start, stop = direction.codewords
            assert_allclose(vector, pair_direction(CURVE, start, stop), rtol=1e-6)

    def test_no_layer_more_or_less_would_be_better(self, found):
        for direction in found:
            column, (first, last) = NAMES.index(direction.attribute), direction.direction.layers
            merits = {}
            for ends in [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]:
                layers = (first + ends[0], last + ends[1])
                if 0 <= layers[0] <= layers[1] < L:
                    e = exact_effects(direction.direction.vector, layers)
                    merit = e[column] * abs(e[column]) / np.linalg.norm(e)
                    merits[layers] = merit * layers_price(layers, L)
            assert merits[first, last] > 0.97 * max(merits.values())

    def test_the_unit_is_the_deviation_along_it(self, found):
        for direction in found:
            vector = np.float64(direction.direction.vector)
            expected = np.sqrt(vector @ COVARIANCE @ vector)
            assert_allclose(direction.direction.unit, expected, rtol=0.03)

    def test_one_that_was_interrupted_goes_on_and_finds_the_same(self, found):
        done, told = {}, []

        def interrupt(progress):
            if len(done) == 3:  # derivatives, codewords, and the first attribute
                raise KeyboardInterrupt

        go = functools.partial(
            find_directions, jax.random.key(0), MODEL, CURVE, PIXELS, JUDGE, per_attribute=2
        )
        with pytest.raises(KeyboardInterrupt):
            go(done=done, on_progress=interrupt)
        assert f"directions of {NAMES[0]}" in done
        again = go(done=done, on_progress=told.append)
        assert [p.part for p in told if p.images == p.total][-1] == f"directions of {NAMES[2]}"
        assert not {p.part for p in told} & {"derivatives", f"directions of {NAMES[0]}"}
        for one, other in zip(found, again, strict=True):
            assert one._replace(direction=None) == other._replace(direction=None)
            assert (one.direction.vector == other.direction.vector).all()

    def test_lines_alone_join_neighbours(self):
        lines = find_directions(
            jax.random.key(0), MODEL, CURVE, PIXELS, JUDGE, pairs=False, attributes=["third"]
        )
        assert [d.attribute for d in lines] == ["third"]
        assert abs(lines[0].codewords[0] - lines[0].codewords[1]) == 1

    def test_what_is_not_there_is_named(self):
        with pytest.raises(ValueError, match="no attribute 'fourth'"):
            find_directions(jax.random.key(0), MODEL, CURVE, PIXELS, JUDGE, attributes=["fourth"])
        with pytest.raises(ValueError, match="the curve has 3 dimensions, the model's latents 4"):
            find_directions(jax.random.key(0), MODEL, Curve(CURVE.codewords[:, :3]), PIXELS, JUDGE)

    def test_a_judge_that_sees_nothing_confirms_nothing(self, found):
        noise = {"first": Effect(0.1, -0.2, 0.4, 0.55)}
        assert not found[0]._replace(judged=noise).confirmed
        assert not found[0]._replace(judged={}).confirmed
        by_chance = found[0].gain._replace(by_chance=found[0].gain.gained)
        assert not found[0]._replace(gain=by_chance).confirmed
        assert not found[0]._replace(gain=None).confirmed


class TestNames:
    effects = {  # noqa: RUF012
        "width": Effect(0.5, 0.4, 0.6, 1.0),
        "area": Effect(-0.4, -0.5, -0.3, 1.0),
        "light": Effect(0.35, -0.1, 0.8, 0.6),
        "height": Effect(0.1, 0.05, 0.15, 0.9),
    }

    @pytest.mark.parametrize(
        ("layers", "where"),
        [((0, 3), "layers 0-3"), ((2, 2), "layer 2"), ((0, 5), "all layers")],
    )
    def test_say_what_changes_most_with_certainty_and_where(self, layers, where):
        assert name_of("width", self.effects, layers, 6) == f"more width, less area; {where}"

    def test_the_attribute_sought_comes_first_however_small(self):
        name = name_of("height", self.effects, (0, 1), 6)
        assert name == "more height, more width, less area; layers 0-1"


class TestFile:
    record = DirectionRecord(
        Direction(pair_direction(CURVE, 0, 3), (1, 2), 2.5),
        "more of it; layers 1-2",
        "linear-w",
        "abc",
        {"codewords": [0, 3]},
        {"entanglement": 0.5, "limits": [None, 3.0]},
    )

    def test_a_direction_comes_back_as_it_was(self, tmp_path):
        path = tmp_path / "d.json"
        save_direction(path, self.record)
        loaded = load_direction(path)
        assert_allclose(loaded.direction.vector, self.record.direction.vector, rtol=1e-7)
        assert loaded._replace(direction=None) == self.record._replace(direction=None)
        assert (loaded.direction.layers, loaded.direction.unit) == ((1, 2), 2.5)
        with pytest.raises(FileExistsError):
            save_direction(path, self.record)

    def test_what_was_measured_is_json(self):
        (found,) = find_directions(
            jax.random.key(0), MODEL, CURVE, PIXELS, JUDGE, attributes=["first"], latents=16
        )
        measured = json.loads(json.dumps(measured_of(found), allow_nan=False))
        assert measured["effects"]["first"]["mean"] == found.effects["first"].mean
        assert measured["attribute"] == "first"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"vector": [1.0, 1.0]}, "no unit vector"),
            ({"vector": "no"}, "no direction file"),
            ({"vector": None}, "its vector is missing"),
            ({"vector": ["1", "0"]}, "no list of numbers"),
            ({"vector": [[1.0, 0.0]]}, "no list of numbers"),
            ({"vector": [10**400, 0]}, "no direction file"),
            ({"vector": [math.inf, 0.0]}, "Infinity is no finite number"),
            ({"layers": [2, 1]}, "layers 2-1"),
            ({"layers": [0.0, 1]}, "not two numbers"),
            ({"layers": [0, 1, 2]}, "not two numbers"),
            ({"unit": -1}, "unit is -1"),
            ({"unit": 1e300}, "unit is 1e\\+300"),
            ({"unit": True}, "unit is missing, or of another type"),
            ({"name": "\ud800"}, "no direction file"),
            ({"measured": {"limits": math.nan}}, "NaN is no finite number"),
            ({"format_version": 2}, "format 2"),
            ({"source": 3}, "no direction file"),
        ],
    )
    def test_a_damaged_file_is_named(self, tmp_path, change, message):
        path = tmp_path / "d.json"
        save_direction(path, self.record)
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ValueError, match=message) as error:
            load_direction(path)
        assert "d.json" in str(error.value)

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
    def test_other_files_are_no_directions(self, tmp_path, content):
        (tmp_path / "d.json").write_bytes(content)
        with pytest.raises(ValueError, match="no direction file"):
            load_direction(tmp_path / "d.json")
        with pytest.raises(FileNotFoundError):
            load_direction(tmp_path / "none.json")

    def test_of_another_model_is_named_as_a_direction(self):
        class Other(Linear):
            latent_space, model_hash = "other-w", "def"

        with pytest.raises(ValueError, match=r"the direction is of space linear-w, .* other-w"):
            check_belongs(self.record, Other())
        with pytest.raises(ValueError, match="make a direction for this model"):
            check_belongs(self.record._replace(space=""), Other())
        with pytest.raises(ValueError, match="make a curve for this model"):
            check_belongs(CurveRecord(CURVE, model_hash="abc"), Other())
