"""Fits as a whole: what they give, what they follow, what they refuse."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sfvq_jax import (
    Adam,
    Curve,
    CurveRecord,
    IteratorSource,
    LeastSquares,
    codebook_quality,
    curve_length,
    data_mesh,
    decode,
    distortion,
    fit,
    line_lengths,
    project,
)
from sfvq_jax.blocks import Plan, read_block
from sfvq_jax.measuring import measuring_samples
from sfvq_jax.quality import line_use
from sfvq_jax.result import warnings_of
from sfvq_jax.rows.source import Far
from sfvq_jax.solver import round_steps, steps
from sfvq_jax.sources import as_source

SHORT = Adam(samples=2**12, epochs=2, learning_rate=1e-2)


def gaussian(n=4096, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def sampler(key, n):
    return jax.random.normal(key, (n, 2))


def ring(t):
    return np.stack([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)], 1)


def arc(t):
    return ring(t / 2)


def spiral(t):
    return 0.5 * (1 + 2 * t)[:, None] * ring(t)


class PlainModel:
    """A generator that is no pytree."""

    latent_dim, num_layers = 2, 1

    def sample(self, key, n, *, label=None, truncation=None):
        return sampler(key, n)

    def render(self, latents):
        return jnp.zeros((len(latents), 8, 8, 1))


@flax.struct.dataclass
class PytreeModel:
    """A generator whose parameters are leaves."""

    scale: Any
    latent_dim: int = flax.struct.field(pytree_node=False, default=2)
    num_layers: int = flax.struct.field(pytree_node=False, default=1)

    def sample(self, key, n, *, label=None, truncation=None):
        return self.scale * sampler(key, n)

    def render(self, latents):
        return jnp.zeros((len(latents), 8, 8, 1))


@pytest.fixture(scope="module")
def gaussian_fit():
    """A Gaussian in two dimensions at 5 bits."""
    return fit(jax.random.key(0), gaussian(), bits=5, solver=SHORT)


class TestResult:
    def test_there_are_two_to_the_bits_codewords(self, gaussian_fit):
        assert gaussian_fit.curve.codewords.shape == (32, 2)
        assert gaussian_fit.curve.codewords.dtype == np.float32

    def test_the_history_has_an_entry_an_epoch(self, gaussian_fit):
        history = gaussian_fit.history
        assert_array_equal(history.codewords, [4, 4, 8, 8, 16, 16, 32, 32])
        assert history.codewords.dtype == np.int32
        assert history.loss.shape == history.distortion.shape == history.perplexity.shape == (8,)
        assert history.use.shape == (8, 31)
        assert_array_equal(history.samples, 4096 * np.arange(1, 9))
        assert_array_equal(history.objective, history.distortion)  # Adam has no penalty
        for column in history[1:-1]:
            assert isinstance(column, np.ndarray)
            assert column.dtype == np.float32
            assert np.isfinite(column).all()

    def test_the_use_is_shared_by_the_lines_of_the_stage(self, gaussian_fit):
        history = gaussian_fit.history
        assert_allclose(history.use.sum(1), np.ones(8), atol=1e-4)
        for codewords, use in zip(history.codewords, history.use, strict=True):
            assert (use[codewords - 1 :] == 0).all()
        entropy = -np.sum(history.use * np.log(np.maximum(history.use, 1e-30)), 1)
        assert_allclose(history.perplexity, np.exp(entropy), rtol=1e-3)

    def test_the_last_entry_is_that_of_the_curve_on_the_data(self, gaussian_fit):
        curve, history = gaussian_fit.curve, gaussian_fit.history
        assert_allclose(history.distortion[-1], distortion(curve, gaussian()), rtol=1e-5)
        use = line_use(project(curve, gaussian()), 31)
        assert_allclose(history.use[-1], use, atol=1e-3)

    def test_distortion_falls_from_stage_to_stage(self, gaussian_fit):
        stages = gaussian_fit.history.distortion[1::2]
        assert (np.diff(stages) < 0).all()
        # 1 is the variance; four times the lines would at best divide what is left by sixteen
        assert stages[0] < 0.6
        assert stages[-1] < 0.08

    def test_the_dithered_loss_is_above_the_distortion(self, gaussian_fit):
        assert (gaussian_fit.history.loss > gaussian_fit.history.distortion).all()


class TestSameAgain:
    def test_the_same_key_gives_the_same_curve_bit_for_bit(self, gaussian_fit):
        again = fit(jax.random.key(0), gaussian(), bits=5, solver=SHORT)
        assert_array_equal(again.curve.codewords, gaussian_fit.curve.codewords)
        for one, other in zip(again.history, gaussian_fit.history, strict=True):
            assert_array_equal(one, other)

    def test_another_key_gives_another_curve(self, gaussian_fit):
        other = fit(jax.random.key(1), gaussian(), bits=5, solver=SHORT)
        assert (other.curve.codewords != gaussian_fit.curve.codewords).all()

    def test_fewer_bits_are_the_first_stages_of_more(self, gaussian_fit):
        coarse = fit(jax.random.key(0), gaussian(), bits=3, solver=SHORT)
        assert_array_equal(coarse.history.distortion, gaussian_fit.history.distortion[:4])

    def test_the_array_may_be_of_numpy_or_jax_or_float64(self):
        curves = [
            fit(jax.random.key(0), x, bits=3, solver=SHORT).curve.codewords
            for x in (gaussian(), jnp.asarray(gaussian()), gaussian().astype(np.float64))
        ]
        assert_array_equal(curves[1], curves[0])
        assert_array_equal(curves[2], curves[0])


class TestStart:
    def test_a_curve_is_gone_on_from(self, gaussian_fit):
        solver = LeastSquares(rounds=3, length_penalty=0.01)
        result = fit(jax.random.key(0), gaussian(), bits=5, solver=solver, start=gaussian_fit.curve)
        assert set(result.history.codewords.tolist()) == {32}
        assert result.history.distortion[-1] < 1.02 * gaussian_fit.history.distortion[-1]

    def test_a_curve_of_any_size_is_doubled_up_to_the_last(self):
        start = Curve(jnp.asarray(gaussian(3, seed=5)))
        solver = LeastSquares(rounds=1)
        result = fit(jax.random.key(0), gaussian(), bits=3, solver=solver, start=start)
        assert sorted(set(result.history.codewords.tolist())) == [3, 6, 8]
        assert result.curve.codewords.shape == (8, 2)

    def test_a_function_gives_a_start(self):
        def ends(key, x, weight, axis):
            return Curve(jnp.stack([x.min(0), x.max(0)]))

        result = fit(
            jax.random.key(0), gaussian(), bits=2, solver=LeastSquares(rounds=1), start=ends
        )
        assert sorted(set(result.history.codewords.tolist())) == [2, 4]

    def test_what_is_no_start_is_named(self):
        x, curve = gaussian(), Curve(jnp.zeros((8, 3)))
        with pytest.raises(ValueError, match=r"shape \(8, 3\), but the latents have width 2"):
            fit(jax.random.key(0), x, bits=3, start=curve)
        with pytest.raises(ValueError, match="start has 8 codewords, more than the 4"):
            fit(jax.random.key(0), x, bits=2, start=Curve(jnp.zeros((8, 2))))
        with pytest.raises(TypeError, match=r"start is a CurveRecord; .*: pass its \.curve"):
            fit(jax.random.key(0), x, bits=3, start=CurveRecord(curve))


class TestWeights:
    solver = LeastSquares(rounds=3, samples="all")

    def test_a_row_of_weight_two_counts_as_two(self):
        x = gaussian(1000)
        weights = np.where(x[:, 0] > 0, 2.0, 1.0)
        twice = np.concatenate([x, x[x[:, 0] > 0]])
        start = Curve(jnp.asarray(gaussian(4, seed=3)))
        settings = {"bits": 2, "solver": self.solver, "start": start}
        result = fit(jax.random.key(0), x, weights=weights, **settings)
        expected = fit(jax.random.key(0), twice, **settings)
        assert_allclose(result.curve.codewords, expected.curve.codewords, atol=1e-4)
        assert_allclose(result.history.objective, expected.history.objective, rtol=1e-4)

    @pytest.mark.parametrize("kind", ["array", "file", "iterator"])
    def test_rows_of_weight_zero_are_not_there(self, kind, tmp_path):
        x = gaussian(1000)
        weights = (np.arange(1000) < 700).astype(np.float32)
        spoilt = np.where(weights[:, None] > 0, x, 50.0)
        np.save(tmp_path / "x.npy", spoilt)
        settings = {"bits": 2, "solver": self.solver, "start": Curve(jnp.asarray(x[:4]))}
        if kind == "iterator":
            blocks = [(spoilt[i : i + 300], weights[i : i + 300]) for i in range(0, 1000, 300)]
            result = fit(jax.random.key(0), IteratorSource(blocks), **settings)
        else:
            source = spoilt if kind == "array" else tmp_path / "x.npy"
            result = fit(jax.random.key(0), source, weights=weights, **settings)
        expected = fit(jax.random.key(0), x[:700], **settings)
        assert_allclose(result.curve.codewords, expected.curve.codewords, atol=1e-4)

    def test_so_few_of_weight_above_zero_are_named(self):
        weights = (np.arange(4096) < 7).astype(float)
        with pytest.raises(ValueError, match="7 latents, those of weight 0 left out, are fewer"):
            fit(jax.random.key(0), gaussian(), bits=3, weights=weights)
        with pytest.raises(ValueError, match=r"5 latents, .* are fewer than the 8 codewords"):
            fit(jax.random.key(0), IteratorSource([gaussian(5)]), bits=3)

    def test_all_zero_is_named(self):
        with pytest.raises(ValueError, match="all weights are 0"):
            fit(jax.random.key(0), gaussian(), bits=2, weights=np.zeros(4096))


class TestMeasuring:
    """What a fit reports on, and what it is called."""

    solver = LeastSquares(rounds=1, samples=4096)

    def test_a_small_array_is_measured_as_a_whole(self):
        result = fit(jax.random.key(0), gaussian(), bits=2, solver=self.solver)
        assert result.measured_on == "all 4096 latents, which were fitted"

    def test_of_an_array_that_is_not_large_some_are(self):
        result = fit(jax.random.key(0), gaussian(20_000), bits=2, solver=self.solver)
        assert result.measured_on == "8192 of the latents that were fitted"

    @pytest.mark.parametrize("kind", ["array", "file"])
    def test_of_a_large_one_some_are_held_out_of_the_rounds(self, kind, tmp_path):
        """Known by their value: those that are measured have a coordinate that no other has."""
        x = gaussian(70_000)
        x[:, 0] = np.random.default_rng(1).permutation(70_000)
        np.save(tmp_path / "x.npy", x)
        source = as_source(x if kind == "array" else tmp_path / "x.npy")
        mesh = data_mesh(jax.devices()[:1])
        measuring = measuring_samples(jax.random.key(0), source.placed(mesh), 4, mesh)
        held = set(np.asarray(measuring.block.x)[:, 0].tolist())
        assert measuring.name == f"{len(measuring.block.x)} latents held out of the rounds"
        plan = Plan(None, 70_000, 1, whole=True)
        if kind == "array":
            seen, weight = measuring.source.whole()
        else:
            seen, weight = read_block(measuring.source, None, 0, 70_000, plan, mesh)[0]
        seen = np.asarray(seen)[np.asarray(weight) > 0]
        assert len(seen) == 70_000 - len(held)
        assert not held & set(seen[:, 0].tolist())

    def test_a_sampler_gives_fresh_draws(self):
        result = fit(jax.random.key(0), sampler, bits=2, solver=self.solver)
        assert result.measured_on == "8192 fresh draws"

    def test_of_an_iterator_the_first_are(self):
        source = IteratorSource([gaussian(3000)])
        result = fit(jax.random.key(0), source, bits=2, solver=self.solver)
        assert result.measured_on == "the first 3000 latents, which were fitted too"


class TestWarnings:
    """One sentence for each thing that a user should know."""

    def test_dead_codewords_are_counted(self):
        centres = np.array([[0.0, 0.0], [50.0, 0.0]])
        x = centres[np.arange(512) % 2]
        result = fit(jax.random.key(0), x, bits=3, solver=LeastSquares(rounds=2))
        assert result.dead >= 6
        assert f"{result.dead} of 8 codewords are dead" in " ".join(result.warnings)

    def test_a_stage_that_still_gains_is_named(self):
        result = fit(jax.random.key(0), gaussian(), bits=3, solver=LeastSquares(rounds=1))
        assert result.converged == (False, False)
        assert "the stage of 4, 8 codewords still gained after 1 rounds" in result.warnings[-1]
        result = fit(jax.random.key(0), gaussian(), bits=3, solver=LeastSquares(rounds=60))
        assert result.converged == (True, True)
        assert not any("still gained" in warning for warning in result.warnings)

    def test_adam_has_the_rounds_that_it_is_to_have(self, gaussian_fit):
        assert not any("still gained" in warning for warning in gaussian_fit.warnings)

    def test_all_is_well_with_an_arc(self):
        x = arc(np.random.default_rng(0).uniform(size=4096))
        assert fit(jax.random.key(0), x, bits=4).warnings == ()

    def warnings(self, codewords, load, **changes):
        """Of a curve of which all else is well."""
        k = len(codewords)
        settings = {"converged": [True], "sizes": [k], "rounds": 5, "judged": True}
        settings |= {"rank": None, "outside": 0.0, "distinct": k, "far": None, "worst": (0.0, None)}
        use = np.ones(k - 1)
        return warnings_of(codewords, load, **{"use": use} | settings | changes)

    def test_use_and_order_are_told_where_they_are_poor(self):
        k = 32
        codewords = np.stack([np.arange(k), np.zeros(k)], 1)
        assert self.warnings(codewords, np.ones(k)) == ()
        (told,) = self.warnings(codewords, np.geomspace(1, 1e6, k))
        assert told.startswith("of 32 codewords only about ")
        (told,) = self.warnings(codewords, np.ones(k), use=np.geomspace(1, 1e6, k - 1))
        assert told.startswith("few lines are used: of 31 only about ")
        shuffled = codewords[np.random.default_rng(0).permutation(k)]
        (told,) = self.warnings(shuffled, np.ones(k))
        assert "what is" in told
        assert len(self.warnings(shuffled, np.geomspace(1, 1e6, k))) == 2

    def test_what_a_fit_found_of_the_latents_is_told(self):
        codewords, load = np.stack([np.arange(8), np.zeros(8)], 1), np.ones(8)
        for changes, expected in (
            ({"rank": 3, "outside": 0.013}, "1.3 % of the variance lies outside of the 3 dim"),
            ({"distinct": 5}, "only 5 of the measuring samples are different, fewer than the 8"),
            ({"far": Far([17], 0.9)}, "row 17 is an outlier: of all squared distance from the"),
            ({"far": Far([17, 4], 0.9)}, "rows [17, 4] are outliers: of all squared distance"),
            ({"worst": (0.7, 12)}, "row 12 alone has 70 % of the distortion"),
            ({"worst": (0.7, None)}, "one measuring sample alone has 70 % of the distortion"),
        ):
            (told,) = self.warnings(codewords, load, **changes)
            assert told.startswith(expected)
        both = {"far": Far([17], 0.9), "worst": (0.7, 17)}
        assert len(self.warnings(codewords, load, **both)) == 1

    @pytest.mark.parametrize("kind", ["array", "file"])
    def test_a_row_far_from_the_others_is_named(self, kind, tmp_path):
        x = gaussian(4096)
        x[1234, 1] = 1e4
        np.save(tmp_path / "x.npy", x)
        source = x if kind == "array" else tmp_path / "x.npy"
        warnings = fit(jax.random.key(0), source, bits=2, solver=LeastSquares(rounds=2)).warnings
        assert "row 1234 is an outlier" in warnings[0]

    def test_a_row_far_from_the_curve_is_named(self):
        """In the middle of a ring, so that it is not far from the middle of all."""
        x = ring(np.random.default_rng(0).uniform(size=4096))
        x[1234] = 0.1
        warnings = fit(jax.random.key(0), x, bits=6, solver=LeastSquares(rounds=5)).warnings
        assert "row 1234 alone has" in warnings[0]


class TestSources:
    def test_functions_and_models_that_draw_the_same_give_the_same_curve(self):
        curves = [
            fit(jax.random.key(0), source, bits=2, solver=SHORT).curve.codewords
            for source in (sampler, PlainModel(), PytreeModel(jnp.array(1.0)))
        ]
        assert curves[0].shape == (4, 2)
        assert_array_equal(curves[1], curves[0])
        assert_allclose(curves[2], curves[0], rtol=1e-3, atol=1e-3)

    def test_a_draw_of_the_distribution_gives_about_the_same_distortion(self):
        of_function = fit(jax.random.key(0), sampler, bits=2, solver=SHORT)
        of_array = fit(jax.random.key(0), gaussian(), bits=2, solver=SHORT)
        fresh = gaussian(seed=1)
        assert_allclose(
            distortion(of_array.curve, fresh), distortion(of_function.curve, fresh), rtol=0.2
        )

    def test_the_source_is_traced_into_a_few_programs_and_never_called_by_the_step(self):
        calls = 0

        def counting(key, n):
            nonlocal calls
            calls += 1
            return sampler(key, n)

        fit(jax.random.key(0), counting, bits=2, solver=dataclasses.replace(SHORT, epochs=6))
        # its width, the measuring samples, and one program, traced twice, for epochs
        assert 3 <= calls <= 4

    def test_a_batch_that_does_not_divide_the_samples_is_fine(self):
        odd = Adam(samples=2**12 - 5, batch_size=50, epochs=1)
        assert round_steps(odd) == (2, 41)
        result = fit(jax.random.key(0), gaussian(), bits=2, solver=odd)
        assert np.isfinite(result.history.loss).all()


class TestShapes:
    """Noisy one-dimensional sets in the plane are followed from end to end."""

    noise = 0.05

    @pytest.mark.parametrize(
        ("shape", "offset"),
        [(ring, 0), (ring, 3), (arc, 0), (spiral, 0)],
        ids=["ring", "ring off the origin", "arc", "spiral"],
    )
    def test_only_the_noise_remains(self, shape, offset):
        random = np.random.default_rng(0)
        x = offset + shape(random.uniform(size=4096)) + self.noise * random.normal(size=(4096, 2))
        result = fit(jax.random.key(1), x, bits=5, solver=SHORT)
        # across the set the noise stays, along it the curve takes it up: one dimension of two
        assert result.history.distortion[-1] < 1.2 * self.noise**2 / 2
        assert result.history.perplexity[-1] > 0.9 * 31
        points = shape(np.linspace(0, 1, 1000))
        length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
        assert_allclose(curve_length(result.curve), length, rtol=0.1)
        quality = codebook_quality(result.curve)
        assert quality.neighbour_share > 0.9
        assert quality.trustworthiness > 0.95

    def test_centred_data_in_many_dimensions_are_no_degenerate_start(self):
        x = gaussian(4096, 32)
        x -= x.mean(0)
        result = fit(jax.random.key(0), x, bits=2, solver=SHORT)
        assert result.history.perplexity[-1] > 0.9 * 3
        # a line along one axis takes up one dimension of 32
        assert result.history.distortion[-1] < (1 - 1 / 32) * x.var()


class TestPublishedCurve:
    def test_is_matched_on_points_along_a_finer_one(self, shared):
        folder = shared / "data/published_sfvq"
        finer, published = (
            Curve(jnp.asarray(np.load(folder / f"CIFAR10-{bits}.npy"), jnp.float32))
            for bits in (10, 6)
        )
        # noise of half a mean step's length in all 512 dimensions together
        deviation = 0.5 * line_lengths(finer).mean() / 512**0.5

        def near_the_curve(key, n):
            position_key, noise_key = jax.random.split(key)
            position = jax.random.uniform(position_key, (n,), maxval=float(finer.num_lines))
            return decode(finer, position) + deviation * jax.random.normal(noise_key, (n, 512))

        solver = LeastSquares(length_penalty=0.03, samples=2**13, rounds=10)
        curve = fit(jax.random.key(1), near_the_curve, bits=6, solver=solver).curve
        fresh = jax.jit(near_the_curve, static_argnums=1)(jax.random.key(99), 2**13)
        assert distortion(curve, fresh) < distortion(published, fresh)


class TestErrors:
    @pytest.mark.parametrize("bits", [2.5, "3", None])
    def test_bits_that_are_no_whole_number(self, bits):
        with pytest.raises(TypeError, match="expected a whole number"):
            fit(jax.random.key(0), gaussian(), bits=bits)

    def test_bits_may_be_of_numpy(self):
        fit(jax.random.key(0), gaussian(), bits=np.int64(2), solver=LeastSquares(rounds=1))

    def test_arguments_in_the_wrong_order(self):
        with pytest.raises(
            TypeError, match=r"key is a ndarray of shape \(4096, 2\); fit\(key, sou"
        ):
            fit(gaussian(), jax.random.key(0), bits=3)

    def test_a_fit_within_a_traced_function(self):
        with pytest.raises(TypeError, match=r"cannot trace it; call fit_array\(key, x, bits"):
            jax.jit(fit, static_argnames="bits")(jax.random.key(0), gaussian(), bits=3)
        with pytest.raises(TypeError, match=r"cannot trace it; call fit_array\(key, x, bits"):
            jax.vmap(lambda x: fit(jax.random.key(0), x, bits=3))(gaussian()[None])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"on_report": True}, "on_report is True; expected a function of a Report"),
            ({"mesh": jax.devices()}, r"mesh is a list; expected a Mesh, such as mesh=sfvq_jax\.d"),
            (
                {"start": "c.npz"},
                r"start is a str; .*: pass sfvq_jax\.load_curve\(",
            ),
        ],
    )
    def test_options_of_another_kind(self, options, message):
        with pytest.raises(TypeError, match=message):
            fit(jax.random.key(0), gaussian(), bits=3, **options)

    def test_a_class_and_an_iterator_as_source(self):
        with pytest.raises(TypeError, match="source is the class PlainModel; pass one of it"):
            fit(jax.random.key(0), PlainModel, bits=3)
        with pytest.raises(TypeError, match=r"pass sfvq_jax\.IteratorSource\(function\)"):
            fit(jax.random.key(0), iter([gaussian()]), bits=3)

    @pytest.mark.parametrize("solver", ["adam", LeastSquares, None])
    def test_what_is_no_solver(self, solver):
        with pytest.raises(TypeError, match=r"(LeastSquares|Adam)\(\)"):
            fit(jax.random.key(0), gaussian(), bits=3, solver=solver)

    def test_a_sampler_that_does_not_draw_by_its_key(self):
        random = np.random.default_rng(0)
        with pytest.raises(ValueError, match=r"two keys give the same latents, .*IteratorSource"):
            fit(jax.random.key(0), lambda key, n: random.normal(size=(n, 2)), bits=3)

    @pytest.mark.parametrize("scale", [1e-20, 1e-30])
    def test_latents_whose_squares_float32_does_not_know(self, scale):
        with pytest.raises(ValueError, match="at most, whose square float32 does not know"):
            fit(jax.random.key(0), scale * gaussian(), bits=3)

    @pytest.mark.parametrize("bits", [1, 0, -3])
    def test_too_few_bits(self, bits):
        with pytest.raises(ValueError, match=f"bits is {bits}; a curve starts with four codewords"):
            fit(jax.random.key(0), gaussian(), bits=bits)

    def test_fewer_latents_than_codewords(self):
        with pytest.raises(ValueError, match="7 latents are fewer than the 8 codewords of bits=3"):
            fit(jax.random.key(0), gaussian(7), bits=3)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_latents_that_are_not_finite(self, bad):
        x = gaussian()
        x[17, 1] = bad
        with pytest.raises(ValueError, match="in 1 of 4096 rows, the first in row 17"):
            fit(jax.random.key(0), x, bits=3)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_sampler_that_gives_what_is_not_finite(self, bad):
        with pytest.raises(
            ValueError, match="what the source gives has NaN or infinity: look at what makes"
        ):
            fit(jax.random.key(0), lambda key, n: bad * sampler(key, n), bits=3)

    def test_a_sampler_of_another_rank(self):
        with pytest.raises(ValueError, match=r"what the source draws has shape .*\[N, D\]"):
            fit(jax.random.key(0), lambda key, n: sampler(key, n)[:, 0], bits=3)

    @pytest.mark.parametrize("shape", [(64,), (64, 2, 2)])
    def test_arrays_of_another_rank(self, shape):
        with pytest.raises(ValueError, match=r"expected \[N, D\]"):
            fit(jax.random.key(0), np.ones(shape, np.float32), bits=3)

    def test_whole_numbers(self):
        with pytest.raises(ValueError, match="of type int64; expected floating point"):
            fit(jax.random.key(0), np.arange(64).reshape(32, 2), bits=3)

    @pytest.mark.parametrize("n", [64, 2**15])
    def test_latents_that_are_all_one_point(self, n):
        with pytest.raises(ValueError, match="all latents are the same point"):
            fit(jax.random.key(0), np.full((n, 2), 3.0), bits=3)

    def test_a_learning_rate_that_is_too_high(self):
        solver = dataclasses.replace(SHORT, learning_rate=1e25)
        with pytest.raises(ValueError, match="diverged at 4 codewords, round 1: scale the latents"):
            fit(jax.random.key(0), gaussian(), bits=3, solver=solver)

    def test_a_sampler_that_draws_another_number(self):
        with pytest.raises(
            ValueError,
            match=r"asked for 8192 latents, the sampler drew an array of shape \(10, 2\)",
        ):
            fit(jax.random.key(0), lambda key, n: jax.random.normal(key, (10, 2)), bits=3)

    def test_a_source_of_another_kind(self):
        with pytest.raises(TypeError, match="source is a list; expected an array"):
            fit(jax.random.key(0), [[1.0, 2.0]], bits=3)

    def test_a_file_that_is_not_there(self):
        with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.npy"):
            fit(jax.random.key(0), "nowhere.npy", bits=3)

    @pytest.mark.parametrize(
        "settings",
        [
            {"learning_rate": 0.0},
            {"learning_rate": -1.0},
            {"learning_rate": np.nan},
            {"decay": 0.0},
            {"epochs": 0},
            {"batch_size": 0},
            {"samples": 63},
        ],
    )
    def test_settings_that_make_no_schedule(self, settings):
        with pytest.raises(ValueError, match=r"a positive number|at least one epoch"):
            Adam(**settings)


class TestSchedule:
    def test_the_defaults_are_those_of_the_published_example(self):
        solver = Adam()
        assert (solver.learning_rate, solver.batch_size, solver.epochs) == (1e-3, 64, 5)
        blocks, steps = round_steps(solver)
        assert blocks * steps == 2**18 // 64
        assert (solver.decay_at, solver.decay) == ((0.6, 0.8), 0.5)

    def test_the_learning_rate_is_halved_at_three_and_four_fifths_of_a_stage(self):
        # one sample, so far from the only line that Adam moves at full rate
        x, weight = jnp.full((64 * 64, 1), 1e6), jnp.ones(64 * 64)
        solver = Adam(samples=64 * 64, epochs=10, learning_rate=1e-3)
        curve = Curve(jnp.array([[0.0], [1.0]]))
        state, moved = solver.init(curve), []
        for epoch in range(10):
            start = curve.codewords[0, 0]
            curve, state, _ = steps(solver, curve, state, jax.random.key(epoch), x, weight, 64)
            moved.append(float(curve.codewords[0, 0] - start))
        # the gradient is proportional to u = 1 - λ, and Adam's step to E[u] ÷ √E[u²] = √¾
        full = 64 * 1e-3 * 0.75**0.5
        assert_allclose(moved, np.array([1] * 6 + [0.5] * 2 + [0.25] * 2) * full, rtol=0.2)
