"""The models that come with the package, and how `load` refuses what is none."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ports
from ports import checkpoint
from ports.architectures import model_of


@pytest.fixture(scope="module")
def generator():
    return ports.load(ports.bundled("fashion_mnist"))


@pytest.fixture(scope="module")
def classifier():
    return ports.load(ports.bundled("fashion_mnist_classifier"))


def test_bundled_models_are_small():
    limits = {"fashion_mnist": 6e6, "fashion_mnist_biggan": 6e6, "fashion_mnist_classifier": 2e6}
    for name, limit in limits.items():
        files = [path for path in ports.bundled(name).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < limit


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_biggan"])
def test_the_bundled_generators_tell_how_they_were_trained(name):
    source = json.loads((ports.bundled(name) / "config.json").read_text())["source"]
    assert source.keys() >= {"date", "steps", "seconds", "device"}


def test_the_bundled_generator_makes_garments_of_all_classes(generator, classifier, getkey):
    images = jnp.clip(generator.render(generator.sample(getkey(), 1000)), -1, 1)
    probabilities = jax.nn.softmax(classifier(images)[0])
    share = np.bincount(probabilities.argmax(1), minlength=10) / 1000
    assert share.min() > 0.04
    assert probabilities.max(1).mean() > 0.75


def test_the_bundled_biggan_makes_the_class_that_is_asked_for(classifier, getkey):
    model = ports.load(ports.bundled("fashion_mnist_biggan"))
    assert isinstance(model, ports.BigGAN)
    classes = np.arange(1000) % 10
    images = model(model.sample_z(getkey(), 1000), classes)
    given = np.asarray(classifier(images)[0].argmax(1))
    assert (given == classes).mean() >= 0.95
    assert min((given == classes)[classes == i].mean() for i in range(10)) >= 0.85
    # and not the same image of it
    assert jnp.stack([images[classes == i].std(0).mean() for i in range(10)]).min() > 0.1


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


def test_a_model_computes_in_the_dtype_that_is_asked_for(classifier, getkey):
    low = ports.load(ports.bundled("fashion_mnist_classifier"), dtype=jnp.bfloat16)
    images = jax.random.normal(getkey(), (4, 32, 32, 1))
    for ours, full in zip(low(images), classifier(images), strict=True):
        assert ours.dtype == jnp.float32
        assert 0 < jnp.linalg.norm(ours - full) < 0.05 * jnp.linalg.norm(full)
    assert {x.dtype for x in jax.tree.leaves(low.variables)} == {jnp.dtype("bfloat16")}
    with pytest.raises(ValueError, match="dtype is int8; expected one of float32, bfloat16"):
        ports.load(ports.bundled("fashion_mnist"), dtype=jnp.int8)


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
    with pytest.raises(ports.CheckpointError, match=r"config in config\.json is damaged .*w_dim"):
        ports.load(tmp_path / "model")


CHANGES = [
    ("fashion_mnist", {"z_dim": 63}),
    ("fashion_mnist", {"w_dim": 64.0}),
    ("fashion_mnist", {"img_resolution": 32.0}),
    ("fashion_mnist", {"img_resolution": 64, "channels": [128, 128, 64, 32, 32]}),
    ("fashion_mnist", {"channels": 3}),
    ("fashion_mnist", {"channels": [128, 128, 64, 2**40]}),
    ("fashion_mnist", {"mapping_layers": 3}),
    ("fashion_mnist", {"mapping_layers": 10**9}),
    ("fashion_mnist", {"architecture": "orig"}),
    ("fashion_mnist", {"architecture": ["skip"]}),
    ("fashion_mnist", {"activation": "lrulu"}),
    ("fashion_mnist", {"activation": {}}),
    ("fashion_mnist", {"kernel_size": 1}),
    ("fashion_mnist", {"use_noise": False}),
    ("fashion_mnist", {"use_noise": 1}),
    ("fashion_mnist", {"conv_clamp": "256"}),
    ("fashion_mnist", {"resample_filter": []}),
    ("fashion_mnist", {"resample_filter": [[0.5], [0.5, 0.5]]}),
    ("fashion_mnist", {"resample_filter": [[[0.5]]]}),
    ("fashion_mnist", {"mapping_lr_multiplier": 0}),
    ("fashion_mnist", {"nosuch": 0}),
    ("fashion_mnist_biggan", {"z_dim": 32}),
    ("fashion_mnist_biggan", {"num_classes": 11}),
    ("fashion_mnist_biggan", {"blocks": []}),
    ("fashion_mnist_biggan", {"blocks": [[]]}),
    ("fashion_mnist_biggan", {"hierarchy": "chunks"}),
    ("fashion_mnist_biggan", {"bottleneck": True}),
    ("fashion_mnist_biggan", {"attention": [1]}),
    ("fashion_mnist_biggan", {"attention": None}),
    ("fashion_mnist_biggan", {"bottom_width": 2}),
    ("fashion_mnist_biggan", {"bottom_width": 2**40}),
    ("fashion_mnist_biggan", {"num_stats": 51}),
    ("fashion_mnist_biggan", {"eps": "1e-5"}),
    ("fashion_mnist_classifier", {"channels": [32, 48]}),
    ("fashion_mnist_classifier", {"class_names": "abcdefghij"}),
    ("fashion_mnist_classifier", {"class_names": ["bag"]}),
    ("fashion_mnist_classifier", {"num_features": 2**70}),
]


@pytest.fixture(scope="module")
def read_bundled():
    names = {name for name, _ in CHANGES}
    return {name: checkpoint.read(ports.bundled(name)) for name in names}


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_config_of_another_model_is_refused_before_it_draws(read_bundled, name, change):
    config_json, variables = read_bundled[name]
    changed = config_json | {"config": config_json["config"] | change}
    with pytest.raises(ports.CheckpointError, match=r"config in config\.json") as caught:
        model_of(changed, variables)
    assert len(str(caught.value)) < 500
