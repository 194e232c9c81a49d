"""Controlling dimensions of a generator where they are known: which, with what sign, how strong."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose

from sfvq_jax import Curve
from sfvq_jax.interpret import (
    Direction,
    Scorer,
    class_scorer,
    concentration,
    coordinates_along,
    curve_lines,
    edit_latents,
    flip_matrix,
    grow_set,
    intervene,
    intervention_effects,
    joint_scores,
    latent_axes,
    mask_ranking,
    optimise_mask,
    published_mask,
    translate,
    translation_summary,
)
from sfvq_jax.interpret.attributes.scorer import limit, probability
from sfvq_jax.interpret.dimensions import importance, moves, translation
from sfvq_jax.interpret.dimensions.growth import growth_of
from sfvq_jax.interpret.dimensions.importance import signed_vector
from sfvq_jax.interpret.directions import bench

D = 12
CONTROL = {"round": {2: 0.9, 5: -0.7, 9: 0.5}, "red": {0: -0.8, 7: 0.6}, "old": {3: 1.0}}
NAMES = tuple(CONTROL)
WEIGHTS = np.zeros((3, D), np.float32)
for _row, _of_concept in enumerate(CONTROL.values()):
    for _dimension, _size in _of_concept.items():
        WEIGHTS[_row, _dimension] = _size
OFFSET = -2.0


class Known:
    """Three blocks of pixels, each as bright as the dimensions say that control its concept."""

    latent_dim, num_layers = D, 1

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, D))

    def render(self, latents):
        codes = latents if latents.ndim == 2 else latents[:, 0]
        values = 0.1 * jnp.matmul(codes, WEIGHTS.T, precision="highest")
        return jnp.broadcast_to(jnp.repeat(values, 4, 1)[:, None, :, None], (len(codes), 8, 12, 1))


def logits(images):
    return 10 * images[:, 0, ::4, 0]


MODEL = Known()
CONCEPTS = Scorer.of(lambda images: limit(logits(images) + OFFSET), NAMES)
CLASSES = class_scorer(lambda images: 3 * logits(images), NAMES)
JUDGE = Scorer.of(  # another one, and no JAX
    lambda images: np.tanh(2 * np.asarray(logits(images)) - np.asarray(logits(images)).mean()),
    NAMES,
)


@pytest.fixture(scope="module")
def latents():
    return MODEL.sample(jax.random.key(0), 48)


@pytest.fixture(scope="module")
def axes(latents):
    return latent_axes(MODEL.sample(jax.random.key(1), 4096))


@pytest.fixture(scope="module")
def effects(latents, axes):
    return intervention_effects(MODEL, CONCEPTS, latents, axes)


def true_probabilities(latents):
    return scipy.special.expit(np.asarray(latents, np.float64) @ WEIGHTS.T + OFFSET)


def test_probability_undoes_what_the_scorers_do_to_log_odds():
    odds = jnp.linspace(-20, 20, 9)
    assert_allclose(probability(limit(odds)), scipy.special.expit(odds), atol=1e-6)


class TestCoordinates:
    def test_are_deviations_from_the_mean_along_each_vector(self, latents, axes):
        seen = np.asarray(MODEL.sample(jax.random.key(1), 4096))
        expected = (np.asarray(latents) - seen.mean(0)) / seen.std(0)
        assert_allclose(axes.of(latents), expected, atol=1e-5)

    def test_a_shift_moves_the_chosen_ones_and_no_others(self, latents, axes):
        signed = np.tile(signed_vector(D, np.array([1, 4]), np.array([1, -0.5])), (len(latents), 1))
        moved = intervene(latents, axes, jnp.asarray(signed), 3.0, "shift")
        assert_allclose(axes.of(moved) - axes.of(latents), 3 * signed, atol=1e-5)

    def test_a_set_replaces_them_whatever_they_were(self, latents, axes):
        signed = np.tile(signed_vector(D, np.array([1, 4]), np.array([1, -1])), (len(latents), 1))
        moved = axes.of(intervene(latents, axes, jnp.asarray(signed), 3.0, "set"))
        assert_allclose(moved[:, 1], 3, atol=1e-5)
        assert_allclose(moved[:, 4], -3, atol=1e-5)
        others = np.delete(np.arange(D), [1, 4])
        assert_allclose(moved[:, others], np.asarray(axes.of(latents))[:, others], atol=1e-5)

    def test_lines_of_a_curve_move_latents_from_codeword_to_codeword(self, latents):
        curve = Curve(jax.random.normal(jax.random.key(2), (5, D)))
        lines = curve_lines(curve, latents)
        assert lines.count == 4
        signed = jnp.asarray(signed_vector(4, np.array([2]), np.array([1])))[None]
        step = np.asarray(intervene(curve.codewords[2:3], lines, signed, 1.0, "shift"))
        along = np.asarray(curve.codewords[3] - curve.codewords[2])
        moved = step[0] - np.asarray(curve.codewords[2])
        assert_allclose(moved / np.linalg.norm(moved), along / np.linalg.norm(along), atol=1e-5)
        deviation = np.std(np.asarray(latents) @ (along / np.linalg.norm(along)))
        assert np.linalg.norm(moved) == pytest.approx(deviation, rel=1e-4)

    @pytest.mark.parametrize(
        ("vectors", "told"),
        [
            (np.eye(D)[:, :5], r"expected \[M, 12\]"),
            (np.zeros((2, D)), "length 0"),
            (np.eye(D)[-1:], "do not differ along vector 0"),
        ],
    )
    def test_bad_vectors_are_named(self, vectors, told, latents):
        flat = np.asarray(latents) * np.append(np.ones(D - 1), 0)
        with pytest.raises(ValueError, match=told):
            coordinates_along(np.concatenate([vectors, vectors]), jnp.asarray(flat))


class TestEffects:
    def test_are_the_probabilities_after_each_intervention(self, effects, latents, axes):
        for dimension, number in ((2, 0), (2, 3), (6, 1)):
            moved = np.array(latents, np.float64)
            moved[:, dimension] += effects.values[number] * float(axes.deviation[dimension])
            expected = true_probabilities(moved) - true_probabilities(latents)
            assert_allclose(effects.changes[:, dimension, number], expected, atol=1e-5)

    def test_a_set_value_gives_the_same_probability_whatever_it_was(self, latents, axes):
        set_to = intervention_effects(MODEL, CONCEPTS, latents, axes, values=(-2, 2), how="set")
        old = set_to.after[:, 3, :, 2]
        assert_allclose(old, np.broadcast_to(old[:1], old.shape), atol=1e-4)

    def test_dimensions_that_do_nothing_have_no_importance(self, effects):
        expected = [[row in CONTROL[name] for name in NAMES] for row in range(D)]
        assert ((effects.importance > 1e-3) == np.array(expected)).all()

    def test_rank_correlations_are_one_with_the_sign_of_the_control(self, effects):
        assert_allclose(effects.correlations, np.sign(WEIGHTS.T), atol=1e-6)

    def test_rank_correlations_are_spearman_s_within_latents(self, latents, axes):
        bent = Scorer.of(lambda images: jnp.sin(logits(images)), NAMES)  # which is not monotone
        seen = intervention_effects(MODEL, bent, latents[:8], axes)
        path = np.insert(seen.after[:, 2, :, 0], 2, seen.before[:, 0], axis=1)
        values = [-3, -1.5, 0, 1.5, 3]
        expected = np.mean([scipy.stats.spearmanr(values, row)[0] for row in path])
        assert seen.correlations[2, 0] == pytest.approx(expected, abs=1e-6)

    def test_the_ranking_is_by_size_with_signs(self, effects):
        for column, of_concept in enumerate(CONTROL.values()):
            ranking = effects.ranking(column)
            k = len(of_concept)
            assert ranking.order[:k].tolist() == list(of_concept)
            assert ranking.signs[:k].tolist() == np.sign(list(of_concept.values())).tolist()
            assert (ranking.sizes[:k] > 0.1).all()
            assert_allclose(ranking.sizes[k:], 0, atol=1e-5)

    def test_one_program_serves_all_latents_and_concepts(self, effects, latents, axes):
        compiled = importance.traced_scores._cache_size()
        intervention_effects(MODEL, CONCEPTS, -latents, axes)
        intervention_effects(MODEL, CONCEPTS, latents, axes, values=(-2, -1, 1, 2))
        assert importance.traced_scores._cache_size() == compiled

    def test_any_number_of_images_is_looked_at_in_one_order(self, latents, axes):
        signed = np.eye(D, dtype=np.float32)[:3]
        whole = joint_scores(MODEL, CONCEPTS, latents[:35], axes, signed, 2.0)
        alone = joint_scores(MODEL, CONCEPTS, latents[34:35], axes, signed[2:], 2.0)
        assert whole.shape == (35, 3, 3)
        assert_allclose(whole[34, 2], alone[0, 0], rtol=1e-6)

    @pytest.mark.parametrize("values", [(1, 2), (-1, 0, 1), (2, -2)])
    def test_values_must_lie_on_both_sides(self, values, latents, axes):
        with pytest.raises(ValueError, match="ascending ones below and above 0"):
            intervention_effects(MODEL, CONCEPTS, latents, axes, values=values)


class TestSequentialIntervention:
    @pytest.mark.parametrize("column", range(3))
    def test_finds_exactly_the_set_and_stops(self, column, effects, latents, axes):
        of_concept = CONTROL[NAMES[column]]
        ranking = effects.ranking(column)
        grown = grow_set(MODEL, CONCEPTS, latents, axes, column, ranking, share=0.999)
        assert grown.order.tolist() == list(of_concept)
        assert grown.signs.tolist() == np.sign(list(of_concept.values())).tolist()
        assert grown.size == len(of_concept)

    def test_growth_is_the_joint_change_of_the_probability(self, effects, latents, axes):
        grown = grow_set(MODEL, CONCEPTS, latents, axes, 0, effects.ranking(0), share=1)
        for k in (1, 2, 3):
            signed = signed_vector(D, grown.order[:k], grown.signs[:k])
            moved = np.asarray(latents) + 3 * signed * np.asarray(axes.deviation)
            expected = (true_probabilities(moved) - true_probabilities(latents))[:, 0].mean()
            assert grown.growth[k - 1] == pytest.approx(expected, abs=1e-5)

    def test_growth_is_told_at_other_latents(self, effects, latents, axes):
        grown = grow_set(MODEL, CONCEPTS, latents, axes, 0, effects.ranking(0), share=1)
        same = growth_of(MODEL, CONCEPTS, latents, axes, 0, grown)
        assert_allclose(same, grown.growth, atol=1e-5)
        signed = signed_vector(D, grown.order, grown.signs)
        moved = np.asarray(latents[:5]) + 3 * signed * np.asarray(axes.deviation)
        other = growth_of(MODEL, CONCEPTS, latents[:5], axes, 0, grown)
        expected = (true_probabilities(moved) - true_probabilities(latents[:5]))[:, 0].mean()
        assert other[-1] == pytest.approx(expected, abs=1e-5)

    def test_a_smaller_share_needs_a_smaller_set(self, effects, latents, axes):
        sizes = [
            grow_set(MODEL, CONCEPTS, latents, axes, 0, effects.ranking(0), share=share).size
            for share in (0.3, 0.8, 1.0)
        ]
        assert sizes == [1, 2, 3]

    def test_what_lowers_the_effect_is_left_out(self, effects, latents, axes):
        ranking = effects.ranking(0)
        wrong = ranking._replace(signs=ranking.signs * np.where(ranking.order == 5, -1, 1))
        grown = grow_set(MODEL, CONCEPTS, latents, axes, 0, wrong, share=1)
        assert grown.order.tolist() == [2, 9]

    def test_nothing_raises_what_nothing_controls(self, latents, axes):
        still = Scorer.of(lambda images: 0 * logits(images), NAMES)
        ranking = intervention_effects(MODEL, still, latents, axes).ranking(0)
        grown = grow_set(MODEL, still, latents, axes, 0, ranking)
        assert (grown.size, grown.growth.tolist()) == (1, [0.0])

    def test_a_share_is_a_part(self, effects, latents, axes):
        with pytest.raises(ValueError, match=r"share is 1.5; expected .* in \(0, 1\]"):
            grow_set(MODEL, CONCEPTS, latents, axes, 0, effects.ranking(0), share=1.5)


class TestMasks:
    @pytest.mark.parametrize("column", range(3))
    def test_find_exactly_the_set_with_its_signs(self, column, effects, latents, axes):
        of_concept = CONTROL[NAMES[column]]
        signs = np.ones(D)  # nothing known
        mask = optimise_mask(
            jax.random.key(3), MODEL, CONCEPTS, latents, axes, column, signs, steps=200
        )
        ranking = mask_ranking(mask)
        k = len(of_concept)
        assert sorted(ranking.order[:k].tolist()) == sorted(of_concept)
        found = dict(zip(ranking.order[:k].tolist(), ranking.signs[:k].tolist(), strict=True))
        assert found == {d: np.sign(size) for d, size in of_concept.items()}
        assert ranking.sizes[k - 1] > 0.3
        assert ranking.sizes[k] < 0.05

    def test_the_same_key_gives_the_same_mask(self, latents, axes):
        first, again = (
            optimise_mask(jax.random.key(4), MODEL, CONCEPTS, latents, axes, 0, np.ones(D), steps=3)
            for _ in range(2)
        )
        assert (first == again).all()

    def test_the_published_one_takes_the_published_steps(self, latents):
        """Against float64 and central differences of the loss as the public code has it."""
        mask = published_mask(MODEL, CONCEPTS, latents[:5], 0)
        v = np.full(D, 0.5)

        def loss(v, z):
            s = np.tanh(v)
            before = true_probabilities(z[None])[0, 0]
            after = [true_probabilities((z * (1 + side * 10 * z.mean() * s))[None])[0, 0]
                     for side in (-1, 1)]  # fmt: skip
            return -max(abs(p - before) for p in after) + 0.2 * np.linalg.norm(s)

        for z in np.asarray(latents[:5], np.float64):
            gradient = [(loss(v + h, z) - loss(v - h, z)) / 2e-6 for h in 1e-6 * np.eye(D)]
            v = v - 0.05 * np.array(gradient)
        assert_allclose(mask, np.tanh(v), atol=2e-5)

    def test_the_published_one_ranks_the_controlling_dimension_first(self):
        mask = published_mask(MODEL, CONCEPTS, MODEL.sample(jax.random.key(5), 800), 2)
        assert mask_ranking(mask).order[0] == 3


@pytest.fixture(scope="module")
def runs():
    with pytest.MonkeyPatch.context() as patch:  # to be quick
        patch.setattr(bench, "BANK", 256)
        patch.setattr(translation, "RANDOM_ORDERS", 4)
        told = []
        runs = [
            translate(
                jax.random.key(seed),
                MODEL,
                CLASSES,
                JUDGE,
                share=0.95,
                mask_steps=30,
                on_progress=told.append,
            )
            for seed in range(2)
        ]
        assert {progress.part for progress in told} >= {
            f"set from {NAMES[0]} to {NAMES[1]}",
            f"moves from {NAMES[0]} to {NAMES[1]}",
        }
        assert all(progress.images <= progress.total for progress in told)
        assert told[-1].images == told[-1].total
        return runs


class TestTranslation:
    def test_every_pair_of_classes_is_a_goal(self, runs):
        goals = [(found.source, found.target) for found in runs[0].found]
        assert goals == [(a, b) for a in NAMES for b in NAMES if a != b]

    def test_sets_are_dimensions_of_source_or_target_with_the_right_signs(self, runs):
        for found in runs[0].found:
            control = WEIGHTS[NAMES.index(found.target)] - WEIGHTS[NAMES.index(found.source)]
            signs = found.grown.signs[: found.grown.size]
            assert (np.sign(control[found.dimensions]) == signs).all()

    def test_few_dimensions_flip_nearly_all_and_random_ones_few(self, runs):
        rows = {row.way: row for row in translation_summary(runs)}
        assert list(rows) == list(moves.WAYS)
        assert rows["sequential"].flipped.mean > 0.8
        assert rows["mask"].flipped.mean > 0.8
        assert rows["random"].flipped.mean < 0.3
        assert rows["sequential"].ratio.mean > 3
        assert rows["random"].ratio.mean == 1
        assert rows["all"].size.mean == D
        assert rows["sequential"].size.mean == rows["random"].size.mean < 5

    def test_shares_add_up(self, runs):
        for move in runs[0].moves:
            assert 0 <= move.flipped + move.astray <= 1 + 1e-6
            assert 0 <= move.inside <= 1
            assert 0 <= move.damage <= 1

    def test_the_matrix_has_a_share_for_each_pair(self, runs):
        matrix = flip_matrix(runs, "sequential")
        assert np.isnan(np.diag(matrix)).all()
        moves = [
            move.flipped
            for run in runs
            for move in run.moves
            if (move.way, move.source, move.target) == ("sequential", NAMES[1], NAMES[2])
        ]
        assert matrix[1, 2] == pytest.approx(np.mean(moves))

    def test_concentration_tells_that_few_dimensions_matter(self, runs):
        whole = concentration(runs)
        assert whole.gini.mean > 0.5
        assert 0.2 < whole.share_of_one.mean < 1
        assert whole.overlap.mean > 2 * whole.overlap_by_chance.mean
        assert concentration(runs[:1]).gini.low == concentration(runs[:1]).gini.high

    def test_a_set_is_a_direction_that_edits_make(self, runs):
        run, found = runs[0], runs[0].found[0]
        shift = run.shift(found)
        z = MODEL.sample(jax.random.key(9), 4)
        direction = Direction.along(shift, (0, 0), MODEL.sample(jax.random.key(8), 2000))
        strength = 3.0 * jnp.linalg.norm(shift) / direction.unit
        edited = edit_latents(z, direction, strength[None], 1)[:, 0, 0]
        signed = jnp.broadcast_to(jnp.asarray(found.signed)[None], z.shape)
        assert_allclose(edited, intervene(z, run.coordinates, signed, 3.0, "shift"), atol=1e-5)

    def test_growth_of_random_sets_is_slower(self, runs):
        assert runs[0].random_growth.shape == (4, D)
        grown = np.mean([found.growth[0] for found in runs[0].found])
        assert grown > runs[0].random_growth[:, 0].max()

    def test_growth_is_told_on_latents_that_had_no_part(self, runs):
        for found in runs[0].found[:2]:
            assert found.growth.shape == found.grown.growth.shape
            assert not np.allclose(found.growth, found.grown.growth, atol=1e-3)

    def test_a_set_that_does_no_more_than_random_ones_is_not_found(self, runs):
        run, found = runs[0], runs[0].found[0]
        assert [run.status(found) for found in run.found] == ["found"] * 6

        def status(flipped, by_chance, goals=1):
            shares = {moves.SEQUENTIAL: flipped, moves.RANDOM: by_chance}
            told = [m._replace(flipped=shares.get(m.way, m.flipped)) for m in run.moves]
            return run._replace(moves=told, found=run.found[:1] * goals).status(found)

        assert status(0, 0) == status(0.25, 0.125) == status(0.5, 1) == "not found"
        assert status(0.5, 0.125) == "found"
        assert status(0.5, 0.125, goals=1000) == "not found"  # intervals hold for all together

    def test_one_that_was_interrupted_goes_on_and_is_the_same(self, runs, monkeypatch):
        monkeypatch.setattr(bench, "BANK", 256)
        monkeypatch.setattr(translation, "RANDOM_ORDERS", 4)
        go = functools.partial(
            translate, jax.random.key(0), MODEL, CLASSES, JUDGE, share=0.95, mask_steps=30
        )
        for last in (f"set from {NAMES[1]} to {NAMES[0]}", f"moves from {NAMES[1]} to {NAMES[2]}"):
            done = {}

            def interrupt(progress, last=last):
                if progress.part == last:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                go(done=done, on_progress=interrupt)
            assert done
            assert last not in done
            assert go(done=done).to_json() == runs[0].to_json()

    def test_is_json(self, runs):
        content = json.loads(json.dumps(runs[0].to_json()))
        assert [found["status"] for found in content["found"]] == ["found"] * 6
        assert content["concepts"] == list(NAMES)
        assert len(content["moves"]) == 6 * len(moves.WAYS)

    def test_attributes_that_do_not_exclude_each_other_are_reached_from_without(self):
        run = translate(
            jax.random.key(0), MODEL, CONCEPTS, CONCEPTS, exclusive=False, targets=["red"],
            mask_steps=0,
        )  # fmt: skip
        (found,) = run.found
        assert (found.source, found.dimensions.tolist()) == ("no red", [0, 7])
        sequential, random, *_ = run.moves
        assert (sequential.way, random.way) == ("sequential", "random")
        assert sequential.flipped > 0.8
        assert sequential.astray is None
        assert sequential.damage == pytest.approx(0, abs=1e-6)

    def test_lines_of_a_curve_are_coordinates_too(self):
        rows = np.cumsum(np.concatenate([np.zeros((1, D)), WEIGHTS]), 0)
        lines = functools.partial(curve_lines, Curve(jnp.asarray(rows, jnp.float32)))
        run = translate(
            jax.random.key(0), MODEL, CLASSES, CLASSES, coordinates=lines, sources=["red"],
            targets=["old"], mask_steps=0,
        )  # fmt: skip
        assert run.found[0].ranking.order[0] == 2
        assert run.found[0].ranking.signs[0] == 1

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"targets": ["blue"]}, "no concept 'blue'; both scorers have round, red, old"),
            ({"sources": ["red"], "targets": ["red"]}, "nothing to go to"),
            ({"exclusive": False, "sources": ["red"]}, "have no sources"),
            ({"latents": 1}, "expected 2 or more"),
            ({"extreme": 0.0}, "a number above 0"),
            ({"sources": ["red"], "latents": 5000}, "fewer than 10000 .* are red"),
        ],
    )
    def test_bad_requests_are_named(self, options, told):
        with pytest.raises(ValueError, match=told):
            translate(jax.random.key(0), MODEL, CLASSES, CLASSES, mask_steps=0, **options)

    def test_what_finds_is_written_in_jax(self):
        with pytest.raises(ValueError, match="must be written in JAX"):
            translate(jax.random.key(0), MODEL, JUDGE, JUDGE)
