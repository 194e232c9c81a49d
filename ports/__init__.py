"""Generators of other projects in Flax, loaded from converted checkpoints.

>>> import jax, ports
>>> model = ports.load(ports.bundled("fashion_mnist"))
>>> model.render(model.sample(jax.random.key(0), 2)).shape
(2, 32, 32, 1)
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from ports import checkpoint, upstream
from ports.architectures import ARCHITECTURES, model_of
from ports.biggan import BigGAN, BigGANSpace
from ports.checkpoint import Converted
from ports.classifier import Classifier
from ports.errors import CheckpointError
from ports.inspection import Inspection, inspect
from ports.stylegan2 import StyleGAN2, StyleGAN2Z
from ports.verify import Difference, check_differences, compare, read_reference

__all__ = [
    "BUNDLED",
    "BigGAN",
    "BigGANSpace",
    "CheckpointError",
    "Classifier",
    "Difference",
    "Inspection",
    "StyleGAN2",
    "StyleGAN2Z",
    "build",
    "bundled",
    "convert",
    "inspect",
    "load",
]

BUNDLED = Path(__file__).parent / "bundled"


def load(path: str | Path, *, dtype: jnp.dtype = jnp.float32) -> StyleGAN2 | BigGAN | Classifier:
    """Loads a converted model.

    Args:
      path: a folder that `convert` wrote, or one from `bundled`.
      dtype: dtype of convolutions: float32, bfloat16 or float16. In a StyleGAN2 it applies only to
        those that upstream computes in float16. Images and scores are always float32.

    Raises:
      ValueError: another dtype.
      CheckpointError: the folder has no converted model, or a damaged one.

    >>> import ports
    >>> model = ports.load(ports.bundled("fashion_mnist"))
    >>> model.latent_space, model.latent_dim, model.num_layers
    ('stylegan2-w', 64, 8)
    """
    config_json, variables = checkpoint.read(path, model_of)
    return model_of(config_json, jax.tree.map(jnp.asarray, variables)).cast(dtype)


def convert(
    path: str | Path,
    folder: str | Path,
    *,
    config: str | Path | None = None,
    network: str | None = None,
    verify: str | Path | None = None,
    overwrite: bool = False,
) -> list[Difference]:
    """Converts an upstream checkpoint into a folder that `load` reads.

    Args:
      path: a file with a StyleGAN2 or a BigGAN of a project that docs/how-to/checkpoints.md lists:
        a pickle, PyTorch's `.pt`, `.pth`, `.bin` or `.ckpt`, or safetensors; or a folder with one
        such file.
      folder: the folder to write, whole or not at all.
      config: JSON file with the settings of a BigGAN; by default `config.json` beside the
        checkpoint.
      network: name of a generator in the file, such as 'G'; by default an averaged one, or else the
        first.
      verify: an `.npz` of outputs of the upstream model, with the names of `ports.verify.compare`.
      overwrite: replace an existing folder.

    Returns:
      The differences from the outputs in `verify`, if it is given.

    Raises:
      CheckpointError: another kind of file, a damaged file, or a file that asks to run code; the
        folder exists and `overwrite` is false; or outputs differ by more than
        `ports.verify.TOLERANCE`, and then nothing is written.

    >>> import tempfile
    >>> import ports
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ports.convert("tests/fixtures/stylegan2/tiny_ada_gray_cond.pkl", f"{folder}/tiny")
    ...     ports.load(f"{folder}/tiny").image_shape
    []
    (32, 32, 1)
    """
    checkpoint.check_free(folder, overwrite=overwrite)
    converted = upstream.read(path, config, network)
    differences = []
    if verify is not None:
        differences = compare(build(converted), read_reference(verify))
        check_differences(differences)
    checkpoint.save(
        folder,
        converted.architecture,
        converted.config.to_json(),
        converted.variables,
        source=converted.source,
        overwrite=overwrite,
    )
    return differences


def build(converted: Converted) -> StyleGAN2 | BigGAN:
    """Builds a converted generator without saving it.

    Args:
      converted: result of `ports.upstream.read`.

    >>> import ports
    >>> from ports import upstream
    >>> converted = upstream.read("tests/fixtures/stylegan2/tiny_ada_gray_cond.pkl")
    >>> ports.build(converted).image_shape
    (32, 32, 1)
    """
    return ARCHITECTURES[converted.architecture].build(
        converted.config.to_json(),
        jax.tree.map(jnp.asarray, converted.variables),
        checkpoint.parameters_sha256(converted.variables),
    )


def bundled(name: str) -> Path:
    """The folder of a model that comes with this package.

    `fashion_mnist` is a StyleGAN2 of 32x32 grayscale garments. `fashion_mnist_biggan` is a BigGAN
    of their ten classes. `fashion_mnist_classifier` is a classifier of them. All were trained by
    `benchmarks/training`.

    Raises:
      CheckpointError: there is no model of this name; the message lists the names.

    >>> import ports
    >>> sorted(file.name for file in ports.bundled("fashion_mnist").iterdir())
    ['config.json', 'parameters']
    """
    folder = BUNDLED / name
    if not folder.is_dir():
        names = ", ".join(sorted(p.name for p in BUNDLED.iterdir() if p.is_dir()))
        raise CheckpointError(f"no model {name!r} is bundled; there are {names}")
    return folder
