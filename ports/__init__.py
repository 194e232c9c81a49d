"""Generators of other projects in Flax, loaded from converted checkpoints.

>>> import jax, ports
>>> model = ports.load(ports.bundled("fashion_mnist"))
>>> model.render(model.sample(jax.random.key(0), 2)).shape
(2, 32, 32, 1)
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from ports import checkpoint
from ports.classifier import Classifier
from ports.pickles import CheckpointError
from ports.stylegan2 import StyleGAN2, StyleGAN2Config

__all__ = ["BUNDLED", "CheckpointError", "Classifier", "StyleGAN2", "bundled", "convert", "load"]

BUNDLED = Path(__file__).parent / "bundled"


def load(path: str | Path, *, dtype: jnp.dtype = jnp.float32) -> StyleGAN2 | Classifier:
    """Loads a converted model.

    Args:
      path: a folder that `convert` wrote, or one of `bundled`.
      dtype: what a generator's convolutions compute in: float32, bfloat16 or float16. Images are
        float32 always.

    Raises:
      CheckpointError: no converted model there, or a damaged one.
    """
    config, variables = checkpoint.read(path)
    variables = jax.tree.map(jnp.asarray, variables)
    try:
        if config["architecture"] == "classifier":
            return Classifier.from_config(config["config"], variables)
        architecture = StyleGAN2Config.from_json(config["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: the config in config.json is damaged ({error}); convert the model again"
        ) from error
    return StyleGAN2(
        variables=variables,
        config=architecture,
        model_hash=config["parameters_sha256"],
        dtype=jnp.dtype(dtype),
    )


def convert(path: str | Path, folder: str | Path, *, overwrite: bool = False) -> None:
    """Converts an upstream checkpoint into a folder that `load` reads.

    Args:
      path: a network pickle of stylegan2-ada-pytorch or of the StyleGAN3 repository's StyleGAN2.
      folder: to be written; whole or not at all.
      overwrite: replace an existing folder.

    Raises:
      CheckpointError: another kind of file, a damaged one, or one that asks for code to be run;
        or the folder exists and `overwrite` is false.
    """
    from ports.stylegan2 import convert_nvidia

    checkpoint.check_free(folder, overwrite=overwrite)
    converted = convert_nvidia.convert(path)
    checkpoint.save(
        folder,
        "stylegan2",
        converted.config.to_json(),
        converted.variables,
        source=converted.source,
        overwrite=overwrite,
    )


def bundled(name: str) -> Path:
    """The folder of a model shipped with this package.

    `fashion_mnist` is a StyleGAN2 of 32x32 grayscale garments, `fashion_mnist_classifier` judges
    it; both were trained by `benchmarks/training`.
    """
    folder = BUNDLED / name
    if not folder.is_dir():
        names = ", ".join(sorted(p.name for p in BUNDLED.iterdir() if p.is_dir()))
        raise CheckpointError(f"no model {name!r} is bundled; there are {names}")
    return folder
