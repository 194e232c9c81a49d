"""What a checkpoint is, converted or not, without writing anything."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ports import checkpoint, upstream
from ports.architectures import ARCHITECTURES, Layer, model_of
from sfvq_jax.short import short_repr


class Inspection(NamedTuple):
    """What `inspect` tells.

    Attributes:
      format: the upstream project, or how the model was made.
      architecture: such as 'StyleGAN2 (skip)' or 'BigGAN-deep'.
      image_shape: (H, W, C).
      num_classes: 0 of an unconditional generator.
      num_parameters: numbers in its weights; statistics and noise are not counted.
      latent_spaces: {name: number of dimensions}.
      layers: from the bottom up; an edit's layer range counts them from 0.
      model_hash: SHA-256 of the parameters, as curves and directions keep it.
      source: where it comes from: file, its SHA-256 and more.
      versions: that it was converted with; empty before.
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
    """What the checkpoint at `path` is.

    Args:
      path: an upstream checkpoint, or the folder of a converted model.
      config, network: as in `convert`.

    Raises:
      CheckpointError: where it is none, or a damaged one.

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
