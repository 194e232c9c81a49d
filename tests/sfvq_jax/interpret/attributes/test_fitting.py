"""Scorers fitted on labelled images: what they learn, that they are pure, and how they are kept."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfvq_jax.interpret import Scorer, fit_scorer, fit_scorers, load_scorers, save_scorers
from sfvq_jax.interpret.attributes.network import FittedFunction

N = 320


def squares(shape=(32, 32, 1), seed=0):
    """Noise with a bright square at the left (0) or right (1), uint8, and which of them."""
    rng = np.random.default_rng(seed)
    n, (h, w, c) = N, shape
    images = rng.integers(0, 60, (n, h, w, c)).astype(np.uint8)
    labels = rng.integers(0, 2, n)
    side = h // 3
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, h - side), rng.integers(0, w // 2 - side + 1)
        image[top : top + side, left + label * (w // 2) :][:, :side] = 220
    return images, labels


@pytest.fixture(scope="module")
def pair():
    """Two scorers of left and right."""
    images, labels = squares()
    return fit_scorers(jax.random.key(0), images, labels, names=("left", "right"), epochs=20)


def test_classes_are_learnt_by_both_scorers(pair):
    images, labels = squares(seed=1)
    for fit in pair:
        assert fit.overall > 0.95
        assert fit.measure == "recall"
        assert set(fit.held_out) == {"left", "right"}
        assert 0.5 <= fit.baseline < 0.8
        scores = fit.scorer(to_float(images))
        assert (scores.argmax(1) == labels).mean() > 0.95
        assert abs(scores).max() <= 6
        # of two classes, the log-odds of one are those against the other
        np.testing.assert_allclose(scores[:, 0], -scores[:, 1], atol=0.1)


def test_halves_and_held_out_images_share_no_image(pair):
    parts = [rows for fit in pair for rows in (fit.trained_rows, fit.held_out_rows)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(N))
    assert [len(part) for part in parts] == [144, 16, 144, 16]


def test_both_halves_hold_every_class_however_rare():
    images, _ = squares()
    labels = (np.arange(N) < 4).astype(int)
    for seed in range(3):
        for fit in fit_scorers(jax.random.key(seed), images, labels, epochs=1):
            assert (labels[fit.trained_rows] == 1).sum() >= 1


def test_scores_are_pure_under_jit_grad_and_vmap(pair):
    images, _ = squares()
    x = to_float(images[:8])
    scorer = pair.find.scorer
    plain = scorer(x)
    assert plain.shape == (8, 2)
    assert plain.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(scorer)(x), plain, atol=1e-4)
    as_argument = jax.jit(lambda scorer, x: scorer(x))(scorer, x)
    np.testing.assert_allclose(as_argument, plain, atol=1e-4)
    mapped = jax.vmap(lambda image: scorer(image[None])[0])(x)
    np.testing.assert_allclose(mapped, plain, atol=1e-4)
    derivative = jax.jit(jax.grad(lambda x: scorer(x)[:, 0].sum()))
    assert np.isfinite(derivative(0 * x)).all()
    assert np.isfinite(derivative(x)).all()
    assert abs(derivative(x)).max() > 0
    assert scorer.function.features(x).shape == (8, 64)


def test_images_of_other_sizes_are_resized_and_other_channels_refused(pair):
    images, _ = squares()
    x = to_float(images[:8])
    scorer = pair.find.scorer
    large = jnp.repeat(jnp.repeat(x, 3, 1), 3, 2)
    np.testing.assert_allclose(scorer(large), scorer(x), atol=1.5)
    with pytest.raises(ValueError, match=r"fitted on images \[N, H, W, 1\]; these have shape"):
        scorer(jnp.zeros((2, 32, 32, 3)))


def test_the_same_key_gives_the_same_scorer_bit_for_bit():
    images, labels = squares()
    a, b, other = (fit_scorer(jax.random.key(k), images, labels, epochs=1) for k in (3, 3, 4))
    for x, y in zip(jax.tree.leaves(a.scorer), jax.tree.leaves(b.scorer), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a.held_out_rows, b.held_out_rows)
    assert (a.held_out_rows != other.held_out_rows).any()


def test_yes_and_no_attributes_are_learnt_together():
    images, right = squares((28, 28, 1))
    dark = np.random.default_rng(1).random(N) < 0.4
    images = np.where(dark[:, None, None, None], images // 2, images)
    fit = fit_scorer(
        jax.random.key(0),
        to_float(images),
        np.stack([right > 0, dark], 1),
        names=["right", "dark"],
        epochs=25,
    )
    assert fit.measure == "balanced accuracy"
    assert fit.baseline == 0.5
    assert min(fit.held_out.values()) > 0.9
    assert fit.overall == pytest.approx(np.mean(list(fit.held_out.values())))
    assert abs(fit.scorer(to_float(images))).max() <= 6


def test_numbers_come_out_in_their_own_units():
    images, _ = squares((24, 20, 3))
    gain = np.random.default_rng(1).uniform(0.2, 1, (N, 1, 1, 1))
    images = (images * gain).astype(np.uint8)
    brightness = 1000 + 50 * images.mean((1, 2, 3))[:, None]
    fit = fit_scorer(jax.random.key(0), images, brightness, names=["brightness"], epochs=32)
    assert fit.measure == "R²"
    assert fit.baseline == 0
    assert fit.overall > 0.9
    scores = fit.scorer(to_float(images))
    assert np.corrcoef(scores[:, 0], brightness[:, 0])[0, 1] > 0.95
    assert abs(scores.mean() - brightness.mean()) < brightness.std()


def test_wide_images_are_seen_at_64_and_kept_whole():
    images, labels = squares((24, 40, 3))
    fit = fit_scorer(jax.random.key(0), images, labels, epochs=1)
    assert fit.scorer.names == ("class 0", "class 1")
    assert isinstance(fit.scorer.function, FittedFunction)
    assert fit.scorer.function.side == 64
    assert np.isfinite(fit.scorer(to_float(images[:4]))).all()


def test_saved_scorers_give_the_same_scores(pair, tmp_path):
    path = tmp_path / "scorers.npz"
    find, judge = pair.find.scorer, pair.judge.scorer
    save_scorers(path, find, judge, about={"test_accuracy": 0.9})
    loaded = load_scorers(path)
    assert loaded.about == {"test_accuracy": 0.9}
    x = to_float(squares()[0][:8])
    for before, after in ((find, loaded.find), (judge, loaded.judge)):
        assert after.names == ("left", "right")
        assert jax.tree.structure(after) == jax.tree.structure(before)
        np.testing.assert_array_equal(after(x), before(x))
    with pytest.raises(FileExistsError):
        save_scorers(path, find, judge)
    save_scorers(path, judge, find, overwrite=True)
    np.testing.assert_array_equal(load_scorers(path).judge(x), find(x))


def test_only_fitted_scorers_are_saved(pair, tmp_path):
    mean = Scorer.of(lambda images: images.mean((1, 2)), ["mean"])
    with pytest.raises(ValueError, match="judge is not a fitted scorer"):
        save_scorers(tmp_path / "scorers.npz", pair.find.scorer, mean)
    assert not list(tmp_path.iterdir())


def test_other_and_damaged_files_are_named_with_what_is_wrong(pair, tmp_path):
    path = tmp_path / "scorers.npz"
    with pytest.raises(FileNotFoundError, match=r"no file of scorers .*scorers\.npz"):
        load_scorers(path)
    save_scorers(path, pair.find.scorer, pair.judge.scorer)
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    config = json.loads(str(arrays["config"]))

    def refused(message, **changed):
        np.savez(path, **{k: v for k, v in (arrays | changed).items() if v is not None})
        with pytest.raises(ValueError, match=rf"scorers\.npz.*{message}"):
            load_scorers(path)

    for damaged in (b"", b"no scorers", whole[: len(whole) // 2], whole[1000:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"scorers\.npz is no file of scorers"):
            load_scorers(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=r"scorers\.npz is no file of scorers, or a damaged one"):
        load_scorers(path)
    name = "judge/params/conv0/kernel"
    refused("is no file of scorers", format_version=None)
    refused("has format 99", format_version=np.array(99))
    refused(f"no array {name}", **{name: None})
    refused(f"{name} has shape", **{name: arrays[name][:, :, :, :-1]})
    refused("not all finite", **{name: arrays[name] * np.float32(np.nan)})
    refused("it is no JSON object", config=np.array("[]"))
    refused("nested far too deeply", config=np.array("[" * 5000))
    wrong = [{"side": 33}, {"side": 32.0}, {"side": [32]}, {"kind": "x"}, {"channels": -1}]
    wrong += [{"channels": 2**40}, {"names": ["a", "a"]}, {"names": "ab"}, {"names": {}}]
    for change in wrong:
        changed = config | {"find": config["find"] | change}
        refused("or a damaged one", config=np.array(json.dumps(changed)))


IMAGES = np.zeros((40, 8, 8, 1), np.uint8)
CLASSES = np.arange(40) % 2
YES = np.stack([CLASSES > 0, CLASSES < 1], 1)


@pytest.mark.parametrize(
    ("message", "images", "labels", "options"),
    [
        (r"labels have shape \(40, 2\) and type int64", IMAGES, YES.astype(np.int64), {}),
        (r"labels have shape \(40,\) and type float64", IMAGES, CLASSES / 2, {}),
        ("there are 10 labels; expected 20 or more", IMAGES[:10], CLASSES[:10], {}),
        (r"images have shape \(40, 8, 8\); expected \[N, H", IMAGES[..., 0], CLASSES, {}),
        ("there are 39 images, but 40 labels", IMAGES[1:], CLASSES, {}),
        ("images are int64; expected uint8", IMAGES.astype(np.int64), CLASSES, {}),
        (r"from 0 to 255; expected uint8", 255.0 * YES[:, :, None, None], CLASSES, {}),
        (r"where they are in \[0, 1\]", IMAGES + 0.5, CLASSES, {}),
        ("have values that are NaN", np.nan * IMAGES, CLASSES, {}),
        (r"shape \(40, 1, 8, 8\), channels first", IMAGES.reshape(40, 1, 8, 8), CLASSES, {}),
        ("labels reach from -1 to 0", IMAGES, -CLASSES, {}),
        ("labels reach from 0 to 10000", IMAGES, CLASSES * 10_000, {}),
        ("all labels are of one class", IMAGES, 0 * CLASSES, {}),
        ("'class 1' has 0 images; expected 2 or more", IMAGES, 2 * CLASSES, {}),
        ("'c' has 0 images", IMAGES, CLASSES, {"names": "abc"}),
        ("there are 1 names, but the labels need 2", IMAGES, CLASSES, {"names": ["a"]}),
        ("there are 3 names, but the labels need 2", IMAGES, YES, {"names": "abc"}),
        ("expected different ones", IMAGES, CLASSES, {"names": ["a", "a"]}),
        ("'b: yes' has 0 images", IMAGES, YES & [True, False], {"names": "ab"}),
        ("'b: no' has 0 images", IMAGES, YES | [False, True], {"names": "ab"}),
        ("'attribute 0' is 0 for all images", IMAGES, 0.0 * YES, {}),
        (
            "40 images have labels that are NaN or infinite, the first in row 0",
            IMAGES,
            np.nan * YES,
            {},
        ),
        ("held_out is 0.6", IMAGES, CLASSES, {"held_out": 0.6}),
        ("epochs is 0", IMAGES, CLASSES, {"epochs": 0}),
    ],
)
def test_what_does_not_fit_is_refused(message, images, labels, options):
    with pytest.raises(ValueError, match=message):
        fit_scorer(jax.random.key(0), images, labels, **options)


def test_a_pair_needs_twice_as_many_images():
    with pytest.raises(ValueError, match="there are 39 labels; expected 40 or more"):
        fit_scorers(jax.random.key(0), IMAGES[1:], CLASSES[1:])


def test_measures_are_those_of_their_definitions(pair):
    """The held-out recalls, from the rows that the fit names."""
    images, labels = squares()
    fit = pair.judge
    rows = fit.held_out_rows
    right = np.asarray(fit.scorer(to_float(images[rows])).argmax(1) == labels[rows])
    assert fit.overall == right.mean()
    for i, name in enumerate(fit.scorer.names):
        assert fit.held_out[name] == right[labels[rows] == i].mean()
    assert fit.baseline == np.bincount(labels[rows]).max() / len(rows)


def to_float(images):
    return images.astype(np.float32) / 127.5 - 1
