"""Figures and images, of a small model that paints its latents."""

import base64
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from sfvq_jax import Curve, CurveRecord, History, LatentModel
from sfvq_jax.views import (
    directions_figure,
    distance_figure,
    edit_figure,
    history_figure,
    interventions_figure,
    map_figure,
    render_images,
    to_uint8,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


class Painter:
    """Latents of two numbers, brightness and slope; the mean over layers is painted."""

    latent_dim, num_layers = 2, 3

    def __init__(self, height=8, width=8, channels=3):
        self.shape = height, width, channels
        self.batches = []

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, 2))

    def render(self, latents):
        self.batches.append(latents.shape)
        height, width, channels = self.shape
        w = latents if latents.ndim == 2 else latents.mean(1)
        column = jnp.linspace(-1, 1, width)
        image = w[:, :1] + w[:, 1:] * column[None]
        return jnp.broadcast_to(image[:, None, :, None], (len(w), height, width, channels))


class Sized(Painter):
    """One that tells the size of its images, and that JAX cannot trace."""

    @property
    def image_shape(self):
        return self.shape

    def render(self, latents):
        return super().render(jnp.asarray(np.asarray(latents)))


def pixels(figure):
    """The figure as saved: [H, W, 3] uint8."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def shown_images(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


class TestToUint8:
    def test_the_range_is_mapped_onto_0_to_255(self):
        images = np.float32([-1, -0.5, 0, 0.5, 1])
        assert_array_equal(to_uint8(images), [0, 64, 128, 191, 255])

    def test_what_lies_outside_is_clipped(self):
        assert_array_equal(to_uint8(np.float32([-7, 7])), [0, 255])

    def test_every_value_comes_back(self):
        values = np.arange(256, dtype=np.uint8)
        assert_array_equal(to_uint8(values.astype(np.float32) / np.float32(127.5) - 1), values)


class TestRenderImages:
    def test_the_painter_satisfies_the_protocol(self):
        assert isinstance(Painter(), LatentModel)

    @pytest.mark.parametrize("n", [1, 4, 7, 9])
    @pytest.mark.parametrize("layers", [(), (3,)])
    def test_batches_give_the_images_of_one_batch(self, n, layers):
        latents, model = normal(n, *layers, 2), Painter(6, 10)
        images = render_images(model, latents, batch=4)
        assert images.shape == (n, 6, 10, 3)
        assert images.dtype == np.uint8
        assert_array_equal(images, to_uint8(Painter(6, 10).render(latents)))
        # all of one size, so that one program serves them, and no larger than needed
        assert set(model.batches) == {(min(n, 4), *layers, 2)}

    @pytest.mark.parametrize(("side", "most"), [(64, 16), (256, 4), (512, 1), (1024, 1)])
    def test_large_images_are_rendered_few_at_a_time(self, side, most):
        for model in (Painter(side, side, 1), Sized(side, side, 1)):
            for n in (1, 3, 17):
                model.batches.clear()
                render_images(model, normal(n, 2), max_side=8)
                rows = [shape[0] for shape in model.batches if shape != (1, 3, 2)]
                assert set(rows) <= {min(most, {1: 1, 3: 4, 17: 32}[n])}
                assert n <= sum(rows) < n + most

    def test_a_model_that_jax_cannot_trace_is_rendered(self):
        class Plain(Painter):
            def render(self, latents):
                return super().render(jnp.asarray(np.asarray(latents)))

        assert render_images(Plain(), normal(3, 2)).shape == (3, 8, 8, 3)

    @pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 32), (30, 64)])
    def test_larger_images_are_scaled_down_in_proportion(self, height, width):
        images = render_images(Painter(height, width), normal(3, 2), max_side=16)
        assert images.shape == (3, height // 4, width // 4, 3)

    def test_scaling_keeps_the_mean(self):
        latents, model = np.float32(0.2) * normal(3, 2), Painter(64, 64)
        small, large = (render_images(model, latents, max_side=side) for side in (16, None))
        assert_allclose(small.mean((1, 2, 3)), large.mean((1, 2, 3)), atol=1)

    def test_smaller_images_stay(self):
        assert render_images(Painter(8, 8, 1), normal(3, 2), max_side=16).shape == (3, 8, 8, 1)


class TestMap:
    @pytest.mark.parametrize("k", [4, 17])
    @pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (12, 6, 3)])
    def test_every_image_is_shown_in_order_under_its_number(self, k, shape):
        images = random_images(k, *shape)
        figure = map_figure(images, "a title")
        shown = shown_images(figure)
        assert len(shown) == k
        for one, image in zip(shown, images, strict=True):
            assert_array_equal(one, image[..., 0] if shape[-1] == 1 else image)
        cells = [axes for axes in figure.axes if axes.images]
        assert [axes.get_title() for axes in cells] == [str(i) for i in range(k)]
        assert figure.get_suptitle() == "a title"

    def test_rows_are_of_sixteen_and_the_rest_is_empty(self):
        figure = map_figure(random_images(20, 8, 8, 1), "")
        assert len(figure.axes) == 32
        assert not any(axes.axison for axes in figure.axes[20:])

    def test_the_figure_can_be_saved(self):
        assert pixels(map_figure(random_images(17, 6, 12, 3), "")).std() > 10

    def test_gray_is_drawn_from_black_to_white_whatever_is_in_the_image(self):
        flat = np.full((1, 8, 8, 1), 100, np.uint8)
        (image,) = (axes.images[0] for axes in map_figure(flat, "").axes if axes.images)
        assert image.get_clim() == (0, 255)


class TestLabels:
    """Codewords of a class are framed in its colour; without images they are that colour."""

    def frames(self, figure):
        cells = figure.axes[: len(figure.tile_labels)]
        return [to_hex(cell.spines["left"].get_edgecolor()) for cell in cells]

    def legend(self, figure):
        (legend,) = figure.legends
        colours = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
        return dict(zip([text.get_text() for text in legend.get_texts()], colours, strict=True))

    @pytest.mark.parametrize("labels", [[3, 3, 10, 2, 2], ["cat", "cat", "$b_1$", "a", "a"]])
    def test_each_has_the_colour_of_the_legend(self, labels):
        figure = map_figure(random_images(5, 8, 8, 1), labels=labels)
        legend = self.legend(figure)
        assert list(legend) == [str(label) for label in sorted(set(labels))]
        assert len(set(legend.values())) == 3
        assert self.frames(figure) == [legend[str(label)] for label in labels]
        assert pixels(figure).std() > 10  # a $ is no formula
        html = figure._repr_html_()  # of a notebook, with the same colours
        assert 'title="2: ' in html
        assert re.findall("border:2px solid (#......)", html) == [
            legend[str(label)] for label in labels
        ]
        assert re.findall("color:(#......)", html) == list(legend.values())

    def test_without_images_the_cells_are_coloured(self):
        figure = map_figure(None, labels=[1, 1, 0])
        faces = [to_hex(cell.get_facecolor()) for cell in figure.axes[:3]]
        assert faces == self.frames(figure)
        assert figure._repr_html_() is None

    def test_of_many_each_is_written_above_its_image(self):
        labels = [f"class {i // 2}" for i in range(50)]
        figure = map_figure(random_images(50, 8, 8, 1), labels=labels)
        assert not figure.legends
        assert figure.axes[49].get_title() == "49 class 24"

    def test_they_are_one_an_image(self):
        with pytest.raises(ValueError, match="there are 2 labels of 3"):
            map_figure(random_images(3, 8, 8, 1), labels=[1, 2])
        with pytest.raises(ValueError, match="neither images nor labels"):
            map_figure(None)


class TestImagesOfUsers:
    """What is given as images is drawn as meant, or refused; never black."""

    def test_floats_are_drawn_as_their_uint8_images(self):
        images = np.float32(2.2) * np.random.default_rng(0).random((3, 8, 8, 3), np.float32) - 1
        shown = shown_images(map_figure(images))
        assert_array_equal(shown, to_uint8(images))

    def test_what_a_model_renders_is_drawn(self):
        images = 0.4 * Painter().render(normal(5, 2))
        assert_array_equal(shown_images(map_figure(images)), to_uint8(images))

    def test_rgba_lies_over_white(self):
        rgb, alpha = random_images(2, 8, 8, 3), np.zeros((2, 8, 8, 1), np.uint8)
        alpha[1] = 255
        shown = shown_images(map_figure(np.concatenate([rgb, alpha], -1)))
        assert (shown[0] == 255).all()
        assert_array_equal(shown[1], rgb[1])

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (random_images(4, 8, 8), r"shape \(4, 8, 8\); expected \[K, H, W, C\]: a gray image"),
            (random_images(4, 3, 8, 8), "channels first"),
            (random_images(4, 8, 8, 5), "5 channels"),
            (random_images(0, 8, 8, 3), "expected"),
            (random_images(4, 8, 8, 3).astype(np.int64), "images are int64"),
            (random_images(4, 8, 8, 3) > 9, "images are bool"),
            (random_images(4, 8, 8, 3).astype(np.uint16) * 257, "images are uint16"),
            (random_images(4, 8, 8, 3) // 128, "no value above 1"),
            (random_images(4, 8, 8, 3) / 255, r"2 \* images - 1 where they are in \[0, 1\]"),
            (random_images(4, 8, 8, 3) * 1.0, r"astype\(np.uint8\) where they are in \[0, 255\]"),
            (random_images(4, 8, 8, 3) - 128.0, "floats from -128"),
            (normal(4, 8, 8, 3), "floats from -"),
            (np.full((4, 8, 8, 3), np.nan), "NaN"),
            ([random_images(8, 8, 3), random_images(9, 8, 3)], "differ in shape"),
        ],
    )
    def test_what_is_no_image_is_refused(self, images, message):
        with pytest.raises(ValueError, match=message):
            map_figure(images)

    def test_a_curve_is_told_to_be_rendered(self):
        with pytest.raises(TypeError, match=r"images are a Curve; .*: render_images\(model"):
            map_figure(Curve(jnp.eye(3)))
        with pytest.raises(TypeError, match="history is a Curve; expected a History"):
            history_figure(Curve(jnp.eye(3)))
        with pytest.raises(TypeError, match=r"curve is a CurveRecord; .*: pass its \.curve"):
            distance_figure(CurveRecord(Curve(jnp.eye(3))))

    def test_rows_and_columns_are_as_many_as_their_names(self):
        images = random_images(2, 3, 8, 8, 1)
        with pytest.raises(ValueError, match="with 2 rows; 3 are named"):
            edit_figure(images, [0, 1, 2], None, ["a", "b", "c"], "")
        with pytest.raises(ValueError, match="with 3 columns; 2 are named"):
            interventions_figure(images, ["a", "b"], [0, 1], "")
        with pytest.raises(ValueError, match="with 1 directions; 2 are named"):
            directions_figure(images[None], ["a", "b"], [0, 1, 2], [(None, None)] * 2)

    def test_models_that_render_something_else_are_told(self):
        class Wrong(Painter):
            def render(self, latents):
                return self.change(super().render(0.1 * latents))

        model = Wrong()
        model.change = lambda images: jnp.moveaxis(images, -1, 1)
        with pytest.raises(ValueError, match=r"the model.s images have shape .* channels first"):
            render_images(model, normal(3, 2))
        model.change = lambda images: images * jnp.nan
        with pytest.raises(ValueError, match="NaN"):
            render_images(model, normal(3, 2))
        model.change = lambda images: images / 2 + 0.5
        with pytest.warns(UserWarning, match="no value of the model's images is below 0"):
            render_images(model, normal(3, 2))
        with pytest.raises(ValueError, match=r"shape \(3, 4\); the model renders \[N, 2\]"):
            render_images(model, normal(3, 4))


class TestInANotebook:
    def test_a_figure_is_a_picture_by_itself(self):
        figure = map_figure(random_images(2, 8, 8, 3))
        with Image.open(io.BytesIO(figure._repr_png_())) as image:
            assert image.format == "PNG"
            assert_array_equal(np.asarray(image.convert("RGB")), pixels(figure))

    def test_a_map_shows_each_image_with_its_number(self):
        images = random_images(5, 8, 8, 3)
        html = map_figure(images, "a < b")._repr_html_()
        assert html.startswith("<div>a &lt; b</div>")
        tiles = re.findall(r'base64,([^"]*)" title="(\d+)"', html)
        assert [int(number) for _, number in tiles] == list(range(5))
        for (data, _), image in zip(tiles, images, strict=True):
            assert_array_equal(Image.open(io.BytesIO(base64.b64decode(data))), image)
        assert map_figure(random_images(5, 512, 512, 1))._repr_html_() is None  # too much

    @pytest.mark.parametrize(("k", "d"), [(2, 1), (5, 2), (3000, 7)])
    def test_a_curve_is_drawn(self, k, d):
        html = Curve(jnp.asarray(normal(k, d)))._repr_html_()
        assert f"{k} codewords of {d} dimensions" in html
        (points,) = re.findall(r'points="([^"]*)"', html)
        corners = np.array([point.split(",") for point in points.split(" ")], float)
        assert min(k, 750) <= len(corners) <= min(k, 1024)
        assert (corners >= 0).all()
        assert (corners <= [360, 220]).all()

    def test_a_plane_curve_keeps_its_shape(self):
        square = np.float32([[0, 0], [1, 0], [1, 1], [0, 1.01]])
        turned = square @ np.linalg.qr(normal(9, 9))[0][:2]
        html = Curve(jnp.asarray(turned))._repr_html_()
        points = re.findall(r'points="([^"]*)"', html)[0].split(" ")
        corners = np.array([point.split(",") for point in points], float)
        steps = np.linalg.norm(np.diff(corners, axis=0), axis=1)
        assert_allclose(steps / steps.mean(), 1, atol=0.02)

    def test_a_traced_curve_is_not_drawn(self):
        drawn = []
        jax.make_jaxpr(lambda x: drawn.append(Curve(x)._repr_html_()) or x)(jnp.eye(3))
        assert drawn == [None]


class TestEdits:
    strengths, rows = [-2.5, 0.0, 1.2], ["seed 3", "seed 8"]

    @pytest.mark.parametrize("shape", [(8, 8, 1), (8, 12, 3)])
    def test_rows_are_latents_and_columns_strengths(self, shape):
        images = random_images(2, 3, *shape)
        figure = edit_figure(images, self.strengths, 2.0, self.rows, "a title")
        shown = np.array(shown_images(figure)).reshape(2, 3, *shape[:2], -1)
        assert_array_equal(shown, images)
        labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
        assert labels == ["seed 3", "seed 8"]
        assert pixels(figure).std() > 10

    def test_strengths_are_labelled_in_both_units(self):
        figure = edit_figure(random_images(2, 3, 8, 8, 1), self.strengths, 2.0, self.rows, "")
        titles = [axes.get_title() for axes in figure.axes[:3]]
        assert titles == ["-2.5 sd\n(-5)", "unedited\n", "+1.2 sd\n(+2.4)"]

    def test_columns_are_as_wide_as_asked(self):
        images = random_images(2, 3, 8, 8, 1)
        for side in (150, 300):
            figure = edit_figure(images, self.strengths, None, self.rows, "", side=side)
            figure.draw_without_rendering()
            widths = [axes.get_window_extent().width for axes in figure.axes]
            assert_allclose(widths, side, rtol=0.15)

    def test_the_unedited_column_alone_is_framed(self):
        figure = edit_figure(random_images(2, 3, 8, 8, 1), self.strengths, 2.0, self.rows, "")
        framed = [all(s.get_visible() for s in axes.spines.values()) for axes in figure.axes]
        assert framed == 2 * [False, True, False]


class TestDistances:
    def test_all_pairs_are_shown(self):
        codewords = normal(9, 4)
        figure = distance_figure(Curve(jnp.asarray(codewords)))
        expected = np.linalg.norm(codewords[:, None] - codewords, axis=2)
        assert_allclose(figure.axes[0].images[0].get_array(), expected, rtol=1e-5)
        assert pixels(figure).std() > 10


class TestHistory:
    history = History(
        codewords=np.array([4, 4, 8, 8], np.int32),
        loss=np.float32([0.9, 0.8, 0.6, 0.5]),
        objective=np.float32([0.85, 0.75, 0.55, 0.45]),
        distortion=np.float32([0.8, 0.7, 0.5, 0.4]),
        perplexity=np.float32([3, 3, 7, 3.5]),
        use=np.float32([[1 / 3] * 3 + [0] * 4] * 2 + [[1 / 7] * 7, [1, 0, 0, 0, 0, 0, 0]]),
        samples=np.array([1e4, 2e4, 3e4, 4e4]),
    )

    def test_the_curves_are_those_of_the_history(self):
        error, spread, use = history_figure(self.history).axes
        assert_array_equal(error.lines[0].get_ydata(), self.history.distortion)
        assert_array_equal(error.lines[1].get_ydata(), self.history.loss)
        assert_allclose(spread.lines[0].get_ydata(), [1, 1, 1, 0.5])
        assert_allclose([bar.get_height() for bar in use.patches], [7, 0, 0, 0, 0, 0, 0])

    def test_one_epoch_is_enough(self):
        one = History(*(column[-1:] for column in self.history))
        assert pixels(history_figure(one)).std() > 1
