"""What a checkpoint is, converted or not, without writing anything."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ports import checkpoint, upstream
from ports.architectures import ARCHITECTURES, Layer, model_of
from sfvq_jax.short import short_repr


class Inspection(NamedTuple):
    """Description of a checkpoint, from `inspect`.

    Attributes:
      format: the upstream project, or how the model was made.
      architecture: name such as 'StyleGAN2 (skip)' or 'BigGAN-deep'.
      image_shape: shape of an image, (H, W, C).
      num_classes: number of classes; 0 for an unconditional generator.
      num_parameters: number of weights, without statistics and noise.
      latent_spaces: number of dimensions of each space, by name.
      layers: layers from the bottom up; the layer range of an edit counts them from 0.
      model_hash: SHA-256 of the parameters, which curves and directions keep.
      source: origin of the model: file, its SHA-256 and more.
      versions: versions of the packages that converted it; empty before conversion.
    """

    format: str
    architecture: str
    image_shape: tuple[int, ...]
    num_classes: int
    num_parameters: int
    latent_spaces: dict[str, int]
    layers: tuple[Layer, ...]
    model_hash: str
    source: dict[str, Any]
    versions: dict[str, str]

    __repr__ = short_repr


def inspect(
    path: str | Path, config: str | Path | None = None, network: str | None = None
) -> Inspection:
    """Describes the checkpoint at `path`, without writing anything.

    Args:
      path: an upstream checkpoint, or the folder of a converted model.
      config, network: see `convert`.

    Raises:
      CheckpointError: the file is no checkpoint, or is damaged.

    >>> import ports
    >>> found = ports.inspect(ports.bundled("fashion_mnist"))
    >>> found.architecture, found.image_shape, found.latent_spaces
    ('StyleGAN2 (skip)', (32, 32, 1), {'stylegan2-w': 64, 'stylegan2-z': 64})
    """
    if checkpoint.is_converted(path):
        config_json, variables = checkpoint.read(path, model_of)
        kind, source = config_json["architecture"], config_json["source"]
        model_hash, versions = config_json["parameters_sha256"], config_json["versions"]
        fields = config_json["config"]
    else:
        converted = upstream.read(path, config, network)
        kind, source, variables = converted.architecture, converted.source, converted.variables
        model_hash, versions = checkpoint.parameters_sha256(variables), {}
        fields = converted.config.to_json()
    return Inspection(
        format=source.get("format", "unknown"),
        num_parameters=sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"])),
        model_hash=model_hash,
        source={name: value for name, value in source.items() if name != "format"},
        versions=versions,
        **ARCHITECTURES[kind].facts(fields),
    )
