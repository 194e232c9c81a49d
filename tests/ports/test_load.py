"""The models that come with the package, and how `load` refuses what is none."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ports


@pytest.fixture(scope="module")
def generator():
    return ports.load(ports.bundled("fashion_mnist"))


@pytest.fixture(scope="module")
def classifier():
    return ports.load(ports.bundled("fashion_mnist_classifier"))


def test_bundled_models_are_small():
    for name, limit in (("fashion_mnist", 6e6), ("fashion_mnist_classifier", 2e6)):
        files = [path for path in ports.bundled(name).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < limit


def test_the_bundled_generator_tells_how_it_was_trained():
    source = json.loads((ports.bundled("fashion_mnist") / "config.json").read_text())["source"]
    assert source.keys() >= {"date", "steps", "seconds", "device"}


def test_the_bundled_generator_makes_garments_of_all_classes(generator, classifier, getkey):
    images = jnp.clip(generator.render(generator.sample(getkey(), 1000)), -1, 1)
    probabilities = jax.nn.softmax(classifier(images)[0])
    share = np.bincount(probabilities.argmax(1), minlength=10) / 1000
    assert share.min() > 0.04
    assert probabilities.max(1).mean() > 0.75


def test_the_classifier_is_right_on_test_images(shared, classifier):
    from benchmarks.training.data import load_fashion_mnist, to_float

    images, labels = load_fashion_mnist(shared / "data/fashion-mnist", "test")
    guesses = [
        classifier(to_float(images[i : i + 1000]))[0].argmax(1) for i in range(0, 10000, 1000)
    ]
    assert (np.concatenate(guesses) == labels).mean() >= 0.91


def test_truncation_narrows_the_samples(generator, getkey):
    key = getkey()
    full, half = generator.sample(key, 500), generator.sample(key, 500, truncation=0.5)
    np.testing.assert_allclose(half.std(0), 0.5 * full.std(0), rtol=1e-3)


def test_unknown_and_damaged_models_are_named(tmp_path):
    with pytest.raises(ports.CheckpointError, match="there are fashion_mnist, "):
        ports.bundled("imagenet")
    with pytest.raises(ports.CheckpointError, match="does not exist"):
        ports.load(tmp_path / "none")
    shutil.copytree(ports.bundled("fashion_mnist"), tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    content = json.loads(file.read_text())
    content["config"].pop("w_dim")
    file.write_text(json.dumps(content))
    with pytest.raises(ports.CheckpointError, match=r"config\.json is damaged .*w_dim"):
        ports.load(tmp_path / "model")
