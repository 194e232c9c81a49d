"""The examples run, where the data of others that they read is there."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn import functional

from sfvq_jax.cli import main
from sfvq_jax.interpret.attributes import probability

EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGES = 96


@pytest.fixture
def example(shared, monkeypatch):
    """A module of examples/ by its name, which finds its data."""
    folders = {
        "DISVAE": "real_models/disvae",
        "DCGAN_SVHN": "real_models/dcgan_svhn",
        "FACE_NETS": "face_nets",
    }
    for name, folder in folders.items():
        if not (shared / "data" / folder).is_dir():
            pytest.skip(f"needs the models of {folder} in {shared.name}/data")
        monkeypatch.setenv(name, str(shared / "data" / folder))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load


def test_networks_that_judge_faces_agree_as_far_as_is_known(example, getkey):
    model, nets = example("disvae").VAE_celeba, example("face_nets")
    images = model.render(model.sample(getkey(), IMAGES))
    happy, male_and_age = nets.face_expression()(images), nets.age_gender()(images)
    for scores, judge, known in (
        (happy, nets.emotion(), 0.30),
        (male_and_age, nets.gender(), 0.50),
    ):
        r = np.corrcoef(scores[:, 0], judge(images)[:, 0])[0, 1]
        assert_allclose(r, known, atol=0.2)
    assert_allclose(probability(happy).mean(), 0.78, atol=0.1)
    assert_allclose(male_and_age[:, 1].mean(), 17, atol=3)


def test_faces_are_mapped_as_the_first_lines_say(example, tmp_path):
    name = "disvae.py:VAE_celeba"
    words = f"{EXAMPLES}/{name} --bits 2 --samples 1024 -o {tmp_path}/curve.npz"
    assert main(["fit", *words.split()]) == 0
    words = f"{EXAMPLES}/{name} {tmp_path}/curve.npz -o {tmp_path}/map.png"
    assert main(["map", *words.split()]) == 0
    assert (tmp_path / "map.png").is_file()


def test_house_numbers_are_those_of_torch_in_training(example, shared, monkeypatch):
    module = example("dcgan_svhn")
    monkeypatch.setattr(module, "FIXED", 16)
    model = module.model()
    z = model.sample(jax.random.key(0), 16)  # the fixed batch itself, by whose statistics it goes
    folder = shared / "data" / "real_models" / "dcgan_svhn"
    w = [torch.from_numpy(np.load(folder / f"gen_{i:02d}.npy")) for i in range(1, 11)]
    x = 10 * functional.normalize(torch.from_numpy(np.array(z))) @ w[0]
    x = functional.batch_norm(x, None, None, w[1], w[2], True, 0, 1e-8)
    x = x.relu().reshape(-1, 256, 4, 4)
    for i in (3, 6):
        x = functional.conv_transpose2d(x, w[i].flip(2, 3), None, 2, 2, 1)
        x = functional.batch_norm(x, None, None, w[i + 1], w[i + 2], True, 0, 1e-8).relu()
    images = functional.conv_transpose2d(x, w[9].flip(2, 3), None, 2, 2, 1).tanh()
    assert_allclose(model.render(z), images.permute(0, 2, 3, 1).numpy(), atol=1e-4)
    assert_allclose(model.render(z[:1]), model.render(z)[:1], atol=1e-5)
