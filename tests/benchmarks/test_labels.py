"""Images get the label that both ends of their line have, as a user's do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ports
from benchmarks import labels
from sfvq_jax import Curve, CurveRecord, save_curve
from sfvq_jax.cli import main
from sfvq_jax.io.curve_file import curve_sha256
from sfvq_jax.io.label_file import Label, Labels, save_labels

OF_CODEWORDS = np.array([3, 3, 3, 0, 1, 1, 0, 0, 7])


def test_it_draws_what_a_user_gets_of_explore_and_augment(tmp_path):
    model: Any = ports.load(ports.bundled("fashion_mnist"))
    curve = Curve(model.sample(jax.random.key(1), len(OF_CODEWORDS)))
    record = CurveRecord(curve, "stylegan2-w", model.model_hash)
    save_curve(tmp_path / "curve.npz", record)
    by_hand = tuple(Label(k, k, labels.CLASSES[c]) for k, c in enumerate(OF_CODEWORDS))
    save_labels(tmp_path / "curve.labels.json", Labels(by_hand, curve_sha256(record)))
    words = f"--labels {tmp_path}/curve.labels.json --count 9 --noise 0.5 -o {tmp_path}/drawn.npz"
    assert main(["augment", "fashion_mnist", f"{tmp_path}/curve.npz", *words.split()]) == 0
    key = jax.random.key(0)
    latents, classes = labels.draw_labelled(key, model, curve, OF_CODEWORDS, 9, 0.5)
    with np.load(tmp_path / "drawn.npz") as drawn:
        assert_array_equal(drawn["latents"], latents)
        names = np.array(["T-shirt", "dress", "trouser"])[drawn["labels"]]
        assert_array_equal(np.array(labels.CLASSES)[classes], names)
        line = drawn["positions"].astype(int)
    assert_array_equal(OF_CODEWORDS[line], classes)
    assert_array_equal(OF_CODEWORDS[line + 1], classes)


def test_straight_lines_are_drawn_between_all_pairs_of_a_label_of_each_class_equally_many():
    points = jnp.eye(9)  # so that a latent tells which points it lies between
    latents, classes = labels.draw_between(np.random.default_rng(0), points, OF_CODEWORDS, 999)
    assert_array_equal(np.unique(classes, return_counts=True), [[0, 1, 3], [333] * 3])
    assert_allclose(latents.sum(1), 1, rtol=1e-6)
    ends = np.asarray(latents) > 0
    assert_array_equal(ends.sum(1), 2)
    for row, c in zip(ends, classes, strict=True):
        assert_array_equal(OF_CODEWORDS[row], c)
    of_three = np.unique(np.nonzero(ends[classes == 3])[1].reshape(-1, 2), axis=0)
    assert_array_equal(of_three, [[0, 1], [0, 2], [1, 2]])


def test_labels_that_never_agree_are_an_error():
    with pytest.raises(ValueError, match="same label"):
        labels.draw_between(np.random.default_rng(0), jnp.eye(3), np.array([0, 1, 2]), 5)
    assert labels.lines_of(np.array([0, 1, 0])) == {}
